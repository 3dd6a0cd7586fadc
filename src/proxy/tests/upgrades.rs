//! Protocols other than HTTP.

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;

use super::*;
use crate::proxy::{Exchange, Part, Piece, Raw, RequestHead, Upgraded, Upload};

fn upgrade() -> RequestHead {
    let upgrade = Some("websocket".into());
    RequestHead { method: "GET".into(), path: "/ws".into(), upgrade, ..RequestHead::default() }
}

async fn open<T: Send + 'static>(backend: &Backend<T>) -> Result<Exchange> {
    let socket = backend.socket();
    let dial = || async { Ok(Dialled::Http1(UnixStream::connect(&socket).await.unwrap())) };
    let upload = Upload::whole(Bytes::new());
    timeout(PATIENCE, Exchange::open(route(dial), &upgrade(), upload, &Limits::default(), true)).await.unwrap()
}

async fn next(upgraded: &mut Upgraded) -> Option<Result<Raw>> {
    timeout(PATIENCE, std::future::poll_fn(|cx| upgraded.poll_next(cx))).await.expect("the upgraded hangs")
}

fn channel() -> (mpsc::Sender<&'static [u8]>, crate::proxy::Source) {
    let (sender, receiver) = mpsc::channel::<&'static [u8]>(1);
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        Some((Ok(Piece::Data(Bytes::from_static(receiver.recv().await?))), receiver))
    });
    (sender, Box::pin(pieces))
}

#[tokio::test]
async fn bytes_travel_as_they_are_once_the_backend_switched() {
    let backend = Backend::start(|mut stream| async move {
        let head = read_head(&mut stream).await;
        assert!(head.contains("Connection: Upgrade\r\n") && head.contains("Upgrade: websocket\r\n"), "{head}");
        let switch =
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: b\r\n\r\n\0early";
        stream.write_all(switch).await.unwrap();
        let mut heard = vec![0; 3];
        stream.read_exact(&mut heard).await.unwrap();
        stream.write_all(b"\xfflate").await.unwrap();
        // The caller half-closes, and is still answered.
        stream.read_to_end(&mut heard).await.unwrap();
        stream.write_all(b"bye").await.unwrap();
        heard
    });
    let mut exchange = open(&backend).await.unwrap();
    let Some(Ok(Part::Head(head))) = exchange.next().await else { panic!("no head") };
    assert_eq!((head.status, &head.headers[..]), (101, &[line("x-a", b"b")][..]));
    let (sender, source) = channel();
    let mut upgraded = exchange.into_upgraded().unwrap().fed_by(source);
    assert_eq!(next(&mut upgraded).await.unwrap().unwrap(), Raw::Data(Bytes::from_static(b"\0early")));
    sender.send(b"\0\r\n").await.unwrap();
    assert_eq!(next(&mut upgraded).await.unwrap().unwrap(), Raw::Data(Bytes::from_static(b"\xfflate")));
    sender.send(b"end").await.unwrap();
    drop(sender);
    assert_eq!(next(&mut upgraded).await.unwrap().unwrap(), Raw::Data(Bytes::from_static(b"bye")));
    assert_eq!(next(&mut upgraded).await.unwrap().unwrap(), Raw::End);
    assert!(next(&mut upgraded).await.is_none());
    assert_eq!(backend.end().await, b"\0\r\nend");
}

#[tokio::test]
async fn a_backend_that_half_closes_is_still_written_to() {
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        heard
    });
    let mut exchange = open(&backend).await.unwrap();
    assert!(matches!(exchange.next().await, Some(Ok(Part::Head(_)))));
    let (sender, source) = channel();
    let mut upgraded = exchange.into_upgraded().unwrap().fed_by(source);
    assert_eq!(next(&mut upgraded).await.unwrap().unwrap(), Raw::End);
    let sending = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        sender.send(b"still here").await.unwrap();
    });
    assert!(next(&mut upgraded).await.is_none());
    sending.await.unwrap();
    assert_eq!(backend.end().await, b"still here");
}

#[tokio::test]
async fn a_backend_that_does_not_switch_answers() {
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
    });
    let mut exchange = open(&backend).await.unwrap();
    assert!(matches!(exchange.next().await, Some(Ok(Part::Head(head))) if head.status == 426));
    assert!(matches!(exchange.next().await, Some(Ok(Part::Data(data))) if data == "no"));
}

#[tokio::test]
async fn nobody_switches_unasked() {
    let error = answer_error(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n").await;
    assert_failed(&error, Reason::ResponseInvalid, true);
}
