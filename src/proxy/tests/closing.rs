//! Backends that leave, at every stage.

use super::*;

#[tokio::test]
async fn at_once() {
    let backend = Backend::start(|stream| async move { drop(stream) });
    let error = backend.fetch(get("/")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::BackendBrokeBeforeHead, "{error}");
}

/// What nobody can have read is not called sent.
#[tokio::test]
async fn before_anything_was_sent() {
    let (near, far) = UnixStream::pair().unwrap();
    drop(far);
    let error = fetch(route(only(near)), get("/"), &Limits::default()).await.unwrap_err();
    assert_failed(&error, Reason::BackendBrokeBeforeHead, false);
}

#[tokio::test]
async fn before_the_head_is_complete() {
    for bytes in
        ["", "H", "HTTP/1.1", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nX: y\r\n", "HTTP/1.1 100 Continue\r\n\r\n"]
    {
        let error = answer_error(bytes.as_bytes()).await;
        assert_failed(&error, Reason::BackendBrokeBeforeHead, true);
        assert_eq!(error.subject(), "org/ext");
    }
}

#[tokio::test]
async fn in_the_middle_of_a_large_upload() {
    let backend = Backend::start(|mut stream| async move {
        let mut some = vec![0; 100_000];
        stream.read_exact(&mut some).await.unwrap();
    });
    let error = backend.fetch(post(vec![7; 8 << 20])).await.unwrap_err();
    assert_failed(&error, Reason::BackendBrokeBeforeHead, true);
}

#[tokio::test]
async fn in_the_body() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 1\r\n",
    ] {
        assert_failed(&answer_error(bytes.as_bytes()).await, Reason::BackendBrokeInBody, true);
    }
}

/// Unread request bytes turn the close into a reset, which must not hide where it happened.
#[tokio::test]
async fn by_reset() {
    for (bytes, reason) in [
        ("", Reason::BackendBrokeBeforeHead),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", Reason::BackendBrokeInBody),
    ] {
        let backend = Backend::start(move |mut stream| async move {
            stream.read_u8().await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
        });
        assert_failed(&backend.fetch(post("unread")).await.unwrap_err(), reason, true);
    }
}

#[tokio::test]
async fn only_for_writing() {
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf").await.unwrap();
        stream.shutdown().await.unwrap();
        sees_the_end(&mut stream).await
    });
    assert_eq!(backend.fetch(get("/")).await.unwrap().body, "half");
    assert!(backend.end().await);
}
