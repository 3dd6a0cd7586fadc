//! Programs of extensions, run through the API.

use longshore::pb::{self, exited::Outcome, run_response::Event};
use tonic::{Status, Streaming};

use super::Broker;

/// The events of a run.
pub(crate) type Events = Streaming<pb::RunResponse>;

/// A program of an extension.
pub(crate) fn program(id: &str, target: pb::ExecTarget, argv: &[&str]) -> pb::RunRequest {
    let argv = argv.iter().map(ToString::to_string).collect();
    pb::RunRequest { extension: id.to_owned(), target: target.into(), argv, ..Default::default() }
}

/// A script for the shell.
pub(crate) fn shell(id: &str, target: pb::ExecTarget, script: &str) -> pb::RunRequest {
    program(id, target, &["/bin/sh", "-c", script])
}

/// What a program wrote, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    /// All of it, as it came.
    written: Vec<u8>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    pub(crate) outcome: Option<Outcome>,
}

impl Ran {
    /// Reads a run to its end.
    pub(crate) async fn of(events: &mut Events) -> Result<Ran, Status> {
        let mut ran = Ran::default();
        while let Some(event) = events.message().await? {
            match event.event.unwrap() {
                Event::Output(piece) => {
                    let stream = match piece.stream() {
                        pb::OutputStream::Stderr => &mut ran.stderr,
                        _ => &mut ran.stdout,
                    };
                    stream.extend_from_slice(&piece.data);
                    ran.written.extend_from_slice(&piece.data);
                }
                Event::Exited(exited) => ran.outcome = exited.outcome,
                Event::Started(_) | Event::Drained(_) => {}
            }
        }
        Ok(ran)
    }

    /// All that it wrote.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.written.clone()).unwrap()
    }

    /// What it wrote there, without white space around it.
    pub(crate) fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap().trim()
    }

    /// What it wrote there, without white space around it.
    pub(crate) fn stderr(&self) -> &str {
        std::str::from_utf8(&self.stderr).unwrap().trim()
    }

    /// The code that it exited with.
    pub(crate) fn code(&self) -> i32 {
        match self.outcome {
            Some(Outcome::Code(code)) => code,
            _ => panic!("it did not exit: {self:?}"),
        }
    }
}

/// The first event of a run.
pub(crate) async fn started(events: &mut Events) -> pb::Started {
    let first = tokio::time::timeout(std::time::Duration::from_secs(20), events.message());
    match first.await.expect("it starts").unwrap().and_then(|first| first.event) {
        Some(Event::Started(started)) => started,
        other => panic!("{other:?}"),
    }
}

impl Broker {
    /// Starts a program.
    pub(crate) async fn try_start(&self, request: pb::RunRequest) -> Result<Events, Status> {
        Ok(self.exec().await.run(request).await?.into_inner())
    }

    /// Starts one that can be.
    pub(crate) async fn start_program(&self, request: pb::RunRequest) -> Events {
        self.try_start(request).await.unwrap()
    }

    /// Runs one to its end.
    pub(crate) async fn run(&self, request: pb::RunRequest) -> Ran {
        Ran::of(&mut self.start_program(request).await).await.unwrap()
    }
}
