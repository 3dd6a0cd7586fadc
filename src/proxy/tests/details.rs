//! What proxies get wrong about HTTP/1.1, piece by piece: what [`fetch`] does with it is in `framing` and `hostile`.

use bytes::Bytes;
use futures_util::stream;

use super::{
    streams::{channel, data, head, next, open, read_some, told},
    *,
};
use crate::proxy::{Exchange, Length, Part, Piece, Raw, Upload};

/// All that an exchange says of an answer that is followed by a close.
async fn heard(method: &str, answer: &[u8]) -> Vec<String> {
    let answer = answer.to_vec();
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(&answer).await.unwrap();
    });
    let said = match open(&backend, &head(method), Upload::whole(Bytes::new())).await {
        Ok(mut exchange) => all(&mut exchange).await,
        Err(error) => vec![error.reason().as_str().into()],
    };
    backend.end().await;
    said
}

/// Data that comes in pieces is one.
async fn all(exchange: &mut Exchange) -> Vec<String> {
    let (mut said, mut body) = (Vec::new(), Bytes::new());
    loop {
        let part = match next(exchange).await {
            Some(Ok(Part::Data(data))) => {
                body = [body, data].concat().into();
                continue;
            }
            Some(Ok(Part::Interim(head))) => format!("interim {}", head.status),
            Some(Ok(Part::Head(head))) => format!("head {}", head.status),
            Some(Ok(Part::End(trailers))) => format!("end {}", trailers.len()),
            Some(Err(error)) => error.reason().as_str().into(),
            None => "over".into(),
        };
        if !body.is_empty() {
            said.push(String::from_utf8(std::mem::take(&mut body).to_vec()).unwrap());
        }
        let is_over = part == "over";
        said.push(part);
        if is_over {
            return said;
        }
    }
}

#[tokio::test]
async fn every_framing_ends_where_it_should() {
    for (method, answer, wanted) in [
        ("HEAD", "200 OK\r\nContent-Length: 5\r\n\r\n", &["head 200", "end 0", "over"][..]),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &["head 200", "end 0", "over"]),
        ("HEAD", "200 OK\r\n\r\n", &["head 200", "end 0", "over"]),
        ("GET", "204 No\r\nContent-Length: 5\r\n\r\nhello", &["head 204", "end 0", "over"]),
        ("GET", "304 Not\r\nContent-Length: 5\r\n\r\n", &["head 304", "end 0", "over"]),
        ("GET", "304 Not\r\nTransfer-Encoding: chunked\r\n\r\n", &["head 304", "end 0", "over"]),
        ("GET", "200 OK\r\nContent-Length: 0\r\n\r\n", &["head 200", "end 0", "over"]),
        ("GET", "200 OK\r\nContent-Length: 5\r\n\r\nhello", &["head 200", "hello", "end 0", "over"]),
        ("GET", "200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200", &["head 200", "ok", "end 0", "over"]),
        ("GET", "200 OK\r\n\r\nto the end", &["head 200", "to the end", "end 0", "over"]),
        (
            "GET",
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX-A: 1\r\nX-A: 2\r\n\r\n",
            &["head 200", "ok", "end 2", "over"],
        ),
        ("GET", "100 C\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", &["interim 100", "head 200", "end 0", "over"]),
        (
            "GET",
            "103 E\r\n\r\nHTTP/1.1 103 E\r\n\r\n",
            &["interim 103", "interim 103", "BACKEND_BROKE_BEFORE_HEAD", "over"],
        ),
        ("GET", "100 C\r\n\r\nHTTP/1.1 99 X\r\n\r\n", &["interim 100", "RESPONSE_INVALID", "over"]),
        ("GET", "101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw", &["RESPONSE_INVALID"]),
        ("GET", "200 OK\r\nContent-Length: 5\r\n\r\nhell", &["head 200", "hell", "BACKEND_BROKE_IN_BODY", "over"]),
        (
            "GET",
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nZ\r\n",
            &["head 200", "ok", "RESPONSE_INVALID", "over"],
        ),
        (
            "GET",
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
            &["head 200", "ok", "BACKEND_BROKE_IN_BODY", "over"],
        ),
        ("GET", "200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &["RESPONSE_INVALID"]),
        ("GET", "200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", &["RESPONSE_INVALID"]),
        ("GET", "200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", &["RESPONSE_INVALID"]),
        ("GET", "200 OK\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", &["RESPONSE_INVALID"]),
        ("GET", "200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok", &["RESPONSE_INVALID"]),
    ] {
        let said = heard(method, format!("HTTP/1.1 {answer}").as_bytes()).await;
        assert_eq!(said, wanted, "{method} {answer:?}");
    }
}

#[tokio::test]
async fn lines_of_a_head_keep_order_and_bytes_and_lose_what_concerns_one_hop() {
    let backend = Backend::start(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let lines = b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX-B: \xe9\xff\r\nset-cookie: b\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: x\r\nUpgrade: h2c\r\nProxy-Connection: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n";
        stream.write_all(lines).await.unwrap();
        stream.write_all(b"0\r\nX-T: \xfe\r\nConnection: x\r\nTransfer-Encoding: x\r\n\r\n").await.unwrap();
        head
    });
    let mut request = head("GET");
    request.headers = vec![line("X-Bytes", b"caf\xc3\xa9"), line("x-two", b"1"), line("X-Two", b"2")];
    let mut exchange = open(&backend, &request, Upload::whole(Bytes::new())).await.unwrap();
    let Some(Ok(Part::Head(head))) = next(&mut exchange).await else { panic!("no head") };
    let wanted = [line("set-cookie", b"a"), line("x-b", b"\xe9\xff"), line("set-cookie", b"b")];
    assert_eq!(head.headers, wanted);
    assert!(matches!(next(&mut exchange).await, Some(Ok(Part::End(lines))) if lines == [line("x-t", b"\xfe")]));
    let sent = backend.end().await;
    assert!(sent.ends_with("X-Bytes: café\r\nX-Two: 1\r\nX-Two: 2\r\n\r\n"), "{sent}");
}

#[tokio::test]
async fn heads_of_100_kib_are_refused_clearly() {
    let long = format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(100 << 10));
    assert_eq!(heard("GET", long.as_bytes()).await, ["RESPONSE_INVALID"]);
    let mut request = head("GET");
    request.headers = vec![line("X-A", &vec![b'a'; 100 << 10])];
    let backend = Backend::start(|_| async {});
    let error = open(&backend, &request, Upload::whole(Bytes::new())).await.err().unwrap();
    assert_failed(&error, Reason::HeaderInvalid, false);
    assert!(error.message().contains("65536"), "{error}");
}

/// A caller cannot ask to be told to go on; a backend that says so unasked is heard, and the body follows anyway.
#[tokio::test]
async fn nobody_waits_to_be_told_to_continue() {
    let mut request = head("POST");
    request.headers = vec![line("Expect", b"100-continue")];
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        let body = read_some(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        body
    });
    let error = open(&backend, &request, Upload::whole("x".into())).await.err().unwrap();
    assert_failed(&error, Reason::HeaderInvalid, false);
    let mut exchange = open(&backend, &head("POST"), Upload::whole("body".into())).await.unwrap();
    assert_eq!(all(&mut exchange).await, ["interim 100", "head 200", "end 0", "over"]);
    assert_eq!(backend.end().await, "body");
}

/// One that reads once, answers without a length, and closes with the rest of the request unread.
#[tokio::test]
async fn a_backend_that_reads_once_is_heard_whatever_is_still_to_send() {
    for pieces in [1, 200] {
        let backend = Backend::start(|mut stream| async move {
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(b"HTTP/1.1 200\r\n\r\nhello").await.unwrap();
        });
        let block = Bytes::from(vec![b'x'; 16 << 10]);
        let upload = stream::iter((0..pieces).map(move |_| Ok(Piece::Data(block.clone()))));
        let mut exchange =
            open(&backend, &head("POST"), Upload::pieces(Box::pin(upload), Length::Unknown)).await.unwrap();
        assert_eq!(all(&mut exchange).await, ["head 200", "hello", "end 0", "over"]);
        backend.end().await;
    }
}

#[tokio::test]
async fn a_backend_that_leaves_is_told_from_where_it_left() {
    for (stage, wanted) in [
        ("", "BACKEND_BROKE_BEFORE_HEAD"),
        ("HTTP/1.1 200 OK\r\n", "BACKEND_BROKE_BEFORE_HEAD"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "BACKEND_BROKE_IN_BODY"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "BACKEND_BROKE_IN_BODY"),
    ] {
        // While the request is still on its way.
        let backend = Backend::start(move |mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(stage.as_bytes()).await.unwrap();
        });
        let (sender, upload) = channel();
        let said = match open(&backend, &head("POST"), upload).await {
            Ok(mut exchange) => all(&mut exchange).await,
            Err(error) => vec![error.reason().as_str().into()],
        };
        assert!(said.iter().any(|said| said == wanted), "{stage:?}: {said:?}");
        drop(sender);
        backend.end().await;
    }
}

/// Nothing is taken from a caller that goes nowhere.
#[tokio::test]
async fn what_nobody_takes_stays_with_the_caller() {
    let (taken, counted) = counted_endless();
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    far.shutdown(std::net::Shutdown::Read).unwrap();
    near.set_nonblocking(true).unwrap();
    let limits = Limits { head: Some(Duration::from_millis(200)), ..Limits::default() };
    let near = UnixStream::from_std(near).unwrap();
    let request = head("POST");
    let opened = Exchange::open(route(only(near)), &request, taken, &limits, true);
    let error = timeout(PATIENCE, opened).await.expect("a time limit").err().unwrap();
    assert_failed(&error, Reason::BackendTooSlow, false);
    let counted = counted.load(std::sync::atomic::Ordering::Relaxed);
    assert!(counted < 4 << 20, "{counted} bytes were taken from the caller");
}

/// An answer, something behind it, and a close: the rest of the request is not waited for.
#[tokio::test]
async fn leftovers_do_not_hide_that_the_backend_is_gone() {
    let (upload, counted) = counted_endless();
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n").await.unwrap();
    });
    let mut exchange = open(&backend, &head("POST"), upload).await.unwrap();
    assert_eq!(all(&mut exchange).await, ["head 413", "end 0", "over"]);
    backend.end().await;
    let counted = counted.load(std::sync::atomic::Ordering::Relaxed);
    assert!(counted < 8 << 20, "{counted} bytes were taken from the caller");
}

fn counted_endless() -> (Upload, std::sync::Arc<std::sync::atomic::AtomicU64>) {
    let counted = std::sync::Arc::<std::sync::atomic::AtomicU64>::default();
    let counting = counted.clone();
    let endless = stream::repeat_with(move || {
        counting.fetch_add(64 << 10, std::sync::atomic::Ordering::Relaxed);
        Ok(Piece::Data(Bytes::from_static(&[0; 64 << 10])))
    });
    (Upload::pieces(Box::pin(endless), Length::Unknown), counted)
}

/// Limits hold where nothing has to be waited for, where only the request moves, and after the answer.
#[tokio::test]
async fn limits_hold_in_every_direction() {
    let total = Limits { total: Some(Duration::from_millis(200)), ..Limits::default() };
    let open_within = async |backend: &Backend<()>, upload, limits: &Limits| {
        let socket = backend.socket();
        let dial = || async { Ok(Dialled::Http1(UnixStream::connect(&socket).await.unwrap())) };
        timeout(PATIENCE, Exchange::open(route(dial), &head("POST"), upload, limits, true)).await.expect("it hangs")
    };
    // A body without end, faster than it is read.
    let backend = Backend::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 64 << 10]).await.is_ok() {}
    });
    let mut exchange = open_within(&backend, Upload::whole(Bytes::new()), &total).await.unwrap();
    let last = loop {
        match next(&mut exchange).await {
            Some(Ok(_)) => std::thread::sleep(Duration::from_micros(50)),
            other => break other,
        }
    };
    assert_failed(&last.unwrap().unwrap_err(), Reason::BackendTooSlow, true);
    backend.end().await;
    // A request without end, to one that reads it all.
    let backend = Backend::start(|mut stream| async move {
        let mut buffer = vec![0; 64 << 10];
        while stream.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
    });
    let error = open_within(&backend, counted_endless().0, &total).await.err().unwrap();
    assert_failed(&error, Reason::BackendTooSlow, true);
    backend.end().await;
    // A caller that never ends its request, after the answer.
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let (sender, upload) = channel();
    let mut exchange = open_within(&backend, upload, &total).await.unwrap();
    assert_eq!(all(&mut exchange).await, ["head 200", "end 0", "over"]);
    backend.end().await;
    drop(sender);
}

/// Empty pieces are no end, and keep nobody from the processor.
#[tokio::test]
async fn empty_pieces_are_nothing() {
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        let mut body = String::new();
        while !body.ends_with("0\r\n\r\n") {
            body.push_str(&read_some(&mut stream).await);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        body
    });
    let pieces = (0..500).map(|number| if number % 250 == 249 { data(b"x") } else { data(b"") });
    let upload = Upload::pieces(Box::pin(stream::iter(pieces.map(Ok))), Length::Unknown);
    let mut exchange = open(&backend, &head("POST"), upload).await.unwrap();
    assert_eq!(all(&mut exchange).await, ["head 200", "end 0", "over"]);
    assert_eq!(backend.end().await.matches('x').count(), 2);

    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    });
    let endless = stream::repeat_with(|| Ok(Piece::Data(Bytes::new())));
    let mut exchange = open(&backend, &head("GET"), Upload::pieces(Box::pin(endless), Length::Known(0))).await.unwrap();
    for wanted in ["head 200", "ok", "end 0", "over"] {
        assert_eq!(told(&mut exchange).await, wanted);
    }
    backend.end().await;
}

/// One that says no more and goes later, while the caller is silent.
#[tokio::test]
async fn the_late_end_after_an_upgrade_is_noticed() {
    let mut request = head("GET");
    request.upgrade = Some("websocket".into());
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
    });
    let mut exchange = open(&backend, &request, Upload::whole(Bytes::new())).await.unwrap();
    assert_eq!(told(&mut exchange).await, "head 101");
    let mut upgraded = exchange.into_upgraded().unwrap().fed_by(Box::pin(stream::pending()));
    let mut next =
        async || timeout(PATIENCE, std::future::poll_fn(|cx| upgraded.poll_next(cx))).await.expect("it hangs");
    assert_eq!(next().await.unwrap().unwrap(), Raw::End);
    assert!(next().await.is_none());
    backend.end().await;
}

/// After a switch of protocols as well, and a backend that is gone for good is told from one that only says no more.
#[tokio::test]
async fn upgraded_connections_have_limits_and_ends() {
    let mut request = head("GET");
    request.upgrade = Some("websocket".into());
    for closes in [false, true] {
        let backend = Backend::start(move |mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n").await.unwrap();
            if !closes {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        });
        let socket = backend.socket();
        let dial = || async { Ok(Dialled::Http1(UnixStream::connect(&socket).await.unwrap())) };
        let limits = Limits { idle: Some(Duration::from_millis(200)), ..Limits::default() };
        let upload = Upload::whole(Bytes::new());
        let mut exchange = Exchange::open(route(dial), &request, upload, &limits, true).await.unwrap();
        assert_eq!(told(&mut exchange).await, "head 101");
        if closes {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut upgraded = exchange.into_upgraded().unwrap().fed_by(Box::pin(stream::pending()));
        let mut next =
            async || timeout(PATIENCE, std::future::poll_fn(|cx| upgraded.poll_next(cx))).await.expect("it hangs");
        if closes {
            assert_eq!(next().await.unwrap().unwrap(), Raw::End);
            assert!(next().await.is_none());
        } else {
            assert_failed(&next().await.unwrap().unwrap_err(), Reason::BackendTooSlow, true);
        }
        drop(upgraded);
        backend.end().await;
    }
}
