//! Ways to engines that are no Unix sockets.

use std::os::unix::fs::PermissionsExt;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

#[tokio::test]
async fn bytes_and_ends_pass_each_way() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("engine.sock");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // One that a broker left.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let relay = Relay::open(&path, Far::Tcp("127.0.0.1".into(), address.port())).unwrap();
    assert_eq!(std::fs::metadata(relay.dockerd().socket()).unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = Stream::connect(relay.dockerd().socket()).await.unwrap();
    let mut engine = listener.accept().await.unwrap().0;
    client.write_all(b"asked").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    engine.read_to_end(&mut heard).await.unwrap();
    // Half-closed, it still answers.
    engine.write_all(b"told").await.unwrap();
    drop(engine);
    let mut told = Vec::new();
    client.read_to_end(&mut told).await.unwrap();
    assert_eq!((&*heard, &*told), (&b"asked"[..], &b"told"[..]));

    drop(listener);
    let mut client = Stream::connect(relay.dockerd().socket()).await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "nobody listens");
    let why = relay.dockerd().trouble().unwrap();
    assert!(why.contains("127.0.0.1") && why.contains("refused"), "{why}");
    drop(relay);
    assert!(!path.exists());
}
