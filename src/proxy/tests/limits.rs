//! Time and size.

use std::time::Instant;

use super::*;
use crate::model::error::Detail;

fn body_limit(max_body_bytes: u64) -> Limits {
    Limits { max_body_bytes, ..Limits::default() }
}

fn time_limit(millis: u64) -> Limits {
    Limits { total: Some(Duration::from_millis(millis)), ..Limits::default() }
}

/// A backend that goes silent after `bytes`, and tells whether it was let go soon.
fn silent_after(bytes: &'static [u8]) -> Backend<bool> {
    Backend::start(move |mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(bytes).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
        sees_the_end(&mut stream).await
    })
}

#[tokio::test]
async fn an_announced_body_is_refused_before_it_comes() {
    let backend = silent_after(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-A: b\r\nConnection: close\r\n\r\n");
    let error = backend.fetch_within(get("/"), &body_limit(10)).await.unwrap_err();
    assert_failed(&error, Reason::BodyTooLarge, true);
    let headers = vec![("content-length".into(), b"11".to_vec()), ("x-a".into(), b"b".to_vec())];
    assert_eq!(error.detail(), Some(&Detail::BodyTooLarge { status: 200, headers, max_body_bytes: 10 }));
    assert!(error.message().contains("max_body_bytes"));
    assert!(backend.end().await);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_cut_at_the_limit() {
    for head in ["HTTP/1.1 201 Made\r\n\r\n", "HTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\n\r\n"] {
        let backend = Backend::start(move |mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(head.as_bytes()).await.unwrap();
            // Without end: only the limit stops it.
            while stream.write_all(b"10\r\n0123456789abcdef\r\n").await.is_ok() {}
        });
        let error = backend.fetch_within(get("/"), &body_limit(100_000)).await.unwrap_err();
        assert_failed(&error, Reason::BodyTooLarge, true);
        assert!(matches!(error.detail(), Some(Detail::BodyTooLarge { status: 201, .. })));
        backend.end().await;
    }
}

#[tokio::test]
async fn the_limit_itself_is_allowed() {
    for framing in ["Content-Length: 10\r\n\r\n0123456789", "\r\n0123456789"] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{framing}");
        let backend = Backend::start(move |mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(bytes.as_bytes()).await
        });
        assert_eq!(backend.fetch_within(get("/"), &body_limit(10)).await.unwrap().body.len(), 10);
    }
    let backend = silent_after(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n");
    let mut head = get("/");
    head.method = "HEAD".into();
    assert_eq!(backend.fetch_within(head, &body_limit(1)).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_slow_head_and_a_slow_body_are_too_slow() {
    for (bytes, word) in [
        (&b""[..], "answer"),
        (b"HTTP/1.1 200 OK\r\nX-A", "answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "body"),
        (b"HTTP/1.1 200 OK\r\n\r\nab", "body"),
    ] {
        let backend = silent_after(bytes);
        let start = Instant::now();
        let error = backend.fetch_within(get("/"), &time_limit(100)).await.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(2));
        assert_failed(&error, Reason::BackendTooSlow, true);
        assert!(error.message().contains(word) && error.message().contains("100ms"), "{error}");
        assert!(backend.end().await, "the connection outlives its limit");
    }
}

#[tokio::test]
async fn drops_that_never_end_are_too_slow_too() {
    let backend = Backend::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nX-A: ").await.unwrap();
        while stream.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let error = backend.fetch_within(get("/"), &time_limit(150)).await.unwrap_err();
    assert_failed(&error, Reason::BackendTooSlow, true);
    backend.end().await;
}

#[tokio::test]
async fn interim_answers_without_end_are_too_slow_and_starve_nobody() {
    let backend = Backend::start(|mut stream| async move {
        while stream.write_all(&b"HTTP/1.1 102 Processing\r\n\r\n".repeat(500)).await.is_ok() {}
    });
    let error = backend.fetch_within(get("/"), &time_limit(150)).await.unwrap_err();
    assert_failed(&error, Reason::BackendTooSlow, true);
    backend.end().await;
}

#[tokio::test]
async fn dialling_has_its_own_limit() {
    let limits = Limits { connect: Duration::from_millis(50), ..Limits::default() };
    let dial = std::future::pending::<Result<Dialled>>;
    let error = fetch(route(dial), get("/"), &limits).await.unwrap_err();
    assert_failed(&error, Reason::BackendTooSlow, false);
    assert!(error.message().contains("accept the connection"));
    let error = fetch(route(dial), get("/"), &time_limit(50)).await.unwrap_err();
    assert_failed(&error, Reason::BackendTooSlow, false);
}

#[tokio::test]
async fn what_dialling_says_is_passed_on_as_not_sent() {
    let dial = || async { Err::<Dialled, _>(Error::new(Reason::BackendRefused, "org/ext", "refused")) };
    let error = fetch(route(dial), get("/"), &Limits::default()).await.unwrap_err();
    assert_failed(&error, Reason::BackendRefused, false);
}

#[tokio::test]
async fn a_wrong_request_is_never_dialled() {
    let header = Request { headers: vec![line("Upgrade", b"h2c")], ..get("/") };
    let method = Request { method: "G T".into(), ..get("/") };
    for (request, reason) in
        [(get("http://host/"), Reason::PathInvalid), (header, Reason::HeaderInvalid), (method, Reason::MethodInvalid)]
    {
        let dial = || async { panic!("dialled") as Result<Dialled> };
        assert_failed(&fetch(route(dial), request, &Limits::default()).await.unwrap_err(), reason, false);
    }
}
