//! Calls that go on: streams and upgraded connections, through the real broker, the test being the backend.

use std::time::Duration;

use bytes::Bytes;
use longshore::pb::{self, RequestHead, connect_request, connect_response, stream_request, stream_response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::support::{BrokerOptions, Image, Stage, as_both, reason};

as_both!(
    events_reach_the_caller_one_by_one,
    bodies_of_any_size_pass_both_ways_at_once,
    interim_answers_and_trailers_pass,
    a_caller_that_goes_ends_the_call_at_the_backend,
    a_stalled_reader_stops_the_backend,
    stalled_uploads_hold_nobody_back,
    upgraded_connections_carry_bytes,
    messages_out_of_order_are_refused,
);

/// Nothing here takes this long.
const SOON: Duration = Duration::from_secs(30);

fn head(stage: &Stage, method: &str, path: &str) -> RequestHead {
    RequestHead { extension: stage.id(), method: method.into(), path: path.into(), ..Default::default() }
}

fn first(head: RequestHead) -> pb::StreamRequest {
    pb::StreamRequest { part: Some(stream_request::Part::Head(head)) }
}

fn data(bytes: impl Into<Bytes>) -> pb::StreamRequest {
    pb::StreamRequest { part: Some(stream_request::Part::Data(bytes.into())) }
}

/// A call with its sending side.
async fn stream(
    stage: &Stage,
    head: RequestHead,
) -> (mpsc::Sender<pb::StreamRequest>, Result<Streaming<pb::StreamResponse>, Status>) {
    let (sender, requests) = mpsc::channel(4);
    sender.send(first(head)).await.unwrap();
    let mut backends = stage.broker.backends().await;
    let answer = timeout(SOON, backends.stream(ReceiverStream::new(requests))).await.expect("an answer");
    (sender, answer.map(tonic::Response::into_inner))
}

async fn part(answer: &mut Streaming<pb::StreamResponse>) -> Option<stream_response::Part> {
    timeout(SOON, answer.message()).await.expect("a part").unwrap().map(|message| message.part.unwrap())
}

async fn status_of(answer: &mut Streaming<pb::StreamResponse>) -> i32 {
    match part(answer).await {
        Some(stream_response::Part::Head(head)) => head.status,
        other => panic!("no head: {other:?}"),
    }
}

/// A connection with a request on it: one that only looked whether anybody listens brings none.
async fn accept(listener: &UnixListener) -> (UnixStream, String) {
    loop {
        let (mut stream, _) = timeout(SOON, listener.accept()).await.expect("a call").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        if !head.is_empty() {
            return (stream, String::from_utf8(head).unwrap());
        }
    }
}

/// Server-sent events: each is there before the next is sent.
pub(crate) async fn events_reach_the_caller_one_by_one(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let listener = stage.listen();
    let (heard, mut turns) = mpsc::channel::<()>(1);
    let backend = tokio::spawn(async move {
        let (mut stream, head) = accept(&listener).await;
        assert!(head.starts_with("GET /events HTTP/1.1\r\nHost: localhost\r\n") && !head.contains("chunked"), "{head}");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await.unwrap();
        for number in 0..5 {
            stream.write_all(format!("data: {number}\n\n").as_bytes()).await.unwrap();
            turns.recv().await.unwrap();
        }
    });
    let (sender, answer) = stream(&stage, head(&stage, "", "/events")).await;
    let mut answer = answer.unwrap();
    assert_eq!(status_of(&mut answer).await, 200);
    for number in 0..5 {
        let wanted = stream_response::Part::Data(format!("data: {number}\n\n").into());
        assert_eq!(part(&mut answer).await, Some(wanted));
        heard.send(()).await.unwrap();
    }
    assert!(matches!(part(&mut answer).await, Some(stream_response::Part::End(_))));
    assert_eq!(part(&mut answer).await, None);
    drop(sender);
    backend.await.unwrap();
}

/// The hello backend echoes; what goes out and what comes back are far more than anybody holds.
pub(crate) async fn bodies_of_any_size_pass_both_ways_at_once(options: BrokerOptions) {
    const BLOCKS: u64 = 300;
    const BLOCK: usize = 256 << 10;
    let stage = Stage::idle(options).await;
    let listener = stage.listen();
    let backend = tokio::spawn(async move {
        let (mut stream, head) = accept(&listener).await;
        assert!(head.contains("Content-Length: 78643200\r\n"), "{head}");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BLOCKS * BLOCK as u64);
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        let echoed = async {
            let mut left = BLOCKS * BLOCK as u64;
            let mut buffer = vec![0; 64 << 10];
            while left > 0 {
                let read = from.read(&mut buffer).await.unwrap();
                to.write_all(&buffer[..read]).await.unwrap();
                left -= read as u64;
            }
        };
        echoed.await;
    });
    let begin = RequestHead { content_length: Some((BLOCKS * BLOCK as u64) as i64), ..head(&stage, "POST", "/") };
    let (sender, answer) = stream(&stage, begin).await;
    let mut answer = answer.unwrap();
    assert_eq!(status_of(&mut answer).await, 200);
    let sending = tokio::spawn(async move {
        for number in 0..BLOCKS {
            sender.send(data(vec![number as u8; BLOCK])).await.unwrap();
        }
    });
    let mut came = 0_u64;
    loop {
        match part(&mut answer).await.unwrap() {
            stream_response::Part::Data(data) => {
                for byte in data {
                    assert_eq!(byte, (came / BLOCK as u64) as u8, "at {came}");
                    came += 1;
                }
            }
            stream_response::Part::End(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(came, BLOCKS * BLOCK as u64);
    sending.await.unwrap();
    backend.await.unwrap();
}

/// What comes before the head is told before the request is complete; trailers go both ways.
pub(crate) async fn interim_answers_and_trailers_pass(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let listener = stage.listen();
    let backend = tokio::spawn(async move {
        let (mut stream, head) = accept(&listener).await;
        assert!(
            head.contains("\r\nTransfer-Encoding: chunked\r\n") && head.contains("\r\nTrailer: x-sum\r\n"),
            "{head}"
        );
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await.unwrap();
        let mut body = Vec::new();
        while !body.ends_with(b"\r\n\r\n") {
            body.push(timeout(SOON, stream.read_u8()).await.expect("the rest of the request").unwrap());
        }
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n\
            2\r\nok\r\n0\r\nX-End: yes\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        String::from_utf8(body).unwrap()
    });
    let lines = |headers: &[pb::Header]| {
        let value = |header: &pb::Header| match &header.content {
            Some(pb::header::Content::Value(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        headers.iter().map(|header| (header.name.clone(), value(header))).collect::<Vec<_>>()
    };
    let begin = RequestHead { trailers: vec!["x-sum".into()], ..head(&stage, "POST", "/") };
    let (sender, answer) = stream(&stage, begin).await;
    let mut answer = answer.unwrap();
    match part(&mut answer).await {
        Some(stream_response::Part::Interim(interim)) => {
            assert_eq!((interim.status, lines(&interim.headers)), (103, vec![("link".into(), "</a>".into())]));
        }
        other => panic!("no interim answer: {other:?}"),
    }
    sender.send(data("abc")).await.unwrap();
    let content = Some(pb::header::Content::Value("7".into()));
    let trailers = pb::Trailers { headers: vec![pb::Header { name: "x-sum".into(), content }] };
    sender.send(pb::StreamRequest { part: Some(stream_request::Part::Trailers(trailers)) }).await.unwrap();
    drop(sender);
    assert_eq!(status_of(&mut answer).await, 200);
    assert_eq!(part(&mut answer).await, Some(stream_response::Part::Data("ok".into())));
    match part(&mut answer).await {
        Some(stream_response::Part::End(end)) => assert_eq!(lines(&end.headers), [("x-end".into(), "yes".into())]),
        other => panic!("no end: {other:?}"),
    }
    assert_eq!(part(&mut answer).await, None);
    assert_eq!(backend.await.unwrap().to_ascii_lowercase(), "3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n");
}

pub(crate) async fn a_caller_that_goes_ends_the_call_at_the_backend(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    for answers in [false, true] {
        let listener = stage.listen();
        let (reached, is_reached) = tokio::sync::oneshot::channel();
        let backend = tokio::spawn(async move {
            let (mut stream, _) = accept(&listener).await;
            reached.send(()).unwrap();
            if answers {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nx").await.unwrap();
            }
            let mut rest = Vec::new();
            // It ends, or is reset.
            let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the connection is closed");
        });
        let (sender, answer) = stream(&stage, head(&stage, "POST", "/")).await;
        let mut answer = answer.unwrap();
        is_reached.await.unwrap();
        if answers {
            assert_eq!(status_of(&mut answer).await, 200);
        }
        drop((sender, answer));
        backend.await.unwrap();
    }
}

pub(crate) async fn a_stalled_reader_stops_the_backend(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let listener = stage.listen();
    let backend = tokio::spawn(async move {
        let (mut stream, _) = accept(&listener).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let (block, mut written) = (vec![b'x'; 64 << 10], 0_u64);
        while let Ok(Ok(bytes)) = timeout(Duration::from_secs(2), stream.write(&block)).await {
            written += bytes as u64;
        }
        written
    });
    let before = stage.broker.resident_kib();
    let (_sender, answer) = stream(&stage, head(&stage, "GET", "/")).await;
    let mut answer = answer.unwrap();
    assert_eq!(status_of(&mut answer).await, 200);
    let written = backend.await.unwrap();
    assert!(written < 16 << 20, "{written} bytes went nowhere");
    let grown = stage.broker.resident_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB are held");
}

/// A front end has one connection: uploads that a backend does not take must leave room on it for other calls.
pub(crate) async fn stalled_uploads_hold_nobody_back(options: BrokerOptions) {
    const UPLOADS: usize = 40;
    let stage = Stage::idle(options).await;
    let listener = stage.listen();
    let backend = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.unwrap());
        }
    });
    let channel = stage.broker.channel().await;
    let mut uploads = Vec::new();
    for _ in 0..UPLOADS {
        let (sender, requests) = mpsc::channel(1);
        sender.send(first(head(&stage, "POST", "/"))).await.unwrap();
        let mut backends = pb::backend_service_client::BackendServiceClient::new(channel.clone());
        let answer = timeout(SOON, backends.stream(ReceiverStream::new(requests))).await.expect("an answer").unwrap();
        let block = Bytes::from(vec![b'x'; 256 << 10]);
        // Until nothing more is taken.
        while timeout(Duration::from_millis(200), sender.send(data(block.clone()))).await.is_ok() {}
        uploads.push((sender, answer));
    }
    let mut system = pb::system_service_client::SystemServiceClient::new(channel);
    timeout(SOON * 3, system.get_info(pb::GetInfoRequest {})).await.expect("the call is held back").unwrap();
    backend.abort();
}

pub(crate) async fn upgraded_connections_carry_bytes(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let listener = stage.listen();
    let backend = tokio::spawn(async move {
        let (mut stream, head) = accept(&listener).await;
        assert!(head.contains("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"), "{head}");
        assert!(head.contains("\r\nSec-Websocket-Key: x\r\n"), "{head}");
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: b\r\n\r\n\x81\0").await.unwrap();
        let mut heard = vec![0; 4];
        stream.read_exact(&mut heard).await.unwrap();
        stream.write_all(&heard).await.unwrap();
        // Half-closed by the caller; answered all the same.
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        stream.write_all(b"bye").await.unwrap();
        drop(stream);
        let (mut refused, _) = accept(&listener).await;
        refused.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nnope").await.unwrap();
    });
    let connect = |head: RequestHead| {
        let key =
            pb::Header { name: "Sec-WebSocket-Key".into(), content: Some(pb::header::Content::Value("x".into())) };
        let request = Some(RequestHead { headers: vec![key], ..head });
        let head = pb::ConnectHead { request, protocol: String::new() };
        pb::ConnectRequest { part: Some(connect_request::Part::Head(head)) }
    };
    let (sender, requests) = mpsc::channel(4);
    sender.send(connect(head(&stage, "", "/ws"))).await.unwrap();
    let mut backends = stage.broker.backends().await;
    let mut answer = backends.connect(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let mut next = async || timeout(SOON, answer.message()).await.unwrap().unwrap().map(|part| part.part.unwrap());
    let Some(connect_response::Part::Head(switched)) = next().await else { panic!("no head") };
    assert_eq!((switched.status, &*switched.headers[0].name), (101, "x-a"));
    assert_eq!(next().await, Some(connect_response::Part::Data(Bytes::from_static(b"\x81\0"))));
    let bytes = connect_request::Part::Data(Bytes::from_static(b"\0\r\n\xff"));
    sender.send(pb::ConnectRequest { part: Some(bytes) }).await.unwrap();
    assert_eq!(next().await, Some(connect_response::Part::Data(Bytes::from_static(b"\0\r\n\xff"))));
    drop(sender);
    assert_eq!(next().await, Some(connect_response::Part::Data(Bytes::from_static(b"bye"))));
    assert_eq!(next().await, Some(connect_response::Part::End(true)));
    assert_eq!(next().await, None);

    let refused = tokio_stream::iter([connect(head(&stage, "", "/ws"))]);
    let mut answer = backends.connect(refused).await.unwrap().into_inner();
    let mut next = async || timeout(SOON, answer.message()).await.unwrap().unwrap().map(|part| part.part.unwrap());
    assert!(matches!(next().await, Some(connect_response::Part::Head(head)) if head.status == 403));
    assert_eq!(next().await, Some(connect_response::Part::Data(Bytes::from_static(b"nope"))));
    assert_eq!(next().await, Some(connect_response::Part::End(true)));
    assert_eq!(next().await, None);
    backend.await.unwrap();
}

async fn messages_out_of_order_are_refused(options: BrokerOptions) {
    let stage = Stage::install(Image::hello(), options).await;
    let mut backends = stage.broker.backends().await;
    let mut refused = async |messages: Vec<pb::StreamRequest>| {
        let mut answer = match backends.stream(tokio_stream::iter(messages)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return status,
        };
        loop {
            match timeout(SOON, answer.message()).await.unwrap() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it was answered"),
                Err(status) => return status,
            }
        }
    };
    let post = || head(&stage, "POST", "/echo");
    let announced = RequestHead { content_length: Some(3), ..post() };
    for (messages, word) in [
        (vec![], "first message"),
        (vec![data("x")], "first message"),
        (vec![pb::StreamRequest::default()], "first message"),
        (vec![first(post()), first(post())], "once"),
        (vec![first(post()), pb::StreamRequest::default()], "empty"),
        (vec![first(head(&stage, "GET", "/hello")), data("x")], "longer than announced"),
        (vec![first(announced.clone()), data("four")], "longer than announced"),
        (vec![first(announced), data("x")], "ended 2 bytes before"),
        (vec![first(RequestHead { content_length: Some(-1), ..post() })], "below 0"),
    ] {
        let status = refused(messages).await;
        assert_eq!(reason(&status), "REQUEST_INVALID", "{word}: {status:?}");
        assert!(status.message().contains(word), "{word}: {status:?}");
    }
    // And the next call is right.
    let (sender, answer) = stream(&stage, post()).await;
    sender.send(data("abc")).await.unwrap();
    drop(sender);
    let mut answer = answer.unwrap();
    assert_eq!(status_of(&mut answer).await, 200);
    assert_eq!(part(&mut answer).await, Some(stream_response::Part::Data("abc".into())));
}
