//! What happens when something runs short.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use longshore::pb;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::net::UnixStream;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{Broker, BrokerOptions, Image, PLAIN_UID, as_both, eventually, no_traces, reason, trusting};

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
