//! `exec -it` at a terminal: keys, sizes, and that the terminal is given back whatever ends it.

use std::{ffi::OsString, time::Duration};

use longshore::pb::{
    self,
    exec_request::Message,
    exec_response::Event,
    exec_service_server::{ExecService, ExecServiceServer},
    exited::Outcome,
};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{net::UnixListener, runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::{UnboundedReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming, async_trait, transport::Server};

use crate::{Items, pty::Pty};

/// A broker in a runtime of its own, so that it can go away at once.
struct Broker {
    directory: TempDir,
    runtime: Option<Runtime>,
}

/// Programs that tell what they are given: `<61>` for a byte, `<120x40>` for a size, `<eof>` for the end; `q` ends them
/// with code 7. One called `never` is never said to have started.
struct Told;

impl Broker {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let path = directory.path().join("s");
        let _inside = runtime.enter();
        let listener = UnixListener::bind(path).unwrap();
        let server = Server::builder().add_service(ExecServiceServer::new(Told));
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        drop(_inside);
        Broker { directory, runtime: Some(runtime) }
    }

    /// Runs a command line in a new terminal.
    fn run(&self, arguments: &[&str]) -> Pty {
        let mut command: Vec<OsString> = vec![env!("CARGO_BIN_EXE_longshore").into(), "--socket".into()];
        command.push(self.directory.path().join("s").into());
        command.extend(arguments.iter().map(OsString::from));
        Pty::run(&command, 100, 30)
    }

    /// Goes away with all its connections, without a word.
    fn vanish(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_millis(10));
        }
    }
}

#[async_trait]
impl ExecService for Told {
    type ExecStream = Items<pb::ExecResponse>;
    type RunStream = Items<pb::RunResponse>;

    async fn exec(&self, request: Request<Streaming<pb::ExecRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        let mut requests = request.into_inner();
        let Some(Message::Start(start)) = requests.message().await?.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("no start"));
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let tell = |event| drop(sender.send(Ok(pb::ExecResponse { event: Some(event) })));
            let show = |text: String| {
                tell(Event::Output(pb::Output { stream: pb::OutputStream::Stdout.into(), data: text.into() }));
            };
            if start.argv == ["never"] {
                show("waiting.".into());
                return sender.closed().await;
            }
            tell(Event::Started(pb::Started { exec_id: "e1".into(), pid: 1 }));
            let size = |size: pb::WindowSize| format!("{}x{}", size.columns, size.rows);
            show(format!("{} {:?}.", start.terminal.map(size).unwrap_or_default(), start.env.get("TERM")));
            let mut code = None;
            while code.is_none()
                && let Ok(Some(request)) = requests.message().await
            {
                match request.message.unwrap() {
                    Message::Stdin(bytes) => {
                        bytes.iter().for_each(|byte| show(format!("<{byte:02x}>")));
                        code = bytes.contains(&b'q').then_some(7);
                    }
                    Message::Resize(changed) => show(format!("<{}>", size(changed))),
                    Message::CloseStdin(_) => {
                        show("<eof>".into());
                        code = Some(0);
                    }
                    other => panic!("{other:?}"),
                }
            }
            if let Some(code) = code {
                tell(Event::Exited(pb::Exited { outcome: Some(Outcome::Code(code)), ..Default::default() }));
                tell(Event::Drained(pb::Drained::default()));
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(receiver))))
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

#[test]
fn every_key_is_typed_to_the_program() {
    let broker = Broker::start();
    let mut terminal = broker.run(&["exec", "-it", "a/b", "--", "sh"]);
    terminal.shows(r#"100x30 Some("vt220")."#);
    terminal.type_in(b"a");
    assert_eq!(terminal.shows("<61>"), "", "there is no echo but the program's");
    assert!(terminal.is_raw());
    terminal.type_in(b"\x03\x04\x1a\x1c\r");
    assert_eq!(terminal.shows("<0d>"), "<03><04><1a><1c>");
    terminal.resize(120, 40);
    terminal.shows("<120x40>");
    terminal.type_in(b"q");
    assert_eq!(terminal.ends(), 7);
}

#[test]
fn the_terminal_is_given_back_whatever_ends_it() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130), (Signal::QUIT, 131)] {
        let broker = Broker::start();
        let mut terminal = broker.run(&["exec", "-it", "a/b", "sh"]);
        terminal.shows(".");
        terminal.type_in(b"a");
        terminal.shows("<61>");
        assert!(terminal.is_raw());
        terminal.signal(signal);
        assert_eq!(terminal.ends(), code);
    }
}

#[test]
fn a_broker_that_is_gone_leaves_the_terminal_as_it_was() {
    let mut broker = Broker::start();
    let mut terminal = broker.run(&["exec", "-it", "a/b", "sh"]);
    terminal.shows(".");
    terminal.type_in(b"a");
    terminal.shows("<61>");
    broker.vanish();
    // In lines that begin at the left: the terminal was given back before.
    terminal.shows("longshore: the broker closed the connection\r\n");
    assert_eq!(terminal.ends(), 125);
}

#[test]
fn until_it_runs_ctrl_c_ends_the_command() {
    let broker = Broker::start();
    let mut terminal = broker.run(&["exec", "-it", "a/b", "never"]);
    terminal.shows("waiting.");
    assert!(!terminal.is_raw());
    terminal.type_in(b"\x03");
    assert_eq!(terminal.ends(), 130);
}

#[test]
fn without_a_terminal_of_its_own_it_gets_lines() {
    let broker = Broker::start();
    let mut terminal = broker.run(&["exec", "-i", "a/b", "cat"]);
    terminal.shows(" None.");
    assert!(!terminal.is_raw());
    terminal.type_in(b"hi\n");
    terminal.shows("<68><69><0a>");
    terminal.type_in(b"\x04");
    terminal.shows("<eof>");
    assert_eq!(terminal.ends(), 0);
}
