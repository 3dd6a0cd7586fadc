//! How requests leave and how answers end.

use super::*;

#[tokio::test]
async fn the_request_is_what_was_asked_for() {
    let backend = Backend::start(|mut stream| async move {
        let head = read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        head
    });
    let mut request = get("/a//b%2F?x={\"y\"}#z");
    request.headers = vec![line("x-one", b"1"), line("Accept", b"*/*"), line("X-One", b"2")];
    assert_eq!(backend.fetch(request).await.unwrap().body, "ok");
    let wanted =
        "GET /a//b%2F?x=%7B%22y%22%7D%23z HTTP/1.1\r\nHost: localhost\r\nX-One: 1\r\nAccept: */*\r\nX-One: 2\r\n\r\n";
    assert_eq!(backend.end().await, wanted);
}

/// A real extension's backend: one `recv(1024)`, an answer without reason and length, close.
#[tokio::test]
async fn a_backend_that_reads_once_gets_head_and_body() {
    let backend = Backend::start(|mut stream| async move {
        let mut once = vec![0; 1024];
        let len = stream.read(&mut once).await.unwrap();
        stream.write_all(b"HTTP/1.1 200\r\n\r\nhello there").await.unwrap();
        once.truncate(len);
        String::from_utf8(once).unwrap()
    });
    let response = backend.fetch(post("{\"a\":1}")).await.unwrap();
    assert_eq!((response.status, &response.body[..]), (200, &b"hello there"[..]));
    let wanted = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
    assert_eq!(backend.end().await, wanted);
}

/// As above, but with more than it reads: the unread rest turns its close into a reset.
#[tokio::test]
async fn a_reset_after_a_close_delimited_answer_is_its_end() {
    for size in [2_000, 3 << 20] {
        let backend = Backend::start(|mut stream| async move {
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(b"HTTP/1.1 200\r\n\r\nhello there").await.unwrap();
        });
        assert_eq!(backend.fetch(post(vec![b'x'; size])).await.unwrap().body, "hello there");
    }
}

#[tokio::test]
async fn answers_without_a_body() {
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".as_slice();
    let mut head = get("/");
    head.method = "HEAD".into();
    let response = answer(head.clone(), ok).await.unwrap();
    assert_eq!((response.status, response.body.len()), (200, 0));
    assert_eq!(response.headers, [line("content-length", b"5")]);

    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
    assert_eq!(answer(head, chunked).await.unwrap().headers, []);

    for status in ["204 No Content", "304 Not Modified"] {
        let bytes = format!("HTTP/1.1 {status}\r\nContent-Length: 99999999\r\nX-A: b\r\n\r\nleftover");
        let response = answer(get("/"), bytes.as_bytes()).await.unwrap();
        assert!(response.body.is_empty());
        assert!(response.headers.contains(&line("x-a", b"b")));
    }
    let empty = answer(get("/"), b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    assert_eq!((empty.status, empty.body.len()), (500, 0));
}

#[tokio::test]
async fn interim_answers_are_skipped() {
    let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 1\r\n\r\nx";
    let response = answer(get("/"), bytes).await.unwrap();
    assert_eq!((response.status, &response.body[..]), (201, &b"x"[..]));
    assert_eq!(response.headers, [line("content-length", b"1")]);
}

#[tokio::test]
async fn chunks_and_trailers() {
    let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nTrailer: X-Sum\r\n\r\n3;ext=1\r\nabc\r\n4\r\n\r\n\0\xff\r\n0\r\nX-Sum: 7\r\nX-Sum: 8\r\nContent-Length: 1\r\nConnection: x\r\n\r\n";
    let response = answer(get("/"), bytes).await.unwrap();
    assert_eq!(&response.body[..], b"abc\r\n\0\xff");
    assert_eq!(response.headers, []);
    assert_eq!(response.trailers, [line("x-sum", b"7"), line("x-sum", b"8")]);
}

#[tokio::test]
async fn close_ends_a_body_without_length() {
    for version in ["1.0", "1.1"] {
        let bytes = format!("HTTP/{version} 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it");
        assert_eq!(answer(get("/"), bytes.as_bytes()).await.unwrap().body, "all of it");
    }
    assert_eq!(answer(get("/"), b"HTTP/1.1 200 OK\n\n").await.unwrap().body, "");
}

#[tokio::test]
async fn what_follows_the_answer_is_left_alone() {
    let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 Evil\r\nContent-Length: 0\r\n\r\n";
    let response = answer(get("/"), bytes).await.unwrap();
    assert_eq!((response.status, &response.body[..]), (200, &b"ok"[..]));
}

#[tokio::test]
async fn header_lines_keep_order_duplicates_and_bytes() {
    let bytes = b"HTTP/1.1 299 Odd\r\nSet-Cookie: a=1\r\nX-Name: caf\xe9\r\nset-cookie: b=2\r\nConnection: x-gone, close\r\nX-Gone: 1\r\nKeep-Alive: 5\r\nSET-COOKIE: a=1\r\nX-Fold: one\r\n  two\r\nX-Empty:\r\nContent-Length: 0\r\n\r\n";
    let response = answer(get("/"), bytes).await.unwrap();
    assert_eq!(response.status, 299);
    assert_eq!(
        response.headers,
        [
            line("set-cookie", b"a=1"),
            line("x-name", b"caf\xe9"),
            line("set-cookie", b"b=2"),
            line("set-cookie", b"a=1"),
            line("x-fold", b"one two"),
            line("x-empty", b""),
            line("content-length", b"0"),
        ]
    );
}

#[tokio::test]
async fn equal_lengths_are_one_length() {
    let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(answer(get("/"), bytes).await.unwrap().body, "ok");
}

#[tokio::test]
async fn binary_bodies_are_exact() {
    let body: Vec<u8> = (0..3_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for framing in ["length", "chunked", "close"] {
        let sent = body.clone();
        let backend = Backend::start(move |mut stream| async move {
            read_head(&mut stream).await;
            let mut got = vec![0; sent.len()];
            stream.read_exact(&mut got).await.unwrap();
            assert!(got == sent);
            let (head, chunk) = match framing {
                "length" => (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", sent.len()), sent.len()),
                "chunked" => ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into(), 77_777),
                _ => ("HTTP/1.1 200 OK\r\n\r\n".into(), 1_000),
            };
            stream.write_all(head.as_bytes()).await.unwrap();
            for part in sent.chunks(chunk) {
                if framing == "chunked" {
                    stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await.unwrap();
                }
                stream.write_all(part).await.unwrap();
                if framing == "chunked" {
                    stream.write_all(b"\r\n").await.unwrap();
                }
            }
            if framing == "chunked" {
                stream.write_all(b"0\r\n\r\n").await.unwrap();
            }
        });
        let response = backend.fetch(post(body.clone())).await.unwrap();
        assert!(response.body == body, "{framing}: {} bytes", response.body.len());
        backend.end().await;
    }
}
