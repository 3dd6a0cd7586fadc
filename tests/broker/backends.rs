//! Fetch through the whole stack, with real containers or with the test in the backend's place.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use longshore::pb::{self, FetchRequest, FetchResponse, header::Content};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::timeout,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{
    Broker, BrokerOptions, Image, Lease, Stage, as_both, docker, fact, program, reason, shell, stand_in, trusting,
    unique,
};

/// Longest that anything is waited for that should come at once.
const SOON: Duration = Duration::from_secs(20);
const DEFAULT_LIMIT: usize = 3 << 20;
const LARGEST: usize = 64 << 20;

as_both!(
    requests_arrive_as_they_were_given,
    answers_come_back_as_they_were_given,
    bodies_are_binary_and_bounded,
    a_body_that_is_too_large_tells_its_head,
    wrong_fields_are_refused_before_the_backend_hears_of_them,
    a_backend_that_fails_is_told_apart,
    a_backend_that_is_not_there_is_told_apart,
    a_stopped_backend_is_told_apart,
    a_call_waits_for_a_backend_that_starts,
    a_cancelled_call_closes_the_connection,
    many_calls_at_once_are_answered,
    a_restart_under_calls_is_survived,
    a_backend_that_its_policy_starts_again_is_starting,
    any_container_can_be_reached,
    a_socket_of_another_service_can_be_reached,
    a_local_process_stands_in,
    a_local_process_stands_in_without_an_engine,
);

fn get(path: &str) -> FetchRequest {
    FetchRequest { path: path.to_owned(), ..Default::default() }
}

fn header(name: &str, value: &[u8]) -> pb::Header {
    let content = match std::str::from_utf8(value) {
        Ok(text) => Content::Value(text.to_owned()),
        Err(_) => Content::ValueBytes(Bytes::copy_from_slice(value)),
    };
    pb::Header { name: name.to_owned(), content: Some(content) }
}

fn lines(headers: &[pb::Header]) -> Vec<(String, Vec<u8>)> {
    let value = |content: &Option<Content>| match content {
        Some(Content::Value(text)) => text.clone().into_bytes(),
        Some(Content::ValueBytes(bytes)) => bytes.to_vec(),
        None => vec![],
    };
    headers.iter().map(|header| (header.name.clone(), value(&header.content))).collect()
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    Some(prost_types::Duration::try_from(duration).unwrap())
}

fn total(total: Option<prost_types::Duration>) -> Option<pb::TimeLimits> {
    Some(pb::TimeLimits { total, ..Default::default() })
}

/// A connection with a request on it.
async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        let (stream, _) = timeout(SOON, listener.accept()).await.expect("a call").unwrap();
        // A look whether anybody listens closes at once, without a request.
        let peek = || rustix::net::recv(&stream, &mut [0; 1], rustix::net::RecvFlags::PEEK).map_err(Into::into);
        if timeout(SOON, stream.async_io(tokio::io::Interest::READABLE, peek)).await.expect("bytes").unwrap().0 > 0 {
            return stream;
        }
    }
}

/// Reads a request: its head and as much body as it announces.
async fn read_request(stream: &mut UnixStream) -> (String, Vec<u8>) {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "the request broke off");
    };
    let body = read.split_off(end);
    // One char per byte, so that no byte is lost.
    let head: String = read.iter().map(|byte| char::from(*byte)).collect();
    let announced = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length: ").map(|n| n.parse().unwrap());
    let length: usize = head.lines().find_map(announced).unwrap_or(0);
    let mut whole = body;
    while whole.len() < length {
        assert!(stream.read_buf(&mut whole).await.unwrap() > 0, "the body broke off");
    }
    (head, whole)
}

/// One exchange in which the test is the backend: what it heard, and what the caller was told.
async fn exchange(
    stage: &Stage,
    listener: &UnixListener,
    request: FetchRequest,
    answer: &[u8],
) -> (String, Vec<u8>, Result<FetchResponse, Status>) {
    let backend = async {
        let mut stream = accept(listener).await;
        let heard = read_request(&mut stream).await;
        // A caller that has heard enough may be gone before all is written.
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
        heard
    };
    let ((head, body), told) = tokio::join!(backend, stage.fetch(request));
    (head, body, told)
}

/// A failure with its reason; fails where there is an answer.
#[track_caller]
fn failure(told: Result<FetchResponse, Status>) -> (String, Option<String>, Status) {
    let status = told.expect_err("a failure");
    (reason(&status), fact(&status, "sent"), status)
}

async fn requests_arrive_as_they_were_given(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let listener = stage.listen();
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for method in ["", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "M-SEARCH", "get"] {
        let request = FetchRequest { method: method.into(), ..get("/x") };
        let (head, body, told) = exchange(&stage, &listener, request, ok).await;
        assert_eq!(told.unwrap().status, 200);
        let shown = if method.is_empty() { "GET" } else { method };
        assert!(head.starts_with(&format!("{shown} /x HTTP/1.1\r\nHost: localhost\r\n")), "{head}");
        assert!(body.is_empty());
    }
    for (path, wire) in [
        ("/", "/"),
        ("/a b?q={\"k\": \"ü\"}&u=http://x//y@z", "/a%20b?q=%7B%22k%22:%20%22%C3%BC%22%7D&u=http://x//y@z"),
        ("/a%2Fb//c/../d", "/a%2Fb//c/../d"),
        ("/back\\slash%zz", "/back%5Cslash%25zz"),
    ] {
        let (head, ..) = exchange(&stage, &listener, get(path), ok).await;
        assert_eq!(head.lines().next().unwrap(), format!("GET {wire} HTTP/1.1"));
    }
    let headers = vec![
        header("X-First", b"1"),
        header("x-bytes", b"caf\xe9 \xff\x80"),
        header("X-Twice", b"a"),
        header("X-Last", b""),
        header("x-twice", b"b"),
        header("Host", b"db.internal"),
        header("Accept-Encoding", b"br"),
    ];
    let body = Bytes::from_static(b"\0\xff\r\n\r\n");
    let request = FetchRequest { method: "POST".into(), headers, body: body.clone(), ..get("/") };
    let (head, heard, _) = exchange(&stage, &listener, request, ok).await;
    assert_eq!(heard, body);
    let found: Vec<String> = head.lines().skip(1).map(str::to_lowercase).filter(|line| !line.is_empty()).collect();
    let wanted = [
        "host: db.internal",
        "x-first: 1",
        "x-bytes: caf\u{e9} \u{ff}\u{80}",
        "x-twice: a",
        "x-last: ",
        "x-twice: b",
        "accept-encoding: br",
        "content-length: 6",
    ];
    assert_eq!(found, wanted);
}

async fn answers_come_back_as_they_were_given(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let listener = stage.listen();
    let answer =
        b"HTTP/1.1 299 \xfcber\r\nSet-Cookie: a=1\r\nX-Bytes: \xff\xfe\r\nset-cookie: b=2\r\nConnection: X-Hop\r\n\
        X-Hop: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\0\xff\n\r\n2;x=y\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
    let (.., told) = exchange(&stage, &listener, get("/"), answer).await;
    let told = told.unwrap();
    assert_eq!((told.status, &told.body[..]), (299, &b"\0\xff\nok"[..]));
    let wanted = [("set-cookie", &b"a=1"[..]), ("x-bytes", b"\xff\xfe"), ("set-cookie", b"b=2")];
    assert_eq!(lines(&told.headers), wanted.map(|(name, value)| (name.to_owned(), value.to_vec())));
    assert_eq!(lines(&told.trailers), [("x-sum".to_owned(), b"7".to_vec())]);

    for (method, answer, status, body) in [
        (
            "GET",
            &b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 404 No\r\n\r\nuntil the end"[..],
            404,
            &b"until the end"[..],
        ),
        ("GET", b"HTTP/1.0 500 Broken\r\n\r\nold", 500, b"old"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", 200, b""),
        ("GET", b"HTTP/1.1 204 None\r\n\r\n", 204, b""),
        ("GET", b"HTTP/1.1 304 Same\r\nContent-Length: 77\r\n\r\n", 304, b""),
        ("GET", b"HTTP/1.1 999 Odd\r\nContent-Length: 1\r\n\r\nx", 999, b"x"),
        ("GET", b"HTTP/1.1 301 Moved\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", 301, b""),
    ] {
        let request = FetchRequest { method: method.into(), ..get("/") };
        let (.., told) = exchange(&stage, &listener, request, answer).await;
        let told = told.unwrap();
        assert_eq!((told.status, &told.body[..]), (status, body));
    }
}

/// Bytes that no repetition and no text would hide a mistake in.
fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(length);
    bytes.into()
}

async fn bodies_are_binary_and_bounded(options: BrokerOptions) {
    let stage = Stage::install(Image::hello(), options).await;
    let echo = |body: Bytes, max_body_bytes: i64| FetchRequest {
        method: "POST".into(),
        body,
        max_body_bytes,
        start_wait: duration(SOON),
        ..get("/echo")
    };
    for length in [0, 1, 65_535, 65_536, DEFAULT_LIMIT] {
        let body = noise(length);
        let told = stage.fetch(echo(body.clone(), 0)).await.unwrap();
        assert!(told.status == 200 && told.body == body, "{length}");
    }
    let body = noise(LARGEST);
    let told = stage.fetch(echo(body.clone(), LARGEST as i64)).await.unwrap();
    assert!(told.body == body);
    let (reason, sent, _) = failure(stage.fetch(echo(noise(DEFAULT_LIMIT + 1), 0)).await);
    assert_eq!((reason.as_str(), sent.as_deref()), ("BODY_TOO_LARGE", Some("true")));
    assert_eq!(failure(stage.fetch(echo(noise(101), 100)).await).0, "BODY_TOO_LARGE");
    assert_eq!(stage.fetch(echo(noise(100), 100)).await.unwrap().body.len(), 100);
}

async fn a_body_that_is_too_large_tells_its_head(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let listener = stage.listen();
    let announced = b"HTTP/1.1 418 Tea\r\nX-Kind: big\r\nContent-Length: 9000000000\r\n\r\nabc".to_vec();
    let unannounced = [&b"HTTP/1.1 418 Tea\r\nX-Kind: big\r\n\r\n"[..], &noise(2000)].concat();
    for answer in [announced, unannounced] {
        let request = FetchRequest { max_body_bytes: 1000, ..get("/") };
        let (.., told) = exchange(&stage, &listener, request, &answer).await;
        let (reason, sent, status) = failure(told);
        assert_eq!((reason.as_str(), sent.as_deref()), ("BODY_TOO_LARGE", Some("true")));
        assert_eq!(status.code(), Code::ResourceExhausted);
        let packed = tonic_types::Status::decode(status.details()).unwrap();
        let detail = packed.details.iter().find(|any| any.type_url.ends_with("/longshore.v1.BodyTooLarge")).unwrap();
        let told = pb::BodyTooLarge::decode(&detail.value[..]).unwrap();
        let head = told.head.unwrap();
        assert_eq!((head.status, told.max_body_bytes), (418, 1000));
        assert!(lines(&head.headers).contains(&("x-kind".to_owned(), b"big".to_vec())));
    }
}

async fn wrong_fields_are_refused_before_the_backend_hears_of_them(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let listener = stage.listen();
    let day = Duration::from_secs(24 * 3600);
    let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    for (field, request) in [
        ("max_body_bytes", FetchRequest { max_body_bytes: -1, ..get("/") }),
        ("max_body_bytes", FetchRequest { max_body_bytes: LARGEST as i64 + 1, ..get("/") }),
        ("time_limits.total", FetchRequest { time_limits: total(duration(Duration::ZERO)), ..get("/") }),
        ("time_limits.total", FetchRequest { time_limits: total(negative), ..get("/") }),
        ("time_limits.total", FetchRequest { time_limits: total(duration(day + Duration::from_nanos(1))), ..get("/") }),
        ("start_wait", FetchRequest { start_wait: negative, ..get("/") }),
        ("start_wait", FetchRequest { start_wait: duration(day * 2), ..get("/") }),
    ] {
        let (reason, sent, status) = failure(stage.fetch(request).await);
        assert_eq!((reason.as_str(), fact(&status, "subject").as_deref()), ("REQUEST_INVALID", Some(field)));
        assert_eq!(sent.as_deref(), Some("false"));
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    for path in ["", "x", "//evil/x", "/\\evil", "http://evil/", "/a\r\nX: y", "/a\0", "/\u{7f}", "*"] {
        let (reason, sent, _) = failure(stage.fetch(get(path)).await);
        assert_eq!((reason.as_str(), sent.as_deref()), ("PATH_INVALID", Some("false")), "{path:?}");
    }
    for name in
        ["Connection", "transfer-encoding", "Content-Length", "Expect", "Upgrade", "TE", "Keep-Alive", "a b", "", "ü"]
    {
        let request = FetchRequest { headers: vec![header(name, b"1")], ..get("/") };
        let (reason, sent, _) = failure(stage.fetch(request).await);
        assert_eq!((reason.as_str(), sent.as_deref()), ("HEADER_INVALID", Some("false")), "{name:?}");
    }
    for value in [&b"a\r\nb"[..], b"\0", b"\x7f"] {
        let request = FetchRequest { headers: vec![header("X", value)], ..get("/") };
        assert_eq!(failure(stage.fetch(request).await).0, "HEADER_INVALID", "{value:?}");
    }
    for method in ["G T", "CONNECT", "é"] {
        let request = FetchRequest { method: method.into(), ..get("/") };
        assert_eq!(failure(stage.fetch(request).await).0, "METHOD_INVALID", "{method:?}");
    }
    // Only the looks of an install came here, if anything.
    while let Ok(Ok((mut stream, _))) = timeout(Duration::from_millis(10), listener.accept()).await {
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    }
}

async fn a_backend_that_fails_is_told_apart(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let listener = stage.listen();
    for (answer, wanted, code) in [
        (&b""[..], "BACKEND_BROKE_BEFORE_HEAD", Code::Unavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "BACKEND_BROKE_BEFORE_HEAD", Code::Unavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "BACKEND_BROKE_IN_BODY", Code::Unavailable),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "BACKEND_BROKE_IN_BODY", Code::Unavailable),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "RESPONSE_INVALID", Code::Internal),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "RESPONSE_INVALID", Code::Internal),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "RESPONSE_INVALID", Code::Internal),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "RESPONSE_INVALID",
            Code::Internal,
        ),
    ] {
        let (.., told) = exchange(&stage, &listener, get("/"), answer).await;
        let (reason, sent, status) = failure(told);
        let answer = String::from_utf8_lossy(answer);
        assert_eq!((reason.as_str(), sent.as_deref()), (wanted, Some("true")), "{answer:?}");
        assert_eq!((status.code(), fact(&status, "subject")), (code, Some(stage.id())), "{answer:?}");
    }
    let request = FetchRequest { time_limits: total(duration(Duration::from_millis(300))), ..get("/") };
    let begun = Instant::now();
    let silent = async {
        let mut stream = accept(&listener).await;
        read_request(&mut stream).await;
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "closed when the time is over");
    };
    let (told, ()) = tokio::join!(stage.fetch(request), silent);
    let (reason, sent, status) = failure(told);
    assert_eq!((reason.as_str(), sent.as_deref()), ("BACKEND_TOO_SLOW", Some("true")));
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

async fn a_backend_that_is_not_there_is_told_apart(options: BrokerOptions) {
    let env = vec![("LONGSHORE_READY_TIMEOUT".to_owned(), "1s".to_owned())];
    let stage = Stage::idle(BrokerOptions { env, ..options }).await;
    let other = FetchRequest { extension: "nobody/here".into(), ..get("/") };
    let status = stage.broker.backends().await.fetch(other).await.unwrap_err();
    assert_eq!((reason(&status).as_str(), status.code()), ("EXTENSION_NOT_FOUND", Code::NotFound));

    // As long as the container is young it may still make its socket; then it has not made it.
    let begun = Instant::now();
    let status = loop {
        let (reason, sent, status) = failure(stage.fetch(get("/")).await);
        assert_eq!(sent.as_deref(), Some("false"));
        match reason.as_str() {
            "BACKEND_STARTING" => assert!(begun.elapsed() < SOON),
            _ => break status,
        }
    };
    assert_eq!((reason(&status).as_str(), status.code()), ("NO_SOCKET", Code::FailedPrecondition));
    drop(stage.listen());
    let (reason_, sent, status) = failure(stage.fetch(get("/")).await);
    assert_eq!((reason_.as_str(), sent.as_deref()), ("BACKEND_REFUSED", Some("false")));
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_error_details().retry_info().is_some());

    let manifest =
        r#"{"icon": "icon.svg", "ui": {"dashboard-tab": {"title": "T", "root": "ui", "src": "index.html"}}}"#;
    let no_backend = Image::with_manifest(manifest).build().await;
    let manifest = manifest.replacen('{', r#"{"vm": {"image": "${DESKTOP_PLUGIN_IMAGE}"}, "#, 1);
    let sleeping = r#"CMD ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 600 & wait"]"#;
    let no_socket = Image::with_manifest(&manifest).busybox().change(sleeping).build().await;
    for (image, wanted) in [(no_backend, "NO_BACKEND"), (no_socket, "NO_SOCKET")] {
        stage.broker.install(trusting(&image.reference)).await.unwrap();
        let told = stage.broker.get(&image.id, "/").await;
        stage.broker.uninstall(&image.id, false).await.unwrap();
        assert_eq!(failure(told).0, wanted);
    }
}

async fn a_stopped_backend_is_told_apart(options: BrokerOptions) {
    let stage = Stage::install(Image::hello(), options).await;
    let container = stage.container("service");
    docker(&["stop", "-t", "1", &container]);
    comes_back(&stage).await;
    docker(&["pause", &container]);
    // A plain broker would have to enter it, and so learns more than that nothing comes.
    let request = FetchRequest { time_limits: total(duration(Duration::from_millis(500))), ..get("/hello") };
    let told = failure(stage.fetch(request).await).0;
    docker(&["unpause", &container]);
    assert!(["BACKEND_TOO_SLOW", "CONTAINER_PAUSED"].contains(&told.as_str()), "{told}");
    assert_eq!(stage.broker.get(&stage.id(), "/hello").await.unwrap().status, 200);

    let mut extensions = stage.broker.extensions().await;
    extensions.disable(pb::DisableRequest { extension: stage.id() }).await.unwrap();
    let (reason_, sent, status) = failure(stage.broker.get(&stage.id(), "/hello").await);
    assert_eq!((reason_.as_str(), sent.as_deref()), ("BACKEND_STOPPED", Some("false")));
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("disabled"), "{status:?}");
    extensions.enable(pb::EnableRequest { extension: stage.id() }).await.unwrap();
    assert_eq!(stage.broker.get(&stage.id(), "/hello").await.unwrap().status, 200);
    docker(&["rm", "-f", &container]);
    comes_back(&stage).await;
}

/// What was stopped or removed by hand is started again; until it answers, it is told that nothing was sent, and why.
async fn comes_back(stage: &Stage) {
    let begun = Instant::now();
    loop {
        let told = match stage.fetch(get("/hello")).await {
            Ok(answer) if answer.status == 200 => return,
            told => failure(told),
        };
        let (reason_, sent, status) = told;
        let why = ["BACKEND_STOPPED", "BACKEND_STARTING", "BACKEND_REFUSED", "BACKEND_UNREACHABLE"];
        assert!(why.contains(&reason_.as_str()) && sent.as_deref() == Some("false"), "{status:?}");
        assert!(begun.elapsed() < SOON * 3, "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_call_waits_for_a_backend_that_starts(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let (reason_, sent, status) = failure(stage.fetch(get("/")).await);
    assert_eq!((reason_.as_str(), sent.as_deref()), ("BACKEND_STARTING", Some("false")));
    assert_eq!((status.code(), fact(&status, "retry").as_deref()), (Code::Unavailable, Some("true")));
    assert!(status.get_error_details().retry_info().unwrap().retry_delay.is_some());
    let begun = Instant::now();
    let request = FetchRequest { start_wait: duration(Duration::from_millis(300)), ..get("/") };
    assert_eq!(failure(stage.fetch(request).await).0, "BACKEND_STARTING");
    assert!(begun.elapsed() >= Duration::from_millis(300));

    let request = FetchRequest { start_wait: duration(SOON), ..get("/") };
    let starting = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let listener = stage.listen();
        let mut stream = accept(&listener).await;
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup").await.unwrap();
    };
    let (told, ()) = tokio::join!(stage.fetch(request), starting);
    assert_eq!(&told.unwrap().body[..], b"up");
}

async fn a_cancelled_call_closes_the_connection(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let listener = stage.listen();
    // The caller goes away before the answer, and within it.
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"] {
        let mut call = Box::pin(stage.fetch(get("/")));
        let mut stream = tokio::select! {
            told = &mut call => panic!("{told:?}"),
            stream = accept(&listener) => stream,
        };
        let heard = async {
            read_request(&mut stream).await;
            stream.write_all(answer).await.unwrap();
        };
        tokio::select! {
            told = &mut call => panic!("{told:?}"),
            () = heard => {}
        }
        drop(call);
        assert_eq!(timeout(SOON, stream.read(&mut [0; 1])).await.expect("closed at once").unwrap_or(0), 0);
    }
    // The deadline that the call brings is the broker's as well as the client's.
    let heard = async {
        let mut stream = accept(&listener).await;
        read_request(&mut stream).await;
        timeout(SOON, stream.read(&mut [0; 1])).await.expect("closed when the deadline passed").unwrap_or(0)
    };
    let (status, read) = tokio::join!(fetch_with_deadline(&stage, "300m"), heard);
    assert_eq!((status.as_str(), read), ("4", 0));
}

/// A call over bare HTTP/2, by a client that keeps no deadline of its own: the `grpc-status` it gets.
async fn fetch_with_deadline(stage: &Stage, deadline: &str) -> String {
    let stream = UnixStream::connect(stage.broker.socket()).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let message = FetchRequest { extension: stage.id(), ..get("/") }.encode_to_vec();
    let frame = [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat();
    let request = http::Request::post("http://localhost/longshore.v1.BackendService/Fetch")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", deadline)
        .body(())
        .unwrap();
    let (response, mut body) = client.ready().await.unwrap().send_request(request, false).unwrap();
    body.send_data(frame.into(), true).unwrap();
    let response = timeout(SOON, response).await.unwrap().unwrap();
    connection.abort();
    response.headers()["grpc-status"].to_str().unwrap().to_owned()
}

async fn many_calls_at_once_are_answered(options: BrokerOptions) {
    let stage = Stage::install(Image::hello(), options).await;
    let client = stage.broker.backends().await;
    let callers: Vec<JoinHandle<()>> = (0..64)
        .map(|caller| {
            let (mut client, extension) = (client.clone(), stage.id());
            tokio::spawn(async move {
                for call in 0..16 {
                    let body = Bytes::from(format!("{caller}-{call}-").repeat(1 + call * 200));
                    let request = FetchRequest {
                        extension: extension.clone(),
                        method: "POST".into(),
                        path: "/echo".into(),
                        body: body.clone(),
                        // A queue of connections that is full for a moment is no failure of the load.
                        start_wait: duration(SOON),
                        ..Default::default()
                    };
                    let told = client.fetch(request).await.unwrap().into_inner();
                    assert!(told.status == 200 && told.body == body);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
}

async fn a_restart_under_calls_is_survived(options: BrokerOptions) {
    let stage = Stage::install(Image::hello(), options).await;
    let container = stage.container("service");
    let restarting = tokio::task::spawn_blocking(move || docker(&["restart", "-t", "5", &container]));
    let (mut failures, mut answered) = (Vec::new(), 0);
    let begun = Instant::now();
    while !restarting.is_finished() || answered < 20 {
        assert!(begun.elapsed() < SOON * 3, "{failures:?}");
        match stage.fetch(FetchRequest { time_limits: total(duration(SOON)), ..get("/slow?ms=5") }).await {
            Ok(told) => answered += i32::from(told.status == 200 && restarting.is_finished()),
            Err(status) => failures.push(reason(&status)),
        }
    }
    restarting.await.unwrap();
    let typed = [
        "BACKEND_STARTING",
        "BACKEND_STOPPED",
        "BACKEND_REFUSED",
        "BACKEND_BROKE_BEFORE_HEAD",
        "BACKEND_BROKE_IN_BODY",
    ];
    assert!(failures.iter().all(|reason| typed.contains(&reason.as_str())), "{failures:?}");
}

/// The engine waits longer after each end; meanwhile the socket of the last start lies there.
async fn a_backend_that_its_policy_starts_again_is_starting(options: BrokerOptions) {
    let stage = Stage::install(Image::hello(), options).await;
    let container = stage.container("service");
    let state = |field: &str| docker(&["inspect", "--format", &format!("{{{{.State.{field}}}}}"), &container]);
    let begun = Instant::now();
    let (told, run) = loop {
        assert!(begun.elapsed() < SOON * 3, "it is never seen restarting");
        let pid = state("Pid");
        if pid != "0" {
            // Not by the engine: what that ends stays ended.
            let _ = std::process::Command::new("kill").args(["-9", &pid]).output();
        }
        if state("Status") != "restarting" {
            continue;
        }
        let told = stage.fetch(get("/hello")).await;
        let request = program(&stage.id(), pb::ExecTarget::Backend, &["/hello-backend", "whoami"]);
        let run = stage.broker.try_start(request).await.map(drop);
        if state("Status") == "restarting" {
            break (told, run);
        }
    };
    for status in [told.map(drop).unwrap_err(), run.unwrap_err()] {
        assert_eq!((status.code(), reason(&status)), (Code::Unavailable, "BACKEND_STARTING".into()), "{status:?}");
        assert!(status.get_error_details().retry_info().is_some());
    }
    let patient = FetchRequest { start_wait: duration(SOON), ..get("/hello") };
    assert_eq!(stage.fetch(patient).await.unwrap().status, 200);
}

/// The hello backend in a compose file with these services.
fn composed(services: &str) -> crate::support::ImageBuilder {
    let manifest = crate::support::metadata()
        .replace(r#""image": "${DESKTOP_PLUGIN_IMAGE}""#, r#""composefile": "docker-compose.yaml""#);
    Image::with_manifest(&manifest)
        .busybox()
        .file("hello-backend", crate::support::hello_backend(), 0o755)
        .file("docker-compose.yaml", format!("services:\n{services}"), 0o644)
        .change(r#"CMD ["/hello-backend", "serve", "--socket", "/run/guest-services/backend.sock"]"#)
}

const OWN: &str = "image: ${DESKTOP_PLUGIN_IMAGE}";

async fn any_container_can_be_reached(options: BrokerOptions) {
    let hello = |service: &str| composed(&format!("  web:\n    {OWN}\n{service}"));
    for (what, image) in [
        ("no shell", Image::hello()),
        ("a user", Image::hello().change("USER 1000")),
        ("read-only", hello("    read_only: true\n")),
        ("no network", hello("    network_mode: none\n")),
        (
            "no rights",
            hello("    user: '1000:1000'\n    cap_drop: [ALL]\n    security_opt: ['no-new-privileges:true']\n"),
        ),
        (
            "a narrow mask",
            hello(
                "    command: ['/bin/sh', '-c', 'umask 077; exec /hello-backend serve --socket /run/guest-services/backend.sock']\n",
            ),
        ),
    ] {
        let options = BrokerOptions { plain: options.plain, ..Default::default() };
        let stage = Stage::install(image, options).await;
        for _ in 0..3 {
            let told = stage.fetch(get("/hello?name=x")).await.unwrap_or_else(|status| panic!("{what}: {status:?}"));
            assert_eq!((told.status, &told.body[..]), (200, &b"Hello, x!\n"[..]), "{what}");
        }
        // The way into the container is found again after it was started anew.
        let container = docker(&["ps", "-q", "--filter", &format!("label=dev.longshore.extension={}", stage.id())]);
        docker(&["restart", "-t", "1", &container]);
        assert_eq!(stage.broker.get(&stage.id(), "/hello").await.unwrap().status, 200, "{what}");
    }
}

async fn a_socket_of_another_service_can_be_reached(options: BrokerOptions) {
    let sleeping = "command: ['/bin/sh', '-c', 'trap \"exit 0\" TERM; sleep 600 & wait']";
    let serving = "command: ['/hello-backend', 'serve', '--socket', '/run/guest-services/backend.sock']";
    let doing = "command: ['/bin/true']\n    restart: 'no'";
    for (what, services) in [
        ("beside", format!("  main:\n    {OWN}\n    {sleeping}\n  web:\n    {OWN}\n    user: '1000'\n    {serving}\n")),
        ("after a job", format!("  main:\n    {OWN}\n    {doing}\n  web:\n    {OWN}\n    {serving}\n")),
    ] {
        let options = BrokerOptions { plain: options.plain, ..Default::default() };
        let image = composed(&services).link("bin/true", "busybox").build().await;
        let stage = Stage { broker: Broker::start_with(options).await, image };
        let installed = stage.broker.install(trusting(&stage.image.reference)).await;
        assert!(installed.is_ok(), "{what}: {installed:?}");
        let told = stage.broker.get(&stage.id(), "/hello").await;
        assert_eq!(told.unwrap_or_else(|status| panic!("{what}: {status:?}")).status, 200);
    }
}

/// A directory with a socket in it that the broker's user can reach.
struct LocalBackend {
    directory: tempfile::TempDir,
    process: Option<std::process::Child>,
}

impl LocalBackend {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(directory.path(), open.clone()).unwrap();
        std::fs::write(directory.path().join("backend"), crate::support::hello_backend()).unwrap();
        std::fs::set_permissions(directory.path().join("backend"), open).unwrap();
        LocalBackend { directory, process: None }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn socket(&self) -> PathBuf {
        self.path().join("s")
    }

    /// Serves, as the user that the broker runs as.
    fn start(&mut self, plain: bool) {
        let mut command = std::process::Command::new(self.path().join("backend"));
        command.args(["serve", "--socket"]).arg(self.socket()).stdout(std::process::Stdio::null());
        if plain {
            use std::os::unix::process::CommandExt;
            command.uid(crate::support::PLAIN_UID);
        }
        self.process = Some(command.spawn().unwrap());
    }
}

impl Drop for LocalBackend {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

async fn attach(broker: &Broker, id: &str, local: &LocalBackend) -> Result<Lease, Status> {
    stand_in(broker, id, &local.socket(), &local.path().display().to_string()).await
}

async fn a_local_process_stands_in(options: BrokerOptions) {
    let plain = options.plain;
    let stage = Stage::install(Image::hello().busybox(), options).await;
    let (broker, id) = (&stage.broker, stage.id());
    assert!(broker.get(&id, "/hello").await.is_ok());
    let mut local = LocalBackend::new();
    let stream = attach(broker, &id, &local).await.unwrap();
    // A second one takes its place, and the first is told.
    let mut first = stream;
    let stream = attach(broker, &id, &local).await.unwrap();
    assert_eq!(reason(&first.next().await.unwrap_err()), "REGISTRATION_SUPERSEDED");
    let (reason_, _, status) = failure(stage.fetch(get("/hello")).await);
    assert_eq!(reason_, "BACKEND_STARTING", "{status:?}");
    local.start(plain);
    assert_eq!(broker.get(&id, "/hello").await.unwrap().status, 200);
    let count = |told: Result<FetchResponse, Status>| String::from_utf8(told.unwrap().body.to_vec()).unwrap();
    assert_eq!(count(broker.get(&id, "/count").await), "1\n");
    assert_eq!(
        broker.run(shell(&id, pb::ExecTarget::Backend, "pwd; test -e /hello-backend; echo $?")).await.text(),
        format!("{}\n1\n", local.path().display())
    );
    drop(stream);
    let begun = Instant::now();
    while broker.run(shell(&id, pb::ExecTarget::Backend, "test -e /hello-backend; echo $?")).await.stdout() != "0" {
        assert!(begun.elapsed() < SOON, "still attached");
    }
    // The container counts for itself.
    assert_eq!(count(broker.get(&id, "/count").await), "1\n");
    drop(attach(broker, &id, &local).await.unwrap());
}

async fn a_local_process_stands_in_without_an_engine(options: BrokerOptions) {
    use std::os::unix::fs::PermissionsExt;
    let plain = options.plain;
    let args = vec!["--engine".into(), format!("unix:///nowhere/{}.sock", unique("engine")).into()];
    let broker = Broker::start_with(BrokerOptions { args, ..options }).await;
    let mut local = LocalBackend::new();
    let source = local.path().join("source");
    std::fs::create_dir_all(source.join("ui")).unwrap();
    std::fs::write(source.join("metadata.json"), crate::support::metadata()).unwrap();
    for name in ["ui/index.html", "icon.svg"] {
        std::fs::write(source.join(name), "x").unwrap();
    }
    std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o755)).unwrap();
    local.start(plain);
    let id = format!("longshore-test/{}", unique("dir"));
    let directory = pb::DirectorySource { path: source.display().to_string(), reference: format!("{id}:dev") };
    let source = Some(pb::Source { source: Some(pb::source::Source::Directory(directory)) });
    broker.install(pb::InstallRequest { source, trust: true, ..Default::default() }).await.unwrap();
    assert_eq!(failure(broker.get(&id, "/hello").await).0, "BACKEND_STOPPED");

    // Attached by the command line, which ends with a signal.
    let mut dev = broker.cli(&["dev", &id, "--backend-socket"]);
    dev.arg(local.socket()).arg("--dir").arg(local.path());
    let mut dev = dev.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while broker.get(&id, "/hello").await.is_err() {
        assert!(begun.elapsed() < SOON, "dev does not attach");
    }
    let ran = broker.run(program(&id, pb::ExecTarget::Backend, &["pwd"])).await;
    assert_eq!(ran.stdout(), local.path().display().to_string());
    rustix::process::kill_process(rustix::process::Pid::from_child(&dev), rustix::process::Signal::INT).unwrap();
    assert!(tokio::task::spawn_blocking(move || dev.wait().unwrap()).await.unwrap().success());
    // The broker hears of it when the connection is closed.
    let begun = Instant::now();
    while let Ok(told) = broker.get(&id, "/hello").await {
        assert!(begun.elapsed() < SOON, "still attached: {told:?}");
    }
    assert_eq!(failure(broker.get(&id, "/hello").await).0, "BACKEND_STOPPED");
    broker.uninstall(&id, false).await.unwrap();
}
