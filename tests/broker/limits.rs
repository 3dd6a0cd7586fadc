//! What happens when something runs short.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use longshore::pb;
use prost::Message;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{
    Broker, BrokerOptions, Image, PLAIN_UID, Stage, as_both, eventually, fact, no_traces, reason, trusting,
};

as_both!(a_full_disk_is_told_and_no_end);

#[tokio::test]
async fn near_the_limit_of_descriptors_new_work_fails_and_accepted_work_goes_on() {
    let broker = Broker::start().await;
    let mut system = broker.system().await;
    system.get_info(pb::GetInfoRequest {}).await.unwrap();
    let limit = Rlimit { current: Some(256), maximum: Some(256) };
    prlimit(Pid::from_raw(broker.pid().cast_signed()), Resource::Nofile, limit).unwrap();
    let mut crowd = Vec::new();
    while crowd.len() < 160 {
        crowd.push(UnixStream::connect(broker.socket()).await.unwrap());
    }
    // The connections are accepted one after the other.
    let refused = eventually(|| async { system.clone().get_info(pb::GetInfoRequest {}).await.err() }).await;
    assert_eq!((refused.code(), reason(&refused)), (Code::ResourceExhausted, "LIMIT_REACHED".into()));
    assert!(refused.get_error_details().retry_info().is_some());
    drop(crowd);
    eventually(|| async { system.clone().get_info(pb::GetInfoRequest {}).await.ok() }).await;
}

#[tokio::test]
async fn many_silent_connections_keep_nobody_waiting() {
    let broker = Broker::start().await;
    let mut crowd = Vec::new();
    for _ in 0..800 {
        crowd.push(UnixStream::connect(broker.socket()).await.unwrap());
    }
    let mut system = broker.system().await;
    let answer = system.get_info(pb::GetInfoRequest {});
    tokio::time::timeout(Duration::from_secs(60), answer).await.expect("it waits for them").unwrap();
    assert!(broker.resident_kib() < 128 << 10, "{} KiB", broker.resident_kib());
}

/// Answers that nobody reads, so many of so many bytes: four times what the broker holds.
const UNREAD: usize = 1000;
const UNREAD_BYTES: usize = 1 << 20;
/// What the broker holds of answers.
const MAX_HELD: usize = 256 << 20;

/// Answers every request with as many bytes, on any number of connections.
fn serve_bodies(listener: UnixListener) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {UNREAD_BYTES}\r\n\r\n");
        let answer: Bytes = [answer.as_bytes(), &vec![b'x'; UNREAD_BYTES]].concat().into();
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                // A request comes in one piece.
                while stream.read(&mut asked).await.is_ok_and(|bytes| bytes > 0) {
                    if stream.write_all(&answer).await.is_err() {
                        break;
                    }
                }
            });
        }
    })
}

/// Calls Fetch so often, on a connection whose window is small, and reads none of the answers.
async fn fetch_unread(stage: &Stage, count: usize) -> Vec<http::Response<Incoming>> {
    let stream = TokioIo::new(UnixStream::connect(stage.broker.socket()).await.unwrap());
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(65_535).initial_connection_window_size(1 << 20);
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = pb::FetchRequest { extension: stage.id(), path: "/".into(), ..Default::default() }.encode_to_vec();
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(request.len() as u32);
    message.put_slice(&request);
    let message = message.freeze();
    let calls = (0..count).map(|_| {
        let mut sender = sender.clone();
        let request = http::Request::post("http://localhost/longshore.v1.BackendService/Fetch");
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let request = request.body(Full::new(message.clone())).unwrap();
        async move { sender.send_request(request).await.unwrap() }
    });
    join_all(calls).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_are_bounded_and_give_way() {
    let stage = Stage::idle(BrokerOptions::default()).await;
    let backend = serve_bodies(stage.listen());
    let get = || pb::FetchRequest { path: "/".into(), ..Default::default() };
    stage.fetch(get()).await.unwrap();
    let before = stage.broker.resident_kib();
    let unread = fetch_unread(&stage, UNREAD).await;
    let (refused, held): (Vec<_>, Vec<_>) =
        unread.into_iter().partition(|answer| answer.headers().contains_key("grpc-status"));
    assert!(refused.iter().all(|answer| answer.headers()["grpc-status"] == "8"));
    let bytes = held.len() * UNREAD_BYTES;
    assert!(bytes > MAX_HELD / 2 && bytes <= MAX_HELD, "{} are held", held.len());
    let grown = stage.broker.resident_kib().saturating_sub(before) as usize;
    assert!(grown < (MAX_HELD >> 10) * 3 / 2, "it grew by {} MiB", grown >> 10);

    // On another connection it is told at once that there is no room, and there is some when nobody has read for a while.
    let full = stage.fetch(get()).await.unwrap_err();
    assert_eq!((reason(&full).as_str(), full.code()), ("LIMIT_REACHED", Code::ResourceExhausted), "{full:?}");
    assert!(full.get_error_details().retry_info().is_some());
    assert!(fact(&full, "sent").is_some());
    let told = eventually(|| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stage.fetch(get()).await.ok()
    });
    assert_eq!(told.await.body.len(), UNREAD_BYTES);
    // Whoever reads at last has what did not give way, and is told of what did.
    let (mut whole, mut given_up) = (0, 0);
    for answer in join_all(held.into_iter().map(|answer| answer.into_body().collect())).await {
        let answer = answer.unwrap();
        match answer.trailers().and_then(|trailers| trailers.get("grpc-status")).unwrap().as_bytes() {
            b"0" => {
                assert!(answer.to_bytes().len() > UNREAD_BYTES);
                whole += 1;
            }
            b"8" => given_up += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(whole > 0 && given_up > 0, "{whole} came and {given_up} gave way");
    // Nothing is held any more.
    let again = join_all((0..100).map(|_| stage.fetch(get()))).await;
    assert!(again.into_iter().all(|told| told.unwrap().body.len() == UNREAD_BYTES));
    backend.abort();
}

/// A small disk in memory.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, uid: u32) -> Disk {
        fs::create_dir(at).unwrap();
        let options = format!("size=400m,mode=700,uid={uid}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output().unwrap();
        assert!(mounted.status.success(), "{mounted:?}");
        Disk(at.to_owned())
    }

    /// A file that takes all the room there is.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("fill");
        let mut file = fs::File::create(&path).unwrap();
        for block in [vec![0; 1 << 20], vec![0; 1]] {
            while file.write_all(&block).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

async fn a_full_disk_is_told_and_no_end(options: BrokerOptions) {
    let uid = if options.plain { PLAIN_UID } else { 0 };
    let (one, two) = (Image::hello().build().await, Image::hello().build().await);
    let mut broker = Broker::prepare(options);
    let disk = Disk::mount(&broker.data_dir(), uid);
    broker.restart().await;
    broker.install(trusting(&one.reference)).await.unwrap();
    let fill = disk.fill();
    let refused = broker.install(trusting(&two.reference)).await.unwrap_err();
    assert!(["FILE_FAILED", "STORE_UNWRITABLE"].contains(&&*reason(&refused)), "{refused:?}");
    assert!(refused.message().contains("No space") || refused.message().contains("full"), "{refused:?}");
    assert_eq!(reason(&broker.uninstall(&one.id, true).await.unwrap_err()), "STORE_UNWRITABLE");
    // What needs no room goes on, also in a broker that starts now.
    assert_eq!(broker.get(&one.id, "/hello").await.unwrap().status, 200);
    broker.kill();
    broker.restart().await;
    assert_eq!(broker.get(&one.id, "/hello").await.unwrap().status, 200);

    fs::remove_file(fill).unwrap();
    broker.install(trusting(&two.reference)).await.unwrap();
    for image in [&one, &two] {
        broker.uninstall(&image.id, true).await.unwrap();
        no_traces(&broker, &image.id).await;
    }
    broker.stop().await;
}
