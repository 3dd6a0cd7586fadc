//! Exchanges piece by piece.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::*;
use crate::proxy::{Exchange, Head, Length, Part, Piece, RequestHead, Upload};

/// A request body that is written to as it goes.
pub(super) fn channel() -> (mpsc::Sender<Piece>, Upload) {
    let (sender, receiver) = mpsc::channel(1);
    let pieces = stream::unfold(receiver, |mut receiver| async move { Some((Ok(receiver.recv().await?), receiver)) });
    (sender, Upload::pieces(Box::pin(pieces), Length::Unknown))
}

pub(super) fn data(bytes: &'static [u8]) -> Piece {
    Piece::Data(Bytes::from_static(bytes))
}

pub(super) fn head(method: &str) -> RequestHead {
    RequestHead { method: method.into(), path: "/".into(), ..RequestHead::default() }
}

pub(super) async fn open<T>(backend: &Backend<T>, head: &RequestHead, upload: Upload) -> Result<Exchange>
where
    T: Send + 'static,
{
    let socket = backend.socket();
    let dial = || async { Ok(Dialled::Http1(UnixStream::connect(&socket).await.unwrap())) };
    let limits = Limits::default();
    let opened = Exchange::open(route(dial), head, upload, &limits, true);
    timeout(PATIENCE, opened).await.expect("opening hangs")
}

pub(super) async fn next(exchange: &mut Exchange) -> Option<Result<Part>> {
    timeout(PATIENCE, exchange.next()).await.expect("the exchange hangs")
}

pub(super) async fn told(exchange: &mut Exchange) -> String {
    match next(exchange).await {
        None => "over".into(),
        Some(Err(error)) => error.reason().as_str().into(),
        Some(Ok(Part::Interim(head))) => format!("interim {}", head.status),
        Some(Ok(Part::Head(head))) => format!("head {}", head.status),
        Some(Ok(Part::Data(data))) => String::from_utf8_lossy(&data).into_owned(),
        Some(Ok(Part::End(trailers))) => format!("end {}", trailers.len()),
    }
}

pub(super) async fn read_some(stream: &mut UnixStream) -> String {
    let mut buffer = vec![0; 4096];
    let length = stream.read(&mut buffer).await.unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// The request goes on after the head of the answer, and each piece of it is answered before the next comes.
#[tokio::test]
async fn both_directions_go_on_at_once() {
    let backend = Backend::start(|mut stream| async move {
        let head = read_head(&mut stream).await;
        assert!(head.contains("Transfer-Encoding: chunked\r\n"), "{head}");
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        for _ in 0..3 {
            let chunk = read_some(&mut stream).await;
            stream.write_all(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes()).await.unwrap();
        }
        assert_eq!(read_some(&mut stream).await, "0\r\n\r\n");
        stream.write_all(b"0\r\nX-Sum: 1\r\n\r\n").await.unwrap();
    });
    let (sender, upload) = channel();
    let mut exchange = open(&backend, &head("POST"), upload).await.unwrap();
    assert_eq!(told(&mut exchange).await, "head 200");
    for text in ["one", "two", "three"] {
        sender.send(data(text.as_bytes())).await.unwrap();
        assert_eq!(told(&mut exchange).await, format!("{}\r\n{text}\r\n", text.len()));
    }
    drop(sender);
    assert_eq!(told(&mut exchange).await, "end 1");
    assert_eq!(told(&mut exchange).await, "over");
    backend.end().await;
}

#[tokio::test]
async fn interim_answers_are_told_when_they_come() {
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n").await.unwrap();
        assert_eq!(read_some(&mut stream).await, "2\r\ngo\r\n");
        stream.write_all(b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 204 No\r\n\r\n").await.unwrap();
    });
    let (sender, upload) = channel();
    let mut exchange = open(&backend, &head("POST"), upload).await.unwrap();
    let Some(Ok(Part::Interim(hints))) = next(&mut exchange).await else { panic!() };
    assert_eq!(hints, Head { status: 103, headers: vec![line("link", b"x")] });
    sender.send(data(b"go")).await.unwrap();
    for expected in ["interim 102", "head 204", "end 0"] {
        assert_eq!(told(&mut exchange).await, expected);
    }
    drop(sender);
    assert_eq!(told(&mut exchange).await, "over");
    backend.end().await;
}

#[tokio::test]
async fn request_trailers_that_were_announced_arrive() {
    let backend = Backend::start(|mut stream| async move {
        let head = read_head(&mut stream).await;
        assert!(head.contains("Trailer: x-sum\r\n"), "{head}");
        let mut body = String::new();
        while !body.ends_with("\r\n\r\n") {
            body.push_str(&read_some(&mut stream).await);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        body
    });
    let trailers = vec![line("x-sum", b"7"), line("x-other", b"8")];
    let pieces = stream::iter([Ok(data(b"abc")), Ok(Piece::Trailers(trailers))]);
    let upload = Upload::pieces(Box::pin(pieces), Length::Unknown);
    let head = RequestHead { trailers: vec!["X-Sum".into()], ..head("PUT") };
    let mut exchange = open(&backend, &head, upload).await.unwrap();
    assert_eq!(told(&mut exchange).await, "head 200");
    assert_eq!(backend.end().await.to_ascii_lowercase(), "3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n");
}

#[tokio::test]
async fn a_body_must_be_as_long_as_announced() {
    for (pieces, length, word) in [
        (vec![data(b"abc")], 4, "ended 1 bytes before"),
        (vec![data(b"abc"), data(b"de")], 4, "longer"),
        (vec![], 1, "ended 1 bytes before"),
    ] {
        let backend = Backend::start(|mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let pieces = stream::iter(pieces.into_iter().map(Ok));
        let upload = Upload::pieces(Box::pin(pieces), Length::Known(length));
        let error = open(&backend, &head("POST"), upload).await.err().unwrap();
        assert_eq!(error.reason(), Reason::RequestInvalid, "{error}");
        assert!(error.message().contains(word), "{error}");
        backend.end().await;
    }
}

/// What the caller's side says about itself is what the caller is told.
#[tokio::test]
async fn a_failing_source_is_told_as_it_is() {
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nx").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        sees_the_end(&mut stream).await
    });
    let (told_so, failing) = tokio::sync::oneshot::channel::<()>();
    let pieces = stream::once(async { Ok(data(b"a")) }).chain(stream::once(async {
        let _ = failing.await;
        Err(Error::new(Reason::RequestInvalid, "part", "nonsense"))
    }));
    let upload = Upload::pieces(Box::pin(pieces), Length::Unknown);
    let mut exchange = open(&backend, &head("POST"), upload).await.unwrap();
    assert_eq!(told(&mut exchange).await, "head 200");
    assert_eq!(told(&mut exchange).await, "x");
    told_so.send(()).unwrap();
    assert_eq!(told(&mut exchange).await, "REQUEST_INVALID");
    assert_eq!(told(&mut exchange).await, "over");
    assert!(backend.end().await);
}

/// Answered early, and read to the end all the same.
#[tokio::test]
async fn the_rest_of_a_request_follows_an_early_answer() {
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        let mut body = String::new();
        while !body.ends_with("0\r\n\r\n") {
            body.push_str(&read_some(&mut stream).await);
        }
        body
    });
    let (sender, upload) = channel();
    let mut exchange = open(&backend, &head("POST"), upload).await.unwrap();
    for expected in ["head 202", "ok", "end 0"] {
        assert_eq!(told(&mut exchange).await, expected);
    }
    let sending = tokio::spawn(async move {
        for text in [&b"late"[..], b"later"] {
            tokio::time::sleep(Duration::from_millis(400)).await;
            sender.send(data(text)).await.unwrap();
        }
    });
    assert_eq!(told(&mut exchange).await, "over");
    sending.await.unwrap();
    assert_eq!(backend.end().await, "4\r\nlate\r\n5\r\nlater\r\n0\r\n\r\n");
}

/// However slowly, as long as some of it is taken.
#[tokio::test]
async fn a_slow_reader_gets_the_rest_of_a_request_too() {
    const PIECES: usize = 40;
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        let (mut body, mut buffer) = (Vec::new(), vec![0; 128 << 10]);
        while !body.ends_with(b"0\r\n\r\n") {
            tokio::time::sleep(Duration::from_millis(60)).await;
            match stream.read(&mut buffer).await.unwrap() {
                0 => break,
                length => body.extend_from_slice(&buffer[..length]),
            }
        }
        body.iter().filter(|byte| **byte == b'x').count()
    });
    let pieces = stream::iter((0..PIECES).map(|_| Ok(Piece::Data(Bytes::from(vec![b'x'; 64 << 10])))));
    let mut exchange = open(&backend, &head("POST"), Upload::pieces(Box::pin(pieces), Length::Unknown)).await.unwrap();
    for expected in ["head 202", "end 0", "over"] {
        assert_eq!(told(&mut exchange).await, expected);
    }
    assert_eq!(backend.end().await, PIECES * (64 << 10));
}

/// One that has answered, says no more, and goes later, while nobody sends it anything.
#[tokio::test]
async fn a_backend_that_goes_after_its_answer_is_noticed() {
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
    });
    let (sender, upload) = channel();
    let mut exchange = open(&backend, &head("POST"), upload).await.unwrap();
    for expected in ["head 200", "end 0", "over"] {
        assert_eq!(told(&mut exchange).await, expected);
    }
    drop(sender);
    backend.end().await;
}

/// Whoever promises an answer for ever does not give one.
#[tokio::test]
async fn interim_answers_are_no_answer_in_time() {
    let limits = Limits { head: Some(Duration::from_millis(200)), ..Limits::default() };
    let backend = Backend::start(|mut stream| async move {
        while stream.write_all(&b"HTTP/1.1 103 E\r\n\r\n".repeat(2_000)).await.is_ok() {}
    });
    let socket = backend.socket();
    let dial = || async { Ok(Dialled::Http1(UnixStream::connect(&socket).await.unwrap())) };
    let mut exchange =
        Exchange::open(route(dial), &head("GET"), Upload::whole(Bytes::new()), &limits, true).await.unwrap();
    let last = loop {
        match next(&mut exchange).await {
            Some(Ok(Part::Interim(_))) => {}
            other => break other,
        }
    };
    assert_failed(&last.unwrap().unwrap_err(), Reason::BackendTooSlow, true);
    drop(exchange);
    backend.end().await;
}

/// A backend that answered and reads no more does not hold the caller.
#[tokio::test]
async fn nobody_waits_for_a_backend_that_lost_interest() {
    for closes in [true, false] {
        let backend = Backend::start(move |mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            if !closes {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        });
        let endless = stream::repeat_with(|| Ok(Piece::Data(Bytes::from(vec![0; 64 << 10]))));
        let upload = Upload::pieces(Box::pin(endless), Length::Unknown);
        let mut exchange = open(&backend, &head("POST"), upload).await.unwrap();
        for expected in ["head 413", "end 0", "over"] {
            assert_eq!(told(&mut exchange).await, expected);
        }
        backend.end().await;
    }
}

/// Neither side's bytes pile up in between.
#[tokio::test]
async fn a_side_that_does_not_read_stops_the_side_that_writes() {
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        let mut written = 0_u64;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let block = vec![b'x'; 64 << 10];
        while let Ok(result) = timeout(Duration::from_millis(500), stream.write(&block)).await {
            written += result.unwrap() as u64;
        }
        written
    });
    let mut taken = 0_u64;
    let counted = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let pieces = stream::repeat_with({
        let counted = counted.clone();
        move || {
            counted.fetch_add(64 << 10, std::sync::atomic::Ordering::Relaxed);
            Ok(Piece::Data(Bytes::from(vec![0; 64 << 10])))
        }
    });
    let upload = Upload::pieces(Box::pin(pieces), Length::Unknown);
    let mut exchange = open(&backend, &head("POST"), upload).await.unwrap();
    assert_eq!(told(&mut exchange).await, "head 200");
    if let Some(Ok(Part::Data(data))) = next(&mut exchange).await {
        taken += data.len() as u64;
    }
    // Nobody asks for more: the backend's writes stop, and so do the reads from the caller.
    let written = backend.end().await;
    assert!(written - taken < 2 << 20, "{written} written, {taken} taken");
    let sent = counted.load(std::sync::atomic::Ordering::Relaxed);
    assert!(sent < 2 << 20, "{sent} were taken from the caller");
}

#[tokio::test]
async fn each_time_limit_is_named() {
    let limits = |head: u64, idle: u64| Limits {
        head: (head > 0).then(|| Duration::from_millis(head)),
        idle: (idle > 0).then(|| Duration::from_millis(idle)),
        ..Limits::default()
    };
    for (answer, limits, word) in [
        (&b"HTTP/1.1 102 P\r\n\r\n"[..], limits(120, 0), "answer within 120ms"),
        (b"", limits(0, 130), "answer within 130ms"),
        (b"HTTP/1.1 200 OK\r\n\r\nx", limits(60_000, 140), "finish its response body within 140ms"),
    ] {
        let backend = Backend::start(move |mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(answer).await.unwrap();
            let mut rest = Vec::new();
            let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("let go");
        });
        let error = backend.fetch_within(get("/"), &limits).await.unwrap_err();
        assert_failed(&error, Reason::BackendTooSlow, true);
        assert!(error.message().contains(word), "{error}");
        backend.end().await;
    }
}

/// As long as bytes move, no idle limit passes, in whichever direction.
#[tokio::test]
async fn what_moves_is_not_idle() {
    let limits =
        Limits { idle: Some(Duration::from_millis(300)), head: Some(Duration::from_millis(600)), ..Limits::default() };
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        for _ in 0..12 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.write_all(b"x").await.unwrap();
        }
    });
    assert_eq!(backend.fetch_within(get("/"), &limits).await.unwrap().body.len(), 12);
}
