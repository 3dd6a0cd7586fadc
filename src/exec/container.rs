//! Starting the resident shim in a container.

use std::{
    os::fd::OwnedFd,
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use super::{
    dial_in::DialIn,
    in_container::{InContainer, Reach},
    instance::{Command, Instance},
    tunnel::{self, Visits},
};
use crate::{
    dockerd::{Failure, Frames, Stream},
    model::{
        error::{Error, Reason, Result},
        mounts::{SHIM, SHIM_APART},
    },
};

/// How long a shim may take to dial in.
const START_BOUND: Duration = Duration::from_secs(10);
/// How long the engine may take to see that a container ended.
const ENGINE_LAG: Duration = Duration::from_millis(250);
/// How much of what is said about a failure is kept, in bytes.
pub(super) const MAX_SAID_BYTES: usize = 2 << 10;

/// Why there is no link.
pub(super) enum NoLink {
    /// Nothing could be started.
    Engine(Failure),
    /// What was started says this.
    Shim(String),
}

impl<E: Into<Failure>> From<E> for NoLink {
    fn from(error: E) -> Self {
        NoLink::Engine(error.into())
    }
}

/// What the engine says of a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    running: Option<bool>,
    paused: Option<bool>,
    restarting: Option<bool>,
    started_at: Option<String>,
}

/// Starts a shim: its link. In a shared directory its copy lies already. `visits` is where those go that come to the doors
/// of a tunnel.
pub(super) async fn start(place: InContainer<'_>, visits: Option<&Visits>) -> Result<OwnedFd> {
    let began = SystemTime::now();
    let started = match place.reach {
        Reach::Shared(broker_dir) => {
            let dial_in = DialIn::open(broker_dir).map_err(|error| {
                let dir = broker_dir.display();
                Error::new(Reason::FileFailed, dir.to_string(), format!("{dir}: no socket can be made: {error}"))
            })?;
            timeout(START_BOUND, dialled(place, &dial_in)).await
        }
        Reach::Apart => timeout(START_BOUND, dug(place, visits)).await,
    };
    match started {
        Ok(Ok(link)) => Ok(link),
        Ok(Err(NoLink::Engine(Failure::Refused(refusal)))) if !refusal.is_missing() => {
            Err(explain(place, &refusal.message, began).await)
        }
        Ok(Err(NoLink::Engine(failure))) => Err(failure.into()),
        Ok(Err(NoLink::Shim(why))) => Err(explain(place, &why, began).await),
        Err(_) => Err(explain(place, "it was started and did not report", began).await),
    }
}

/// Starts the shim that lies at `path` in a container, in this `role`.
async fn shim(place: InContainer<'_>, path: &str, role: &str) -> Result<Stream, Failure> {
    let argv = [path, "shim", role].map(ToOwned::to_owned).to_vec();
    Instance::create(place, Command { argv, has_stdin: true, ..Command::default() }).await?.attach().await
}

/// Has a shim that dials in.
async fn dialled(place: InContainer<'_>, dial_in: &DialIn) -> Result<OwnedFd, NoLink> {
    let mut stream = shim(place, SHIM, "container").await?;
    // A failed start ends the stream; what is said there is better than what writing to it fails with.
    let _ = stream.write_all(dial_in.order().as_bytes()).await;
    let _ = stream.flush().await;
    tokio::select! {
        // The nonce may arrive in the moment in which the shim lets its output go.
        biased;
        link = dial_in.admit(place.container) => link.map_err(|error| NoLink::Shim(error.to_string())),
        said = said(stream) => match timeout(Duration::from_millis(100), dial_in.admit(place.container)).await {
            Ok(Ok(link)) => Ok(link),
            _ => Err(NoLink::Shim(said)),
        },
    }
}

/// Has a shim at the far end of a tunnel.
async fn dug(place: InContainer<'_>, visits: Option<&Visits>) -> Result<OwnedFd, NoLink> {
    tunnel::open(shim(place, SHIM_APART, "tunnel").await?, place.container, visits).await
}

/// What is said on a stream until its end: the beginning of it.
async fn said(mut stream: Stream) -> String {
    let mut frames = Frames::new(false);
    while stream.read_buf(frames.buffer()).await.is_ok_and(|read| read > 0) {
        frames.buffer().truncate(MAX_SAID_BYTES);
    }
    frames.text()
}

/// Why the shim does not run, by the container's state; `why` is what was said about it.
async fn explain(place: InContainer<'_>, why: &str, began: SystemTime) -> Error {
    let told = || async {
        match state(place).await {
            Ok(state) => explain_state(&state, place.container, why, began),
            Err(error) => error,
        }
    };
    let first = told().await;
    if first.reason() != Reason::ShimUnavailable {
        return first;
    }
    // A container that ended in this moment still counts as running.
    sleep(ENGINE_LAG).await;
    told().await
}

async fn state(InContainer { dockerd, container, .. }: InContainer<'_>) -> Result<State> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Inspected {
        #[serde(default)]
        state: State,
    }
    match dockerd.get::<Inspected>(container, &format!("/containers/{container}/json")).await {
        Ok(found) => Ok(found.state),
        Err(Failure::Refused(refusal)) if refusal.is_missing() => {
            let message = format!("the container {container} is gone");
            Err(Error::new(Reason::BackendStopped, container, message))
        }
        Err(failure) => Err(failure.into()),
    }
}

fn explain_state(state: &State, container: &str, why: &str, began: SystemTime) -> Error {
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
        let state = |running, paused| State { running: Some(running), paused: Some(paused), ..State::default() };
        let began = SystemTime::now();
        let reason = |state: &State| explain_state(state, "c", "why", began).reason();
        assert_eq!(reason(&state(true, true)), Reason::ContainerPaused);
        assert_eq!(reason(&state(false, false)), Reason::BackendStopped);
        assert_eq!(reason(&state(true, false)), Reason::ShimUnavailable);
        let started = |at: SystemTime| State {
            started_at: Some(humantime::format_rfc3339_nanos(at).to_string()),
            ..state(true, false)
        };
        assert_eq!(reason(&started(began - ENGINE_LAG)), Reason::ShimUnavailable);
        assert_eq!(reason(&started(began + ENGINE_LAG)), Reason::BackendStarting);
    }
}
