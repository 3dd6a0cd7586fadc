//! The gateway before an engine that does what a test says.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::timeout,
};

use super::*;
use crate::model::error::{Error, Reason};

const SOON: Duration = Duration::from_secs(10);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A gateway, its engine, and what was told to its rules.
struct Scene {
    dir: tempfile::TempDir,
    gateways: Gateways,
    engine: UnixListener,
    told: mpsc::UnboundedReceiver<String>,
    refused: Arc<Mutex<bool>>,
    /// What a create passes before it begins.
    gate: Arc<Semaphore>,
}

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let engine = UnixListener::bind(dir.path().join("engine")).unwrap();
        let gateways = Gateways::new(&dir.path().join("engine"), rustix::process::geteuid().as_raw());
        let (tell, told) = mpsc::unbounded_channel();
        let refused = Arc::new(Mutex::new(false));
        let (is_refused, gate) = (refused.clone(), Arc::new(Semaphore::new(1)));
        let to_pass = gate.clone();
        let rules = Rules {
            admit: Box::new(move |_| {
                let refused = *is_refused.lock().unwrap();
                let error = || Error::new(Reason::GrantsRequired, "a/b", "a/b needs engine.full");
                Box::pin(async move { if refused { Err(error()) } else { Ok(()) } })
            }),
            intend: Box::new(move |create| {
                let gate = to_pass.clone();
                let own = vec![("dev.longshore.nonce".to_owned(), "n".to_owned())];
                let stamp = Stamp { own, defaults: vec![] };
                Box::pin(async move {
                    let _passed = gate.acquire().await;
                    Ok(Intent { nonce: "n".into(), stamp, create, volumes_before: vec![] })
                })
            }),
            made: Box::new(move |intent, made| {
                let _ = tell.send(format!("{:?} {made:?}", intent.create.kind));
                Box::pin(async {})
            }),
        };
        gateways.open("a/b", dir.path(), rules).unwrap();
        Scene { dir, gateways, engine, told, refused, gate }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(GATEWAY_NAME)
    }

    /// A client that has said something.
    async fn client(&self, says: &[u8]) -> UnixStream {
        let mut client = UnixStream::connect(self.path()).await.unwrap();
        client.write_all(says).await.unwrap();
        client
    }

    /// The engine's side of the next connection.
    async fn engine(&self) -> UnixStream {
        timeout(SOON, self.engine.accept()).await.unwrap().unwrap().0
    }
}

/// Reads until `text` was read; all of it.
async fn until(stream: &mut UnixStream, text: &str) -> String {
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).ends_with(text) {
        let mut byte = [0];
        let read = timeout(SOON, stream.read(&mut byte)).await.expect("it comes").unwrap();
        assert_eq!(read, 1, "ended after {:?}", String::from_utf8_lossy(&all));
        all.push(byte[0]);
    }
    String::from_utf8(all).unwrap()
}

async fn rest(stream: &mut UnixStream) -> String {
    let mut all = String::new();
    timeout(SOON, stream.read_to_string(&mut all)).await.expect("it ends").unwrap();
    all
}

#[tokio::test]
async fn one_connection_carries_requests_one_after_another() {
    let mut scene = Scene::new();
    let create = "POST /v1.41/containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}";
    let mut client = scene.client(format!("GET /a HTTP/1.1\r\nX: y\r\n\r\n{create}").as_bytes()).await;
    let mut engine = scene.engine().await;
    assert_eq!(until(&mut engine, "\r\n\r\n").await, "GET /a HTTP/1.1\r\nX: y\r\n\r\n", "as it came");
    engine.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
    engine.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n").await.unwrap();
    let answer = until(&mut client, "0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");
    let stamped = until(&mut engine, "}}").await;
    assert!(stamped.ends_with("\r\n\r\n{\"Labels\":{\"dev.longshore.nonce\":\"n\"}}"), "{stamped}");
    assert!(stamped.contains("content-length: 38\r\n"), "{stamped}");
    engine.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n{\"Id\":\"x\"}").await.unwrap();
    assert!(until(&mut client, "}").await.starts_with("HTTP/1.1 201"));
    let told = scene.told.recv().await.unwrap();
    assert!(told.starts_with("Container Answered { status: 201"), "{told}");
    // The engine has let go of it meanwhile.
    drop(engine);
    client.write_all(b"GET /b HTTP/1.1\r\n\r\n").await.unwrap();
    let mut engine = scene.engine().await;
    until(&mut engine, "\r\n\r\n").await;
    engine.write_all(OK).await.unwrap();
    assert!(until(&mut client, "ok").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_stream_is_raw_only_when_the_engine_says_so() {
    let scene = Scene::new();
    let attach =
        b"POST /containers/x/attach HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n";
    let create = b"POST /networks/create HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
    // Asked for, not given: what follows is a request.
    let mut client = scene.client(attach).await;
    client.write_all(create).await.unwrap();
    let mut engine = scene.engine().await;
    until(&mut engine, "\r\n\r\n").await;
    engine.write_all(OK).await.unwrap();
    until(&mut client, "ok").await;
    assert!(until(&mut engine, "}}").await.contains("dev.longshore.nonce"));
    drop(client);
    // Given, with a status of its own or without a length.
    for head in ["HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Type: raw\r\n\r\n"] {
        let mut client = scene.client(&[&attach[..], b"early"].concat()).await;
        let mut engine = scene.engine().await;
        until(&mut engine, "\r\n\r\n").await;
        engine.write_all(head.as_bytes()).await.unwrap();
        until(&mut client, "\r\n\r\n").await;
        client.write_all(create).await.unwrap();
        client.shutdown().await.unwrap();
        // The client's end is told, and the engine speaks on.
        assert_eq!(rest(&mut engine).await.as_bytes(), [&b"early"[..], create].concat(), "{head}");
        engine.write_all(b"late").await.unwrap();
        engine.shutdown().await.unwrap();
        assert_eq!(rest(&mut client).await, "late");
    }
    // And the other way round.
    let mut client = scene.client(attach).await;
    let mut engine = scene.engine().await;
    until(&mut engine, "\r\n\r\n").await;
    engine.write_all(b"HTTP/1.1 101 UPGRADED\r\n\r\nout").await.unwrap();
    engine.shutdown().await.unwrap();
    assert!(rest(&mut client).await.ends_with("out"));
    client.write_all(b"in").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut engine).await, "in");
}

#[tokio::test]
async fn a_client_that_goes_after_its_end_is_told_to_the_engine() {
    let scene = Scene::new();
    let mut client = scene.client(b"POST /exec/x/start HTTP/1.1\r\nContent-Length: 0\r\n\r\n").await;
    let mut engine = scene.engine().await;
    until(&mut engine, "\r\n\r\n").await;
    engine.write_all(b"HTTP/1.1 101 UPGRADED\r\n\r\n").await.unwrap();
    until(&mut client, "\r\n\r\n").await;
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut engine).await, "");
    assert!(!crate::local::is_gone(&engine));
    drop(client);
    let gone = async {
        while !crate::local::is_gone(&engine) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, gone).await.unwrap();
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let scene = Scene::new();
    let mut client = scene.client(b"PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    let mut engine = scene.engine().await;
    until(&mut engine, "abc\r\n").await;
    engine.write_all(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.unwrap();
    drop(engine);
    assert!(rest(&mut client).await.starts_with("HTTP/1.1 400 No"));
}

#[tokio::test]
async fn a_client_that_leaves_is_told_to_the_engine() {
    let scene = Scene::new();
    let client = scene.client(b"GET /events HTTP/1.1\r\n\r\n").await;
    let mut engine = scene.engine().await;
    until(&mut engine, "\r\n\r\n").await;
    drop(client);
    assert_eq!(rest(&mut engine).await, "");
}

#[tokio::test]
async fn what_the_engine_makes_is_recorded_whoever_leaves() {
    let mut scene = Scene::new();
    let create = b"POST /volumes/create HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    // The client leaves, and the gateway closes.
    let client = scene.client(create).await;
    let mut engine = scene.engine().await;
    until(&mut engine, "}}").await;
    drop(client);
    let answer = async {
        tokio::task::yield_now().await;
        engine.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
    };
    let (closed, ()) = tokio::join!(scene.gateways.close("a/b"), answer);
    assert!(closed && !scene.path().exists());
    let told = scene.told.recv().await.unwrap();
    assert!(told.starts_with("Volume Answered { status: 201"), "{told}");
    assert!(UnixStream::connect(scene.path()).await.is_err());
}

#[tokio::test]
async fn no_create_begins_once_a_gateway_is_closed() {
    for _ in 0..20 {
        let scene = Scene::new();
        let closed = scene.gate.acquire().await.unwrap();
        let _client = scene.client(b"POST /volumes/create HTTP/1.1\r\nContent-Length: 0\r\n\r\n").await;
        let mut engine = scene.engine().await;
        // The create waits now, and may go on in the moment in which the gateway closes.
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(closed);
        assert!(scene.gateways.close("a/b").await);
        assert_eq!(rest(&mut engine).await, "");
    }
}

#[tokio::test]
async fn what_came_of_a_create_that_broke_off_is_not_known() {
    let mut scene = Scene::new();
    let mut client = scene.client(b"POST /volumes/create HTTP/1.1\r\nContent-Length: 0\r\n\r\n").await;
    let mut engine = scene.engine().await;
    until(&mut engine, "}}").await;
    engine.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{").await.unwrap();
    drop(engine);
    assert!(rest(&mut client).await.starts_with("HTTP/1.1 502"));
    assert_eq!(scene.told.recv().await.unwrap(), "Volume Unknown");
}

#[tokio::test]
async fn what_is_no_longer_allowed_ends() {
    let scene = Scene::new();
    let mut client = scene.client(b"GET /events HTTP/1.1\r\n\r\n").await;
    let mut engine = scene.engine().await;
    until(&mut engine, "\r\n\r\n").await;
    *scene.refused.lock().unwrap() = true;
    scene.gateways.end_connections("a/b");
    assert_eq!(rest(&mut client).await, "");
    assert_eq!(rest(&mut engine).await, "");
    let mut client = scene.client(b"GET /x HTTP/1.1\r\n\r\n").await;
    let told = rest(&mut client).await;
    assert!(told.starts_with("HTTP/1.1 403") && told.contains("a/b needs engine.full"), "{told}");
    *scene.refused.lock().unwrap() = false;
    scene.client(b"GET /x HTTP/1.1\r\n\r\n").await;
    scene.engine().await;
}

#[tokio::test]
async fn an_answer_that_is_none_is_the_engines_fault() {
    let scene = Scene::new();
    for answer in ["", "SSH-2.0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"] {
        let mut client = scene.client(b"GET /x HTTP/1.1\r\n\r\n").await;
        let mut engine = scene.engine().await;
        until(&mut engine, "\r\n\r\n").await;
        engine.write_all(answer.as_bytes()).await.unwrap();
        drop(engine);
        let told = rest(&mut client).await;
        assert!(told.starts_with("HTTP/1.1 502") && told.contains("the engine does not answer"), "{answer} {told}");
    }
}
