//! Calls over a real socket, to a broker made of test data.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{net::UnixListener, sync::mpsc, time::timeout};
use tokio_stream::{
    Stream,
    wrappers::{UnboundedReceiverStream, UnixListenerStream},
};
use tonic::{
    Request, Response, Status, Streaming, async_trait,
    transport::{Endpoint, Server},
};

use super::events::{drained, ended, exited, killed, started, stderr, stdout};
use crate::{
    client::{Event, ExecOptions, Programs, SpawnOptions, Target},
    pb::{
        self, ExecServiceListRequest, ExecServiceListResponse, RunRequest, RunResponse, SignalRequest, SignalResponse,
        exec_service_server::{ExecService, ExecServiceServer},
        exited::Outcome,
        signal_request,
    },
};

/// Longest time that any of this may take.
const LIMIT: Duration = Duration::from_secs(10);

type Items<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Sender = mpsc::UnboundedSender<Result<RunResponse, Status>>;

/// What was asked, and with which token.
#[derive(Default)]
struct Seen {
    runs: Vec<(RunRequest, Option<String>)>,
    signals: Vec<(SignalRequest, Option<String>)>,
    /// Programs that run until they are ended.
    running: Option<Sender>,
}

#[derive(Clone, Default)]
struct Broker(Arc<Mutex<Seen>>);

fn token<M>(request: &Request<M>) -> Option<String> {
    request.metadata().get("longshore-session").map(|value| value.to_str().unwrap().to_owned())
}

#[async_trait]
impl ExecService for Broker {
    type ExecStream = Items<pb::ExecResponse>;
    type RunStream = Items<RunResponse>;

    async fn exec(&self, _: Request<Streaming<pb::ExecRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        Err(Status::unimplemented("not called here"))
    }

    /// The last argument says how it goes.
    async fn run(&self, request: Request<RunRequest>) -> Result<Response<Self::RunStream>, Status> {
        let token = token(&request);
        let request = request.into_inner();
        let last = request.argv.last().cloned().unwrap_or_default();
        self.0.lock().unwrap().runs.push((request, token));
        let (sender, receiver) = mpsc::unbounded_channel();
        let tell = |event| sender.send(Ok(RunResponse { event: Some(event) })).unwrap();
        match last.as_str() {
            "refused" => return Err(Status::permission_denied("not granted")),
            "unstarted" => self.0.lock().unwrap().running = Some(sender),
            "endless" => {
                tell(started("e7"));
                tell(stdout(b"one\ntw"));
                self.0.lock().unwrap().running = Some(sender);
            }
            "lost" => {
                tell(stdout(b"part"));
                sender.send(Err(Status::unavailable("the broker stops"))).unwrap();
            }
            _ => [started("e1"), stdout(b"{\"a\":1}\n"), stderr(b"e"), exited(Outcome::Code(0)), drained()]
                .into_iter()
                .for_each(tell),
        }
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(receiver))))
    }

    async fn list(&self, _: Request<ExecServiceListRequest>) -> Result<Response<ExecServiceListResponse>, Status> {
        Err(Status::unimplemented("not called here"))
    }

    async fn signal(&self, request: Request<SignalRequest>) -> Result<Response<SignalResponse>, Status> {
        let token = token(&request);
        let mut seen = self.0.lock().unwrap();
        seen.signals.push((request.into_inner(), token));
        let sender = seen.running.take().ok_or_else(|| Status::not_found("it has ended"))?;
        for event in [stdout(b"last words\n"), exited(killed()), ended("REQUESTED", "")] {
            sender.send(Ok(RunResponse { event: Some(event) })).unwrap();
        }
        Ok(Response::new(SignalResponse::default()))
    }
}

/// A broker, and who calls it as the view `secret` of `org/x`.
async fn served() -> (Broker, Programs, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let broker = Broker::default();
    let server = Server::builder().add_service(ExecServiceServer::new(broker.clone()));
    tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    let endpoint = Endpoint::try_from(format!("unix://{}", path.display())).unwrap();
    let programs = Programs::new(endpoint.connect().await.unwrap(), "org/x").in_session("secret").unwrap();
    (broker, programs.with_home(Some("/home/me".into())), directory)
}

async fn all(process: &mut crate::client::Process) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = timeout(LIMIT, process.next()).await.unwrap() {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn a_blocking_call_asks_and_answers() {
    let (broker, programs, _directory) = served().await;
    let options = ExecOptions {
        cwd: Some("/tmp".into()),
        env: [("A".into(), "b".into())].into(),
        timeout: Some(Duration::from_secs(9)),
    };
    let result = programs.exec(Target::Docker, "ps", &["-v ~/a", r#""{{json .}}""#], options).await.unwrap();
    assert_eq!(result.parse_json_object::<serde_json::Value>().unwrap()["a"], 1);
    assert_eq!((result.stderr.as_str(), result.cmd.as_str()), ("e", r#"docker ps -v ~/a "{{json .}}""#));
    let seen = broker.0.lock().unwrap();
    let (request, token) = &seen.runs[0];
    assert_eq!(request.argv, ["ps", "-v", "/home/me/a", "{{json .}}"]);
    assert_eq!((request.target(), request.extension.as_str()), (pb::ExecTarget::Docker, "org/x"));
    assert_eq!((request.cwd.as_str(), request.env["A"].as_str()), ("/tmp", "b"));
    assert_eq!(request.limits.as_ref().unwrap().wall.as_ref().unwrap().seconds, 9);
    assert_eq!(token.as_deref(), Some("secret"));
}

#[tokio::test]
async fn every_failure_has_the_shape_of_a_result() {
    let (broker, programs, _directory) = served().await;
    let failed =
        async |cmd: &str| programs.exec(Target::Host, cmd, &[""; 0], ExecOptions::default()).await.unwrap_err();
    let rejection = failed("kubectl refused").await;
    assert_eq!((rejection.message.as_str(), rejection.result.stderr.as_str()), ("not granted", "not granted"));
    assert_eq!(rejection.result.cmd, "kubectl refused");
    let rejection = failed("a lost").await;
    assert_eq!((rejection.message.as_str(), rejection.result.stdout.as_str()), ("the broker stops", "part"));
    let asked = broker.0.lock().unwrap().runs.len();
    let rejection = failed("a | b").await;
    assert_eq!((rejection.reason.as_str(), rejection.result.cmd.as_str()), ("SHELL_OPERATOR", "a | b"));
    assert_eq!(broker.0.lock().unwrap().runs.len(), asked, "nothing was asked for");
}

#[tokio::test]
async fn a_streaming_call_passes_arguments_as_they_are() {
    let (broker, programs, _directory) = served().await;
    let mut process = programs.spawn(Target::Backend, "a b", &["'x'", "", "~"], SpawnOptions::default());
    let events = all(&mut process).await;
    assert_eq!(events, [Event::Stdout("{\"a\":1}\n".into()), Event::Stderr("e".into()), Event::Close(0)]);
    assert_eq!(process.next().await, None);
    assert_eq!(broker.0.lock().unwrap().runs[0].0.argv, ["a b", "'x'", "", "~"]);
    let mut process = programs.spawn(Target::Host, "refused", &[""; 0], SpawnOptions::default());
    let events = all(&mut process).await;
    assert!(
        matches!(&events[..], [Event::Error(error), Event::Close(-1)] if error.message == "not granted"),
        "{events:?}"
    );
}

#[tokio::test]
async fn closing_ends_the_tree_once() {
    let (broker, programs, _directory) = served().await;
    let options = SpawnOptions { split_output_lines: true, ..Default::default() };
    let mut process = programs.spawn(Target::Host, "endless", &[""; 0], options);
    assert_eq!(timeout(LIMIT, process.next()).await.unwrap(), Some(Event::Stdout("one".into())));
    let closer = process.closer();
    // While it waits, as a button does it; and again.
    let (events, ()) = tokio::join!(all(&mut process), async {
        tokio::task::yield_now().await;
        closer.close();
        closer.clone().close();
    });
    assert_eq!(events, [Event::Close(-1)]);
    closer.close();
    assert_eq!(process.next().await, None);
    let seen = broker.0.lock().unwrap();
    let [(request, token)] = &seen.signals[..] else { panic!("{:?}", seen.signals) };
    assert_eq!((request.exec_id.as_str(), token.as_deref()), ("e7", Some("secret")));
    assert!(matches!(request.action, Some(signal_request::Action::End(_))));
}

#[tokio::test]
async fn closing_what_has_not_started_drops_the_call() {
    let (broker, programs, _directory) = served().await;
    let mut process = programs.spawn(Target::Host, "unstarted", &[""; 0], SpawnOptions::default());
    // Until the broker has the call, and nothing is told yet.
    let running = loop {
        assert!(timeout(Duration::from_millis(50), process.next()).await.is_err(), "nothing is told yet");
        if let Some(running) = broker.0.lock().unwrap().running.take() {
            break running;
        }
    };
    process.closer().close();
    assert_eq!(all(&mut process).await, [Event::Close(-1)]);
    timeout(LIMIT, running.closed()).await.unwrap();
    // And what was closed before anybody waited is never asked for.
    let mut process = programs.spawn(Target::Host, "unstarted", &[""; 0], SpawnOptions::default());
    process.closer().close();
    assert_eq!(all(&mut process).await, [Event::Close(-1)]);
    let seen = broker.0.lock().unwrap();
    assert_eq!((seen.runs.len(), seen.signals.len()), (1, 0));
}

#[tokio::test]
async fn dropping_a_program_drops_the_call() {
    let (broker, programs, _directory) = served().await;
    let mut process = programs.spawn(Target::Host, "endless", &[""; 0], SpawnOptions::default());
    assert!(timeout(LIMIT, process.next()).await.unwrap().is_some());
    drop(process);
    let running = broker.0.lock().unwrap().running.take();
    timeout(LIMIT, running.unwrap().closed()).await.unwrap();
}
