//! Exchanges over HTTP/2 with backends that speak it from the first byte on.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::stream;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, Request as Asked, Response as Answered};

use super::{
    streams::{channel, data, head, next, told},
    *,
};
use crate::proxy::{Exchange, Length, Part, Piece, Raw, RequestHead, Upload};

/// A backend whose requests are all served alike; it ends with the value.
struct Server {
    backend: Counting,
    lanes: HttpLanes,
}

type Handed = (Asked<RecvStream>, SendResponse<Bytes>);

impl Server {
    /// Each connection is handed to `serve`.
    fn raw<F>(serve: impl Fn(UnixStream, usize) -> F + Send + 'static) -> Server
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Server { backend: Counting::start(serve), lanes: HttpLanes::default() }
    }

    /// Each request is handed to `serve`.
    fn start<F>(serve: impl Fn(Handed) -> F + Clone + Send + Sync + 'static) -> Server
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Server::raw(move |stream, _| {
            let serve = serve.clone();
            async move {
                let mut builder = h2::server::Builder::new();
                builder.enable_connect_protocol();
                let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
                while let Some(Ok(handed)) = connection.accept().await {
                    tokio::spawn(serve(handed));
                }
            }
        })
    }

    async fn fetch_within(&self, request: Request, limits: &Limits) -> Result<Response> {
        let socket = self.backend.socket();
        let dial = || async { Ok(Dialled::Http2(UnixStream::connect(&socket).await.unwrap())) };
        let route = Route { backend: "org/ext", pool: None, lanes: &self.lanes, dial };
        timeout(PATIENCE, fetch(route, request, limits)).await.expect("the fetch hangs").map(whole)
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        self.fetch_within(request, &Limits::default()).await
    }

    async fn open(&self, head: &RequestHead, upload: Upload) -> Result<Exchange> {
        let socket = self.backend.socket();
        let dial = || async { Ok(Dialled::Http2(UnixStream::connect(&socket).await.unwrap())) };
        let route = Route { backend: "org/ext", pool: None, lanes: &self.lanes, dial };
        let limits = Limits::default();
        timeout(PATIENCE, Exchange::open(route, head, upload, &limits, true)).await.expect("opening hangs")
    }

    fn accepted(&self) -> usize {
        self.backend.accepted()
    }
}

fn ok() -> Answered<()> {
    Answered::new(())
}

/// All of a request's body, and its trailers.
async fn read_all(body: &mut RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut all = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    (all, body.trailers().await.unwrap_or_default())
}

#[tokio::test]
async fn a_request_and_its_answer_arrive_as_they_are() {
    let server = Server::start(|(request, mut respond): Handed| async move {
        let (head, mut body) = request.into_parts();
        let (body, _) = read_all(&mut body).await;
        let told = format!("{} {} {:?} {}", head.method, head.uri, head.headers, body.len());
        let answer = Answered::builder().status(207).header("x-a", "1").header("x-a", "2").header("told", told);
        let mut sending = respond.send_response(answer.body(()).unwrap(), false).unwrap();
        sending.send_data(Bytes::from(body), false).unwrap();
        sending.send_trailers([("x-sum".parse().unwrap(), "7".parse().unwrap())].into_iter().collect()).unwrap();
    });
    let body = Bytes::from_iter((0..3_u32 << 19).map(|byte| byte as u8));
    let limits = Limits { max_body_bytes: 4 << 20, ..Limits::default() };
    let request = Request { headers: vec![line("X-Mine", b"\xff1")], path: "/a%2Fb?c d".into(), ..post(body.clone()) };
    let response = server.fetch_within(request, &limits).await.unwrap();
    assert_eq!((response.status, response.body), (207, body));
    assert_eq!(response.trailers, [line("x-sum", b"7")]);
    assert_eq!(response.headers[..2], [line("x-a", b"1"), line("x-a", b"2")]);
    let told = String::from_utf8_lossy(&response.headers[2].value).into_owned();
    assert!(told.starts_with("POST http://localhost/a%2Fb?c%20d ") && told.ends_with(" 1572864"), "{told}");
    assert!(told.contains(r#""x-mine": "\xff1""#) && told.contains(r#""content-length": "1572864""#), "{told}");

    // The connection is used again, and a Host is the authority.
    let request = Request { headers: vec![line("Host", b"db:80")], ..get("/x") };
    let told = server.fetch(request).await.unwrap().headers.pop().unwrap();
    assert_eq!(told.value, "GET http://db:80/x {} 0");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn calls_at_once_share_a_connection() {
    let server = Server::start(|(_, mut respond): Handed| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        respond.send_response(ok(), true).unwrap();
    });
    server.fetch(get("/")).await.unwrap();
    let all = futures_util::future::join_all((0..50).map(|_| server.fetch(get("/")))).await;
    assert!(all.iter().all(|answer| answer.as_ref().unwrap().status == 200));
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn both_directions_go_on_at_once_with_interim_answers_and_trailers() {
    let server = Server::start(|(request, mut respond): Handed| async move {
        let mut body = request.into_body();
        let hints = Answered::builder().status(103).header("link", "x").body(()).unwrap();
        respond.send_informational(hints).unwrap();
        let mut sending = respond.send_response(ok(), false).unwrap();
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).unwrap();
            sending.send_data(data, false).unwrap();
        }
        let trailers = body.trailers().await.unwrap().unwrap_or_default();
        sending.send_trailers(trailers).unwrap();
    });
    let (sender, upload) = channel();
    let head = RequestHead { trailers: vec!["X-Sum".into()], ..head("POST") };
    let mut exchange = server.open(&head, upload).await.unwrap();
    assert_eq!(told(&mut exchange).await, "interim 103");
    assert_eq!(told(&mut exchange).await, "head 200");
    for piece in [&b"one"[..], b"two"] {
        sender.send(data(piece)).await.unwrap();
        assert_eq!(told(&mut exchange).await.as_bytes(), piece);
    }
    sender.send(Piece::Trailers(vec![line("x-sum", b"7"), line("x-other", b"8")])).await.unwrap();
    assert_eq!(told(&mut exchange).await, "end 1", "what was announced");
    drop(sender);
    assert_eq!(told(&mut exchange).await, "over");
}

/// A caller that goes resets its stream, and nothing else on the connection.
#[tokio::test]
async fn a_cancelled_exchange_is_reset() {
    let (resets, mut was_reset) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |(request, mut respond): Handed| {
        let resets = resets.clone();
        async move {
            if request.uri().path() == "/quick" {
                respond.send_response(ok(), true).unwrap();
                return;
            }
            let reset = match request.uri().path() {
                "/head" => poll_fn(|cx| respond.poll_reset(cx)).await,
                _ => {
                    let mut sending = respond.send_response(ok(), false).unwrap();
                    sending.send_data(Bytes::from_static(b"some"), false).unwrap();
                    poll_fn(|cx| sending.poll_reset(cx)).await
                }
            };
            resets.send(reset.unwrap()).unwrap();
        }
    });
    server.fetch(get("/quick")).await.unwrap();
    // In the body; while the caller still sends; before the head.
    let exchange = server.open(&head("GET"), Upload::whole(Bytes::new())).await.unwrap();
    drop(exchange);
    assert_eq!(was_reset.recv().await, Some(h2::Reason::CANCEL));
    let (_sender, upload) = channel();
    let exchange = server.open(&head("POST"), upload).await.unwrap();
    drop(exchange);
    assert_eq!(was_reset.recv().await, Some(h2::Reason::CANCEL));
    assert!(timeout(Duration::from_millis(200), server.fetch(get("/head"))).await.is_err());
    assert_eq!(timeout(PATIENCE, was_reset.recv()).await.unwrap(), Some(h2::Reason::CANCEL));
    server.fetch(get("/quick")).await.unwrap();
    assert_eq!(server.accepted(), 1);
}

/// Neither side's bytes pile up in between.
#[tokio::test]
async fn a_side_that_does_not_read_stops_the_side_that_writes() {
    let written = Arc::<AtomicUsize>::default();
    let server = Server::start({
        let written = written.clone();
        move |(_request, mut respond): Handed| {
            let written = written.clone();
            async move {
                let mut sending = respond.send_response(ok(), false).unwrap();
                loop {
                    sending.reserve_capacity(64 << 10);
                    let Some(Ok(room)) = poll_fn(|cx| sending.poll_capacity(cx)).await else { return };
                    sending.send_data(Bytes::from(vec![0; room]), false).unwrap();
                    written.fetch_add(room, Ordering::Relaxed);
                }
            }
        }
    });
    let counted = Arc::<AtomicUsize>::default();
    let pieces = stream::repeat_with({
        let counted = counted.clone();
        move || {
            counted.fetch_add(64 << 10, Ordering::Relaxed);
            Ok(Piece::Data(Bytes::from(vec![0; 64 << 10])))
        }
    });
    let mut exchange = server.open(&head("POST"), Upload::pieces(Box::pin(pieces), Length::Unknown)).await.unwrap();
    assert_eq!(told(&mut exchange).await, "head 200");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(matches!(next(&mut exchange).await, Some(Ok(Part::Data(_)))));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (written, taken) = (written.load(Ordering::Relaxed), counted.load(Ordering::Relaxed));
    assert!(written < 3 << 20 && taken < 2 << 20, "{written} written, {taken} taken");
}

/// A backend that answered and reads no more does not hold the caller.
#[tokio::test]
async fn nobody_waits_for_a_backend_that_lost_interest() {
    for resets in [true, false] {
        let server = Server::start(move |(request, mut respond): Handed| async move {
            respond.send_response(Answered::builder().status(413).body(()).unwrap(), true).unwrap();
            if resets {
                tokio::time::sleep(Duration::from_millis(50)).await;
                respond.send_reset(h2::Reason::NO_ERROR);
            } else {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            drop(request);
        });
        let endless = stream::repeat_with(|| Ok(Piece::Data(Bytes::from(vec![0; 64 << 10]))));
        let upload = Upload::pieces(Box::pin(endless), Length::Unknown);
        let mut exchange = server.open(&head("POST"), upload).await.unwrap();
        for expected in ["head 413", "end 0", "over"] {
            assert_eq!(told(&mut exchange).await, expected);
        }
    }
}

#[tokio::test]
async fn what_breaks_is_told_apart() {
    let answered = Server::start(|(request, mut respond): Handed| async move {
        match request.uri().path() {
            "/reset" => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            "/body" => {
                let mut sending = respond.send_response(ok(), false).unwrap();
                sending.send_data(Bytes::from_static(b"some"), false).unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
                sending.send_reset(h2::Reason::INTERNAL_ERROR);
            }
            "/short" => {
                let head = Answered::builder().header("content-length", "9").body(()).unwrap();
                let mut sending = respond.send_response(head, false).unwrap();
                sending.send_data(Bytes::from_static(b"some"), true).unwrap();
            }
            "/large" => {
                let mut sending = respond.send_response(ok(), false).unwrap();
                sending.send_data(Bytes::from(vec![0; 200]), true).unwrap();
            }
            "/many" => {
                let mut head = ok();
                for number in 0..300 {
                    head.headers_mut().append("x", number.into());
                }
                respond.send_response(head, true).unwrap();
            }
            _ => tokio::time::sleep(Duration::from_secs(60)).await,
        }
    });
    let limits = Limits { head: Some(Duration::from_millis(200)), max_body_bytes: 100, ..Limits::default() };
    for (path, reason) in [
        ("/reset", Reason::BackendBrokeBeforeHead),
        ("/body", Reason::BackendBrokeInBody),
        ("/short", Reason::ResponseInvalid),
        ("/large", Reason::BodyTooLarge),
        ("/many", Reason::ResponseInvalid),
        ("/never", Reason::BackendTooSlow),
    ] {
        let error = answered.fetch_within(get(path), &limits).await.unwrap_err();
        assert_failed(&error, reason, true);
    }
    let closing = Server::raw(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 4096]).await;
    });
    assert_eq!(closing.fetch(get("/")).await.unwrap_err().reason(), Reason::BackendBrokeBeforeHead);
    let http1 = Server::raw(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    let error = http1.fetch(get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ResponseInvalid);
    assert!(error.message().contains("h2c"), "{error}");
    for wrong in [line("Connection", b"close"), line("Host", b"a b")] {
        let error = http1.fetch(Request { headers: vec![wrong], ..get("/") }).await.unwrap_err();
        assert_failed(&error, Reason::HeaderInvalid, false);
    }
}

/// What the backend says that it did not look at goes again, where all of it is there.
#[tokio::test]
async fn an_unseen_request_is_sent_again() {
    let server = Server::raw(|stream, number| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut first = true;
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            match (number, std::mem::take(&mut first)) {
                // One answer, then the second request is refused; the third connection answers all.
                (0, true) => drop(respond.send_response(ok(), true).unwrap()),
                (0 | 1, _) => respond.send_reset(h2::Reason::REFUSED_STREAM),
                _ => {
                    tokio::spawn(async move {
                        let (all, _) = read_all(&mut request.into_body()).await;
                        let mut sending = respond.send_response(ok(), false).unwrap();
                        sending.send_data(all.into(), true).unwrap();
                    });
                }
            }
        }
    });
    server.fetch(get("/")).await.unwrap();
    let refused = server.fetch(post("again")).await.unwrap_err();
    assert_failed(&refused, Reason::BackendBrokeBeforeHead, false);
    assert!(refused.retry_delay().is_some());

    // A connection that goes away after its first answer is left for another.
    let leaving = Server::raw(|stream, _| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let Some(Ok((request, mut respond))) = connection.accept().await else { return };
        let (all, _) = read_all(&mut request.into_body()).await;
        let mut sending = respond.send_response(ok(), false).unwrap();
        sending.send_data(all.into(), true).unwrap();
        connection.graceful_shutdown();
        while connection.accept().await.is_some() {}
    });
    for round in 0..5 {
        let answer = leaving.fetch(post("")).await.unwrap();
        assert_eq!(answer.status, 200, "{round}");
    }
    assert!(leaving.accepted() > 1);
}

fn websocket() -> RequestHead {
    RequestHead { path: "/ws".into(), upgrade: Some("websocket".into()), ..head("GET") }
}

#[tokio::test]
async fn another_protocol_goes_by_extended_connect() {
    let server = Server::start(|(request, mut respond): Handed| async move {
        let protocol = request.extensions().get::<h2::ext::Protocol>().map(|name| name.as_str().to_owned());
        assert_eq!((request.method().as_str(), protocol.as_deref()), ("CONNECT", Some("websocket")));
        let mut body = request.into_body();
        let mut sending = respond.send_response(ok(), false).unwrap();
        sending.send_data(Bytes::from_static(b"\0early"), false).unwrap();
        let (heard, _) = read_all(&mut body).await;
        sending.send_data(heard.into(), true).unwrap();
    });
    let mut exchange = server.open(&websocket(), Upload::whole(Bytes::new())).await.unwrap();
    assert_eq!(told(&mut exchange).await, "head 101");
    let (sender, receiver) = tokio::sync::mpsc::channel::<&'static [u8]>(1);
    let source = stream::unfold(receiver, |mut receiver| async move {
        Some((Ok(Piece::Data(Bytes::from_static(receiver.recv().await?))), receiver))
    });
    let mut upgraded = exchange.into_upgraded().unwrap().fed_by(Box::pin(source));
    let mut next = async || timeout(PATIENCE, poll_fn(|cx| upgraded.poll_next(cx))).await.unwrap().transpose().unwrap();
    assert_eq!(next().await, Some(Raw::Data(Bytes::from_static(b"\0early"))));
    sender.send(b"\xff").await.unwrap();
    drop(sender);
    assert_eq!(next().await, Some(Raw::Data(Bytes::from_static(b"\xff"))));
    assert_eq!(next().await, Some(Raw::End));
    assert_eq!(next().await, None);

    // One that says no answers as it would otherwise.
    let refusing = Server::start(|(_, mut respond): Handed| async move {
        let mut sending = respond.send_response(Answered::builder().status(404).body(()).unwrap(), false).unwrap();
        sending.send_data(Bytes::from_static(b"no"), true).unwrap();
    });
    let mut exchange = refusing.open(&websocket(), Upload::whole(Bytes::new())).await.unwrap();
    for expected in ["head 404", "no", "end 0", "over"] {
        assert_eq!(told(&mut exchange).await, expected);
    }

    // One that does not know of it is not asked.
    let plain = Server::raw(|stream, _| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        assert!(connection.accept().await.is_none());
    });
    let error = plain.open(&websocket(), Upload::whole(Bytes::new())).await.err().unwrap();
    assert_failed(&error, Reason::EndpointNotFound, false);
    assert!(error.message().contains("RFC 8441"));
}
