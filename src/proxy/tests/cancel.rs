//! A caller that goes takes the backend's connection with it.

use super::*;

async fn dropped_while(serve: &'static [u8], request: Request) {
    let backend = Backend::start(move |mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(serve).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        sees_the_end(&mut stream).await
    });
    let socket = backend.socket();
    let dial = || async { Ok(Dialled::Http1(UnixStream::connect(&socket).await.unwrap())) };
    let limits = Limits::default();
    let call = fetch(route(dial), request, &limits);
    assert!(timeout(Duration::from_millis(60), call).await.is_err(), "the backend never finishes");
    assert!(backend.end().await, "the connection outlives its caller");
}

#[tokio::test]
async fn before_the_head() {
    dropped_while(b"", get("/")).await;
}

#[tokio::test]
async fn in_the_body() {
    dropped_while(b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n", get("/")).await;
}

#[tokio::test]
async fn while_uploading() {
    dropped_while(b"", post(vec![7; 8 << 20])).await;
}
