//! The command line as a process of its own: signals, pipes and exit codes, which a test within it cannot see.
#![allow(clippy::unwrap_used, reason = "a test")]

mod completions;
mod pty;
mod terminals;

use std::{os::unix::process::ExitStatusExt as _, pin::Pin, process::Stdio, time::Duration};

use longshore::pb::{
    self,
    backend_service_server::{BackendService, BackendServiceServer},
    exec_request::Message,
    exec_response::Event,
    exec_service_server::{ExecService, ExecServiceServer},
    stream_response::Part,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::AsyncReadExt as _,
    net::UnixListener,
    process::{Child, Command},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::{Stream, StreamExt as _, wrappers::UnixListenerStream};
use tonic::{Request, Response, Status, Streaming, async_trait, transport::Server};

/// Longest time that any of this may take.
const LIMIT: Duration = Duration::from_secs(10);

type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A broker whose programs write for ever; tells when a call was dropped.
#[derive(Clone)]
struct Endless(mpsc::UnboundedSender<()>);

/// Reports its end.
struct Guard(mpsc::UnboundedSender<()>);

struct Broker {
    directory: TempDir,
    dropped: mpsc::UnboundedReceiver<()>,
}

impl Broker {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (sender, dropped) = mpsc::unbounded_channel();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let services = Endless(sender);
        let server = Server::builder()
            .add_service(ExecServiceServer::new(services.clone()))
            .add_service(BackendServiceServer::new(services));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Broker { directory, dropped }
    }

    fn run(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command.arg("--socket").arg(self.directory.path().join("s")).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
    }

    async fn is_told_of_the_end(&mut self) {
        timeout(LIMIT, self.dropped.recv()).await.unwrap().unwrap();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// The items, then nothing until the caller goes away.
fn endless<T: Send + 'static>(items: impl Iterator<Item = T> + Send + 'static, guard: Guard) -> Items<T> {
    let items = tokio_stream::iter(items.map(Ok)).chain(tokio_stream::pending());
    Box::pin(items.map(move |item| {
        let _held = &guard;
        item
    }))
}

#[async_trait]
impl ExecService for Endless {
    type ExecStream = Items<pb::ExecResponse>;
    type RunStream = Items<pb::RunResponse>;

    async fn exec(&self, request: Request<Streaming<pb::ExecRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        let line = |_| pb::ExecResponse {
            event: Some(Event::Output(pb::Output { stream: 1, data: [b'y'; 1000].as_slice().to_vec().into() })),
        };
        let first = request.into_inner().message().await?.and_then(|first| first.message);
        let is_short = matches!(first, Some(Message::Start(start)) if start.argv == ["once"]);
        let count = if is_short { 1 } else { usize::MAX };
        Ok(Response::new(endless((0..count).map(line), Guard(self.0.clone()))))
    }

    async fn run(&self, _: Request<pb::RunRequest>) -> Result<Response<Self::RunStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list(
        &self,
        _: Request<pb::ExecServiceListRequest>,
    ) -> Result<Response<pb::ExecServiceListResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn signal(&self, _: Request<pb::SignalRequest>) -> Result<Response<pb::SignalResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[async_trait]
impl BackendService for Endless {
    type LogsStream = Items<pb::LogsResponse>;
    type StreamStream = Items<pb::StreamResponse>;
    type ConnectStream = Items<pb::ConnectResponse>;

    async fn stream(&self, _: Request<Streaming<pb::StreamRequest>>) -> Result<Response<Self::StreamStream>, Status> {
        let head = Part::Head(pb::ResponseHead { status: 200, headers: Vec::new() });
        let data = std::iter::repeat_with(|| Part::Data(vec![b'x'; 100_000].into()));
        let parts = std::iter::once(head).chain(data).map(|part| pb::StreamResponse { part: Some(part) });
        Ok(Response::new(endless(parts, Guard(self.0.clone()))))
    }

    async fn connect(
        &self,
        _: Request<Streaming<pb::ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch(&self, _: Request<pb::FetchRequest>) -> Result<Response<pb::FetchResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn logs(&self, _: Request<pb::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[tokio::test]
async fn ctrl_c_ends_the_call_and_exits_with_130() {
    let mut broker = Broker::start();
    let mut child = broker.run(&["exec", "a/b", "once"]);
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1000]).await.unwrap();
    signal(&child, Signal::INT);
    let status = timeout(LIMIT, child.wait()).await.unwrap().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(130), None));
    broker.is_told_of_the_end().await;
}

/// A body without end is passed on and not kept; Ctrl-C ends the call.
#[tokio::test]
async fn call_passes_bodies_on_and_ends_with_ctrl_c() {
    let mut broker = Broker::start();
    let mut child = broker.run(&["call", "a/b", "GET", "/"]);
    let stdout = child.stdout.as_mut().unwrap();
    let mut block = vec![0; 1 << 20];
    for _ in 0..200 {
        stdout.read_exact(&mut block).await.unwrap();
        assert!(block.iter().all(|byte| *byte == b'x'));
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 80 << 10, "{peak_kib} KiB for 200 MiB");
    signal(&child, Signal::INT);
    assert_eq!(timeout(LIMIT, child.wait()).await.unwrap().unwrap().code(), Some(130));
    broker.is_told_of_the_end().await;
}

#[tokio::test]
async fn ctrl_c_works_while_the_reader_stalls() {
    let mut broker = Broker::start();
    let mut child = broker.run(&["exec", "a/b", "for-ever"]);
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1000]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    signal(&child, Signal::INT);
    let status = timeout(LIMIT, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130));
    broker.is_told_of_the_end().await;
}

#[tokio::test]
async fn a_reader_who_goes_away_ends_it_without_a_word() {
    let mut broker = Broker::start();
    let mut child = broker.run(&["exec", "a/b", "for-ever"]);
    drop(child.stdout.take());
    let output = timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(141), b"".as_slice()));
    broker.is_told_of_the_end().await;
}
