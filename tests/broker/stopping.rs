//! A stop while everything is in use: every open call ends with a proper status, inside the deadline.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use longshore::pb;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::support::{Broker, BrokerOptions, Image, no_traces, reason, shell, trusting};

/// How long calls may go on.
const DRAIN: Duration = Duration::from_secs(3);
/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_secs(3);
/// What the end of programs and threads may take behind that.
const STOP: Duration = Duration::from_secs(15);
/// Longest time until everything is under way.
const SOON: Duration = Duration::from_secs(60);

/// How a call ended, and when it began.
type Ended = (&'static str, Instant, Result<(), Status>);

/// Everything that is asked of a broker at once.
struct Load {
    calls: JoinSet<Ended>,
    begun: Arc<AtomicU32>,
    expected: u32,
    /// Says that no more calls are to be made.
    over: watch::Receiver<bool>,
}

impl Load {
    /// Holds a stream until it ends; it counts as begun with its first message.
    fn hold<T: Send + 'static>(&mut self, name: &'static str, mut stream: Streaming<T>) {
        self.expected += 1;
        let (begun, at) = (self.begun.clone(), Instant::now());
        self.calls.spawn(async move {
            let mut is_first = true;
            loop {
                match stream.message().await {
                    Ok(Some(_)) if is_first => {
                        begun.fetch_add(1, Ordering::Relaxed);
                        is_first = false;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => return (name, at, Ok(())),
                    Err(status) => return (name, at, Err(status)),
                }
            }
        });
    }

    /// Makes one call after the other until one fails.
    async fn repeat(&mut self, name: &'static str, broker: &Broker, id: &str, path: &'static str) {
        self.expected += 1;
        let (begun, over) = (self.begun.clone(), self.over.clone());
        let (mut backends, extension) = (broker.backends().await, id.to_owned());
        self.calls.spawn(async move {
            let mut is_first = true;
            loop {
                let at = Instant::now();
                let call = backends.fetch(fetch(&extension, path));
                if std::mem::take(&mut is_first) {
                    begun.fetch_add(1, Ordering::Relaxed);
                }
                match call.await {
                    Ok(answer) => assert_eq!(answer.into_inner().status, 200),
                    Err(status) => return (name, at, Err(status)),
                }
                if *over.borrow() {
                    return (name, at, Ok(()));
                }
            }
        });
    }
}

fn fetch(id: &str, path: &str) -> pb::FetchRequest {
    pb::FetchRequest { extension: id.to_owned(), path: path.to_owned(), ..Default::default() }
}

/// Programs of all sorts that never end by themselves.
async fn hold_programs(load: &mut Load, broker: &Broker, id: &str) {
    for target in [pb::ExecTarget::Host, pb::ExecTarget::Backend] {
        for line in ["sleep 1000", "while :; do echo y; sleep 0.01; done", "trap '' TERM; while :; do sleep 1; done"] {
            load.hold("run", broker.start_program(shell(id, target, line)).await);
        }
        let start = pb::ExecStart {
            extension: id.to_owned(),
            target: target.into(),
            argv: vec!["cat".into()],
            stdin: true,
            ..Default::default()
        };
        let (sender, requests) = mpsc::channel(4);
        let message = |message| pb::ExecRequest { message: Some(message) };
        sender.send(message(pb::exec_request::Message::Start(start))).await.unwrap();
        sender.send(message(pb::exec_request::Message::Stdin(b"x".to_vec().into()))).await.unwrap();
        let answer = broker.exec().await.exec(ReceiverStream::new(requests)).await.unwrap().into_inner();
        load.hold("exec", answer);
        // Its caller has more to say, and never says it.
        std::mem::forget(sender);
    }
}

/// Streams that only tell.
async fn hold_watches(load: &mut Load, broker: &Broker, id: &str) {
    let follow = pb::LogsRequest { extension: id.to_owned(), follow: true, ..Default::default() };
    load.hold("logs", broker.backends().await.logs(follow).await.unwrap().into_inner());
    let request = pb::EventServiceWatchRequest::default();
    load.hold("events", broker.events().await.watch(request).await.unwrap().into_inner());
    let request = pb::OwnershipServiceWatchRequest::default();
    load.hold("objects", broker.ownership().await.watch(request).await.unwrap().into_inner());
    let request = pb::OpenRequest { extension: id.to_owned() };
    load.hold("session", broker.sessions().await.open(request).await.unwrap().into_inner());
    let head =
        pb::RequestHead { extension: id.to_owned(), method: "POST".into(), path: "/echo".into(), ..Default::default() };
    let (sender, requests) = mpsc::channel(4);
    sender.send(pb::StreamRequest { part: Some(pb::stream_request::Part::Head(head)) }).await.unwrap();
    let mut backends = broker.backends().await;
    load.expected += 1;
    load.begun.fetch_add(1, Ordering::Relaxed);
    let at = Instant::now();
    load.calls.spawn(async move {
        // The backend waits for a body whose sender says nothing.
        let held = sender;
        let ended = match backends.stream(ReceiverStream::new(requests)).await {
            Ok(answer) => answer.into_inner().message().await.map(|_| ()),
            Err(status) => Err(status),
        };
        drop(held);
        ("stream", at, ended)
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_open_call_ends_properly_inside_the_deadline() {
    let image = Image::hello().busybox().build().await;
    // Never ready: its install goes on until the stop.
    let endless = Image::sleeping().build().await;
    let drain = format!("{}s", DRAIN.as_secs());
    let options = BrokerOptions { args: vec!["--drain-timeout".into(), drain.into()], ..Default::default() };
    let mut broker = Broker::start_with(options).await;
    broker.install(trusting(&image.reference)).await.unwrap();
    let (end, over) = watch::channel(false);
    let mut load = Load { calls: JoinSet::new(), begun: Arc::default(), expected: 0, over };
    hold_watches(&mut load, &broker, &image.id).await;
    hold_programs(&mut load, &broker, &image.id).await;
    let install = broker.extensions().await.install(trusting(&endless.reference)).await.unwrap();
    load.hold("install", install.into_inner());
    for _ in 0..30 {
        load.repeat("quick", &broker, &image.id, "/hello").await;
        load.repeat("short", &broker, &image.id, "/slow?ms=200").await;
    }
    for _ in 0..10 {
        load.repeat("endless", &broker, &image.id, "/slow?ms=60000").await;
    }
    let under_way = async {
        while load.begun.load(Ordering::Relaxed) < load.expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, under_way).await.expect("everything is under way");
    tokio::time::sleep(Duration::from_secs(1)).await;

    let stopped = Instant::now();
    broker.terminate();
    end.send_replace(true);
    let mut told = 0;
    while let Some(ended) = timeout((DRAIN + SLACK).saturating_sub(stopped.elapsed()), load.calls.join_next())
        .await
        .unwrap_or_else(|_| panic!("{} of {} calls go on\n{}", load.expected - told, load.expected, broker.log()))
    {
        let (name, at, result) = ended.unwrap();
        told += 1;
        let Err(status) = result else { continue };
        assert_eq!(status.code(), Code::Unavailable, "{name}: {status:?}");
        // Whoever calls when nobody listens any more is told by its own side.
        if at < stopped {
            assert_eq!(reason(&status), "SHUTTING_DOWN", "{name}: {status:?}");
        }
    }
    let status = timeout(STOP, broker.ended()).await.expect("nothing holds the stop");
    assert!(status.success(), "{status}\n{}", broker.log());
    broker.restart().await;
    no_traces(&broker, &endless.id).await;
    assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
    broker.uninstall(&image.id, true).await.unwrap();
}
