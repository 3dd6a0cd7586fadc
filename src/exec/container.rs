//! Starting the resident shim in a container.

use std::{
    os::fd::OwnedFd,
    time::{Duration, SystemTime},
};

use bollard::{
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
    models::ContainerState,
};
use futures_util::StreamExt;
use tokio::{
    io::AsyncWriteExt,
    time::{sleep, timeout},
};

use super::{
    door::Door,
    hub::{InContainer, Way},
    tunnel::{self, Visits},
};
use crate::model::{
    error::{Error, Reason, Result},
    mounts::SHIM,
};

/// How long a shim may take to dial in.
const START_BOUND: Duration = Duration::from_secs(10);
/// How long the engine may take to see that a container ended.
const ENGINE_LAG: Duration = Duration::from_millis(250);
/// How much of what the engine says about a failure is kept, in bytes.
const MAX_MESSAGE_BYTES: usize = 2 << 10;

/// A shim to start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order<'a> {
    /// Where, and how it is reached. In a shared directory the shim's copy lies already.
    pub(super) place: InContainer<'a>,
    /// Where those go that come to the doors of a tunnel.
    pub(super) visits: Option<&'a Visits>,
}

/// Starts a shim: its link.
pub(super) async fn start(order: Order<'_>) -> Result<OwnedFd> {
    let began = SystemTime::now();
    let started = match order.place.way {
        Way::Shared(broker_dir) => {
            let door = Door::open(broker_dir).map_err(|error| {
                let dir = broker_dir.display();
                Error::new(Reason::FileFailed, dir.to_string(), format!("{dir}: no socket can be made: {error}"))
            })?;
            timeout(START_BOUND, start_at(order.place, &door)).await
        }
        Way::Apart => timeout(START_BOUND, order.dig()).await,
    };
    match started {
        Ok(Err(Failure::Told(error))) => Err(error),
        Ok(Ok(link)) => Ok(link),
        Ok(Err(Failure::Engine(error))) => Err(order.explain_engine(&error, began).await),
        Ok(Err(Failure::Shim(why))) => Err(order.explain(&why, began).await),
        Err(_) => Err(order.explain("it was started and did not report", began).await),
    }
}

enum Failure {
    Engine(bollard::errors::Error),
    Shim(String),
    /// It says itself what the matter is.
    Told(Error),
}

impl From<bollard::errors::Error> for Failure {
    fn from(error: bollard::errors::Error) -> Self {
        Failure::Engine(error)
    }
}

async fn start_at(order: InContainer<'_>, door: &Door) -> Result<OwnedFd, Failure> {
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(vec![SHIM.to_owned(), "shim".to_owned(), "container".to_owned()]),
        user: order.user.map(ToOwned::to_owned),
        privileged: Some(false),
        ..CreateExecOptions::default()
    };
    let exec = order.docker.create_exec(order.container, options).await?;
    let attach = StartExecOptions { detach: false, tty: false, output_capacity: None };
    let StartExecResults::Attached { mut output, mut input } = order.docker.start_exec(&exec.id, Some(attach)).await?
    else {
        return Err(Failure::Shim("the engine did not attach to it".to_owned()));
    };
    // A failed start ends the stream; what is said there is better than what writing to it fails with.
    let _ = input.write_all(door.order().as_bytes()).await;
    let _ = input.flush().await;
    let said = async {
        let mut said = String::new();
        while let Some(chunk) = output.next().await {
            match chunk {
                Ok(chunk) => said.push_str(&String::from_utf8_lossy(&chunk.into_bytes())),
                Err(error) => said.push_str(&error.to_string()),
            }
            said.truncate(said.floor_char_boundary(MAX_MESSAGE_BYTES));
        }
        said.trim().to_owned()
    };
    tokio::select! {
        // The nonce may arrive in the moment in which the shim lets its output go.
        biased;
        link = door.admit(order.container) => link.map_err(|error| Failure::Shim(error.to_string())),
        said = said => match timeout(Duration::from_millis(100), door.admit(order.container)).await {
            Ok(Ok(link)) => Ok(link),
            _ => Err(Failure::Shim(said)),
        },
    }
}

impl Order<'_> {
    /// Has the shim at the far end of a tunnel.
    async fn dig(self) -> Result<OwnedFd, Failure> {
        let InContainer { socket, container, user, .. } = self.place;
        match tunnel::start(tunnel::Order { socket, container, user, visits: self.visits }).await {
            Ok(link) => Ok(link),
            Err(tunnel::Failure::Far(why)) => Err(Failure::Shim(why)),
            // The container's state says it, where it is the reason.
            Err(tunnel::Failure::Engine(error)) if error.reason() == Reason::EngineRefused => {
                Err(Failure::Shim(error.message().to_owned()))
            }
            Err(tunnel::Failure::Engine(error)) => Err(Failure::Told(error)),
        }
    }

    /// Why the engine refused: the container's state says it, where it is the reason.
    async fn explain_engine(self, error: &bollard::errors::Error, began: SystemTime) -> Error {
        match error {
            bollard::errors::Error::DockerResponseServerError { status_code: 404, .. } => {
                let message = format!("the engine has no container {}", self.place.container);
                Error::new(Reason::ResourceNotFound, self.place.container, message)
            }
            bollard::errors::Error::DockerResponseServerError { message, .. } => self.explain(message, began).await,
            error => Error::new(Reason::EngineUnavailable, "", format!("the engine does not answer: {error}")),
        }
    }

    /// Why the shim does not run, by the container's state; `why` is what was said about it.
    async fn explain(self, why: &str, began: SystemTime) -> Error {
        let told = match self.state().await {
            Ok(state) => explain_state(&state, self.place.container, why, began),
            Err(error) => error,
        };
        if told.reason() != Reason::ShimUnavailable {
            return told;
        }
        // A container that ended in this moment still counts as running.
        sleep(ENGINE_LAG).await;
        match self.state().await {
            Ok(state) => explain_state(&state, self.place.container, why, began),
            Err(error) => error,
        }
    }

    async fn state(self) -> Result<ContainerState> {
        match self.place.docker.inspect_container(self.place.container, None).await {
            Ok(found) => Ok(found.state.unwrap_or_default()),
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {
                let message = format!("the container {} is gone", self.place.container);
                Err(Error::new(Reason::BackendStopped, self.place.container, message))
            }
            // Podman has a state of its own for one that has just ended.
            Err(bollard::errors::Error::JsonDataError { message, .. }) if message.contains("`stopped`") => {
                Ok(ContainerState { running: Some(false), ..ContainerState::default() })
            }
            Err(error) => {
                Err(Error::new(Reason::EngineUnavailable, "", format!("the engine does not answer: {error}")))
            }
        }
    }
}

fn explain_state(state: &ContainerState, container: &str, why: &str, began: SystemTime) -> Error {
    let started = state.started_at.as_deref().and_then(|time| humantime::parse_rfc3339_weak(time).ok());
    if state.paused == Some(true) {
        Error::new(Reason::ContainerPaused, container, "the container is paused; resume it first")
    } else if state.running == Some(false) || state.restarting == Some(true) {
        Error::new(Reason::BackendStopped, container, "the container does not run")
    } else if started.is_some_and(|started| started > began) {
        Error::new(Reason::BackendStarting, container, "the container was started again meanwhile")
    } else {
        let why = if why.is_empty() { "it ended at once" } else { why };
        Error::new(Reason::ShimUnavailable, container, format!("the shim cannot run in the container: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_the_container_is_the_reason() {
        let state =
            |running, paused| ContainerState { running: Some(running), paused: Some(paused), ..Default::default() };
        let began = SystemTime::now();
        let reason = |state: &ContainerState| explain_state(state, "c", "why", began).reason();
        assert_eq!(reason(&state(true, true)), Reason::ContainerPaused);
        assert_eq!(reason(&state(false, false)), Reason::BackendStopped);
        assert_eq!(reason(&state(true, false)), Reason::ShimUnavailable);
        let started = |at: SystemTime| ContainerState {
            started_at: Some(humantime::format_rfc3339_nanos(at).to_string()),
            ..state(true, false)
        };
        assert_eq!(reason(&started(began - ENGINE_LAG)), Reason::ShimUnavailable);
        assert_eq!(reason(&started(began + ENGINE_LAG)), Reason::BackendStarting);
    }
}
