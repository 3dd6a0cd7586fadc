//! Ways to engines that are no Unix sockets.

use std::{os::unix::fs::PermissionsExt, process::Command, time::Instant};

use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::Value;
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

    // What comes from there ends that.
    let listener = TcpListener::bind(address).await.unwrap();
    let mut client = Stream::connect(relay.dockerd().socket()).await.unwrap();
    listener.accept().await.unwrap().0.write_all(b"told").await.unwrap();
    client.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(relay.dockerd().trouble(), None);
    drop(relay);
    assert!(!path.exists());
}

/// Nothing says that a network is gone: who asks on a connection that was kept would wait for a quarter of an hour.
#[test]
fn a_dead_network_ends_a_kept_connection() {
    let tried = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        if rustix::process::geteuid().is_root() {
            // SAFETY: this thread is the test's own, and what it shares no more is its network.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            return runtime.block_on(cut_off());
        }
        // Nobody else can cut one off; then it is seen that the kernel is asked to notice.
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = connect("127.0.0.1", listener.local_addr().unwrap().port()).await.unwrap();
            let bound = rustix::net::sockopt::tcp_user_timeout(&stream).unwrap();
            assert_eq!(Duration::from_millis(bound.into()), SILENCE);
        });
    };
    std::thread::spawn(tried).join().unwrap();
}

async fn cut_off() {
    let network = |is: &str| assert!(Command::new("ip").args(["link", "set", "lo", is]).status().unwrap().success());
    network("up");
    let place = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = Far::Tcp("127.0.0.1".into(), listener.local_addr().unwrap().port());
    tokio::spawn(answer(listener));
    let relay = Relay::open(&place.path().join("engine.sock"), far).unwrap();
    let dockerd = relay.dockerd();
    let ask = async || dockerd.get::<Value>("x", "/x").await;
    ask().await.unwrap();
    network("down");
    let begun = Instant::now();
    ask().await.unwrap_err();
    let waited = begun.elapsed();
    assert!(waited > SILENCE - Duration::from_secs(1) && waited < SILENCE + Duration::from_secs(10), "{waited:?}");
    network("up");
    ask().await.unwrap();
}

/// Answers all requests alike.
async fn answer(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            // Requests here fit into one piece.
            while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
            }
        });
    }
}
