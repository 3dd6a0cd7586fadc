//! What the engine calls an exec instance: a program that it starts in a container.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::in_container::InContainer;
use crate::{
    dockerd::{Dockerd, Failure, Stream},
    model::error::{Error, Reason},
};

/// How long the engine may take to answer.
const ANSWER_BOUND: Duration = Duration::from_secs(30);

/// One that was made, and whom to ask for it.
#[derive(Debug)]
pub(super) struct Instance {
    dockerd: Dockerd,
    id: String,
    has_terminal: bool,
}

/// What to run.
#[derive(Debug, Default)]
pub(super) struct Command<'a> {
    pub(super) argv: Vec<String>,
    /// Beside what the container has, `NAME=value` each.
    pub(super) env: Vec<String>,
    /// `None` is the container's own.
    pub(super) cwd: Option<&'a str>,
    pub(super) has_stdin: bool,
    pub(super) has_terminal: bool,
}

/// What the engine says of one.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct State {
    running: Option<bool>,
    pid: Option<i64>,
    exit_code: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

impl Instance {
    /// Makes one. It starts when somebody attaches.
    pub(super) async fn create(place: InContainer<'_>, command: Command<'_>) -> Result<Self, Failure> {
        let InContainer { dockerd, container, user, .. } = place;
        let mut body = json!({
            "AttachStdin": command.has_stdin,
            "AttachStdout": true,
            "AttachStderr": true,
            "Tty": command.has_terminal,
            "Cmd": command.argv,
            "Env": command.env,
        });
        for (field, value) in [("User", user), ("WorkingDir", command.cwd)] {
            if let Some(value) = value {
                body[field] = value.into();
            }
        }
        let dockerd = dockerd.within(ANSWER_BOUND);
        let created = dockerd.post(container, &format!("/containers/{container}/exec"), &body).await?;
        let Created { id } = serde_json::from_slice(&created).map_err(|error| {
            Error::new(Reason::EngineRefused, container, "the engine made an exec without an id").caused_by(error)
        })?;
        Ok(Instance { dockerd, id, has_terminal: command.has_terminal })
    }

    /// Starts it: its stream.
    pub(super) async fn attach(&self) -> Result<Stream, Failure> {
        let body = json!({ "Detach": false, "Tty": self.has_terminal });
        self.dockerd.stream(&self.id, &format!("/exec/{}/start", self.id), &body).await
    }

    /// Tells the size of its terminal. One that has ended has none any more.
    pub(super) async fn resize(&self, columns: u16, rows: u16) {
        let path = format!("/exec/{}/resize?h={rows}&w={columns}", self.id);
        let _ = self.dockerd.post(&self.id, &path, &Value::Null).await;
    }

    /// What the engine says of it.
    pub(super) async fn state(&self) -> Result<State, Failure> {
        self.dockerd.get(&self.id, &format!("/exec/{}/json", self.id)).await
    }
}

impl State {
    /// Whether it runs.
    pub(super) fn is_running(&self) -> bool {
        self.running.unwrap_or(false)
    }

    /// Whether it ever ran.
    pub(super) fn has_started(&self) -> bool {
        self.pid.is_some_and(|pid| pid > 0)
    }

    /// The exit code that the engine knows.
    pub(super) fn code(&self) -> Option<i64> {
        self.exit_code
    }
}
