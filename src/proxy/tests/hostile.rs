//! Answers that are not HTTP, or that two readers would read differently.

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn what_is_not_http() {
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"<html>hello</html>",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"HTTP/1.1 2000 High\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-\0: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: b\0c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: b\rc\r\n\r\n",
        b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64",
    ] {
        let error = answer_error(bytes).await;
        assert_failed(&error, Reason::ResponseInvalid, true);
    }
}

#[tokio::test]
async fn what_is_framed_in_two_ways() {
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: identity\r\n\r\nhello",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding:\r\n\r\nhello",
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "Content-Length: 5, 6\r\n\r\nhello!",
        "Content-Length: +5\r\n\r\nhello",
        "Content-Length: -1\r\n\r\nhello",
        "Content-Length: 0x5\r\n\r\nhello",
        "Content-Length: 5 5\r\n\r\nhello",
        "Content-Length: \r\n\r\nhello",
        "Content-Length: 99999999999999999999999\r\n\r\nhello",
        "Content-Length: 18446744073709551615\r\n\r\nhello",
    ] {
        let error = answer_error(format!("HTTP/1.1 200 OK\r\n{framing}").as_bytes()).await;
        assert_failed(&error, Reason::ResponseInvalid, true);
    }
    let old = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_failed(&answer_error(old).await, Reason::ResponseInvalid, true);
}

#[tokio::test]
async fn bad_chunks() {
    for chunks in [
        "x\r\n",
        "-1\r\nhello",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello",
        "10000000000000005\r\nhello",
        "0\r\nbad trailer\r\n\r\n",
    ] {
        let error =
            answer_error(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}").as_bytes()).await;
        assert_failed(&error, Reason::ResponseInvalid, true);
    }
}

#[tokio::test]
async fn heads_beyond_the_limits_are_refused_clearly() {
    let long = format!("HTTP/1.1 200 OK\r\nX-A: {}\r\nContent-Length: 0\r\n\r\n", "a".repeat(100 << 10));
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X-A: b\r\n".repeat(201));
    let trailers =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: {}\r\n\r\n", "a".repeat(100 << 10));
    for bytes in [&long, &many] {
        let error = answer_error(bytes.as_bytes()).await;
        assert_failed(&error, Reason::ResponseInvalid, true);
        assert!(error.message().contains("64 KiB"), "{error}");
    }
    assert_failed(&answer_error(trailers.as_bytes()).await, Reason::ResponseInvalid, true);

    let within = format!(
        "HTTP/1.1 200 OK\r\n{}X-B: {}\r\nContent-Length: 0\r\n\r\n",
        "X-A: b\r\n".repeat(150),
        "b".repeat(60_000)
    );
    assert_eq!(answer(get("/"), within.as_bytes()).await.unwrap().headers.len(), 152);
}

#[tokio::test]
async fn an_upgrade_nobody_asked_for() {
    let error = answer_error(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw").await;
    assert_failed(&error, Reason::ResponseInvalid, true);
    assert!(error.message().contains("101"));
}

#[tokio::test]
async fn a_byte_at_a_time() {
    let backend = Backend::start(|mut stream| async move {
        for byte in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n" {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let response = backend.fetch(get("/")).await.unwrap();
    assert_eq!((&response.body[..], response.trailers), (&b"abc"[..], vec![line("x-t", b"1")]));
}

/// Pieces that random bytes would rarely hit upon.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 C\r\n\r\n",
        "HTTP/1.0 404\r\n",
        "HTTP/1.1 101 S\r\n",
        "HTTP/1.1 204 \r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\n",
        "Connection: close, x-a\r\n",
        "X-A: b\r\n",
        "X-A:\r\n \t folded\r\n",
        "X-A: v\r\n\r\n",
        " \r\n",
        "\r\n\r\n",
        "\r\n",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "0\r\n",
        "ffffffffffffffff\r\n",
        ";ext=\"x\"\r\n",
    ];
    prop_oneof![
        4 => proptest::sample::select(known.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
    ]
}

fn survives(head: &'static [u8], pieces: &[Vec<u8>], method: &str, body: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bytes = [head, &pieces.concat()].concat();
    runtime.block_on(async {
        let (near, mut far) = UnixStream::pair().unwrap();
        let serve = tokio::spawn(async move {
            let _ = far.read(&mut [0; 512]).await;
            let _ = far.write_all(&bytes).await;
        });
        let mut request = post(vec![b'x'; body]);
        request.method = method.into();
        let limits = Limits { max_body_bytes: 64, ..Limits::default() };
        let outcome = timeout(PATIENCE, fetch(route(only(near)), request, &limits)).await;
        match outcome.expect("the fetch hangs") {
            Ok(response) => assert!(response.status >= 200 && response.body.len() <= 64),
            Err(error) => assert!(
                matches!(
                    error.reason(),
                    Reason::BackendBrokeBeforeHead
                        | Reason::BackendBrokeInBody
                        | Reason::ResponseInvalid
                        | Reason::BodyTooLarge
                ),
                "{error:?}"
            ),
        }
        serve.await.unwrap();
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_are_an_answer_or_a_typed_error(
        begun in any::<bool>(),
        pieces in proptest::collection::vec(piece(), 0..10),
        method in "GET|HEAD|POST",
        body in prop_oneof![Just(0_usize), Just(10), Just(400_000)],
    ) {
        survives(if begun { b"HTTP/1.1 200 OK\r\n" } else { b"" }, &pieces, &method, body);
    }
}
