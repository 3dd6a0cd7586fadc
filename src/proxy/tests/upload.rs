//! Answers that come before the request has left.

use super::*;

const LARGE: usize = 8 << 20;

#[tokio::test]
async fn an_answer_before_the_request_is_taken() {
    let backend = Backend::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly").await.unwrap();
        stream.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(backend.fetch(get("/")).await.unwrap().body, "early");
}

#[tokio::test]
async fn an_early_refusal_and_close_is_the_answer() {
    for size in [10, LARGE] {
        let backend = Backend::start(|mut stream| async move {
            read_head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
                .await
                .unwrap();
        });
        let response = backend.fetch(post(vec![7; size])).await.unwrap();
        assert_eq!((response.status, &response.body[..]), (413, &b"big"[..]));
    }
}

#[tokio::test]
async fn an_early_answer_from_one_that_never_reads_does_not_wait_for_it() {
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
    });
    let start = std::time::Instant::now();
    assert_eq!(backend.fetch(post(vec![7; LARGE])).await.unwrap().status, 413);
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn one_that_answers_early_still_gets_the_whole_body() {
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        let mut body = Vec::new();
        let _ = stream.read_to_end(&mut body).await;
        body.len()
    });
    assert_eq!(backend.fetch(post(vec![7; LARGE])).await.unwrap().status, 202);
    assert_eq!(backend.end().await, LARGE);
}

/// Both sides write without end before they read: neither may wait for the other.
#[tokio::test]
async fn a_large_answer_while_a_large_body_is_on_its_way() {
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 << 20);
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![1; 2 << 20]).await.unwrap();
        let mut body = vec![0; LARGE];
        stream.read_exact(&mut body).await.unwrap();
    });
    assert_eq!(backend.fetch(post(vec![7; LARGE])).await.unwrap().body.len(), 2 << 20);
    backend.end().await;
}

#[tokio::test]
async fn an_empty_post_says_so() {
    let backend = Backend::start(|mut stream| async move {
        let head = read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        head
    });
    backend.fetch(post("")).await.unwrap();
    assert!(backend.end().await.ends_with("\r\nContent-Length: 0\r\n\r\n"));
}
