//! Squeezing the process limit of a container: nothing in it can fork until the tree that is being killed is gone.
//!
//! A tree that forks faster than it can be walked ends that way, and no other. What the limit was is written down before
//! it is changed, so that the next start of a killed broker restores it ([`restore_pids_limit`]).

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bollard::{Docker, models::ContainerUpdateBody};
use futures_util::future::BoxFuture;
use tokio::{
    sync::{Mutex, watch},
    time::{sleep, timeout},
};

use super::engine::podman_pids_limit;
use crate::model::error::{Error, Reason, Result};

/// Below any number of processes that a container with a shim has: no fork succeeds.
const SQUEEZED: i64 = 1;
/// How long the engine may take over either change.
const UPDATE_BOUND: Duration = Duration::from_secs(10);
/// How often a restore is tried, a little apart, before it is left to the next start.
const RESTORE_TRIES: usize = 5;
/// The pause between these.
const RESTORE_PAUSE: Duration = Duration::from_millis(500);
/// How long a new program waits for the end of a squeeze.
const WAIT_BOUND: Duration = Duration::from_secs(15);

/// Where squeezes are written down: container, and what its limit was (0: none).
pub struct SqueezeJournal {
    /// Before one begins.
    pub note: Box<dyn Fn(String, i64) -> BoxFuture<'static, Result<()>> + Send + Sync>,
    /// When the limit is restored.
    pub settle: Box<dyn Fn(String) -> BoxFuture<'static, Result<()>> + Send + Sync>,
}

impl fmt::Debug for SqueezeJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SqueezeJournal")
    }
}

/// The limit of one container, for all who have to end something in it.
#[derive(Debug)]
pub(super) struct Squeeze {
    docker: Docker,
    /// The engine's socket, where it is known.
    socket: Option<PathBuf>,
    container: String,
    journal: Option<Arc<SqueezeJournal>>,
    state: Mutex<State>,
    /// Whether forks succeed.
    is_free: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    holders: usize,
    limit_before: i64,
}

/// A squeeze that somebody needs; to be released.
#[derive(Debug)]
pub(super) struct Held<'a>(&'a Squeeze);

impl Squeeze {
    pub(super) fn new(
        docker: Docker,
        socket: Option<PathBuf>,
        container: String,
        journal: Option<Arc<SqueezeJournal>>,
    ) -> Self {
        Squeeze { docker, socket, container, journal, state: Mutex::default(), is_free: watch::Sender::new(true) }
    }

    /// Squeezes, or joins those who do; `None` where the engine does not.
    pub(super) async fn hold(&self) -> Option<Held<'_>> {
        let mut state = self.state.lock().await;
        if state.holders == 0 {
            match self.squeeze().await {
                Ok(limit_before) => state.limit_before = limit_before,
                Err(error) => {
                    tracing::warn!(container = self.container, %error, "its process limit cannot be squeezed");
                    return None;
                }
            }
        }
        state.holders += 1;
        Some(Held(self))
    }

    /// What the limit was.
    async fn squeeze(&self) -> Result<i64> {
        let found = timeout(UPDATE_BOUND, self.docker.inspect_container(&self.container, None)).await;
        let found = found.map_err(|_| too_slow(&self.container))?.map_err(|error| refused(&self.container, &error))?;
        let limit = found.host_config.and_then(|config| config.pids_limit).unwrap_or_default().max(0);
        if let Some(journal) = &self.journal {
            (journal.note)(self.container.clone(), limit).await?;
        }
        self.is_free.send_replace(false);
        let squeezed = set_limit(&self.docker, self.socket.as_deref(), &self.container, SQUEEZED).await;
        if squeezed.is_err() {
            // It may have been done all the same.
            self.restore(limit).await;
        }
        squeezed.map(|()| limit)
    }

    async fn restore(&self, limit: i64) {
        match restore_pids_limit(&self.docker, self.socket.as_deref(), &self.container, limit).await {
            Ok(()) => {
                let settled = match &self.journal {
                    Some(journal) => (journal.settle)(self.container.clone()).await,
                    None => Ok(()),
                };
                if let Err(error) = settled {
                    tracing::warn!(container = self.container, %error, "a restored process limit stays on record");
                }
            }
            Err(error) => {
                tracing::error!(container = self.container, limit, %error, "its process limit is not restored")
            }
        }
        self.is_free.send_replace(true);
    }

    /// Completes when forks in the container succeed, or after a while.
    pub(super) async fn free(&self) {
        if !*self.is_free.borrow() {
            let mut is_free = self.is_free.subscribe();
            let _ = timeout(WAIT_BOUND, is_free.wait_for(|is_free| *is_free)).await;
        }
    }
}

impl Held<'_> {
    /// Lets go; the last to do so restores the limit.
    pub(super) async fn release(self) {
        let mut state = self.0.state.lock().await;
        state.holders -= 1;
        if state.holders == 0 {
            self.0.restore(state.limit_before).await;
        }
    }
}

/// Gives a container back the process limit that it had before it was squeezed; 0 is none. A container that is gone needs
/// none. The engine's socket is for what the client cannot ask.
///
/// # Errors
///
/// `ENGINE_REFUSED`, `ENGINE_UNAVAILABLE`: to be tried again.
pub async fn restore_pids_limit(docker: &Docker, socket: Option<&Path>, container: &str, limit: i64) -> Result<()> {
    let mut last = set_limit(docker, socket, container, limit).await;
    for _ in 1..RESTORE_TRIES {
        match last {
            Err(error) if error.reason() != Reason::ResourceNotFound => {
                sleep(RESTORE_PAUSE).await;
                last = set_limit(docker, socket, container, limit).await;
            }
            _ => break,
        }
    }
    match last {
        Err(error) if error.reason() == Reason::ResourceNotFound => Ok(()),
        other => other,
    }
}

async fn set_limit(docker: &Docker, socket: Option<&Path>, container: &str, limit: i64) -> Result<()> {
    let change = ContainerUpdateBody { pids_limit: Some(limit), ..ContainerUpdateBody::default() };
    let changed = timeout(UPDATE_BOUND, docker.update_container(container, change)).await;
    match (changed.map_err(|_| too_slow(container))?.map_err(|error| refused(container, &error)), socket) {
        // The container is gone, or the engine is Podman.
        (Err(error), Some(socket)) if error.reason() == Reason::ResourceNotFound => {
            let changed = timeout(UPDATE_BOUND, podman_pids_limit(socket, container, limit)).await;
            match changed.map_err(|_| too_slow(container))? {
                Err(again) if again.reason() == Reason::ResourceNotFound => Err(error),
                other => other,
            }
        }
        (changed, _) => changed.map(drop),
    }
}

fn refused(container: &str, error: &bollard::errors::Error) -> Error {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code: 404, .. } => {
            Error::new(Reason::ResourceNotFound, container, format!("the container {container} is gone"))
        }
        bollard::errors::Error::DockerResponseServerError { message, .. } => {
            Error::new(Reason::EngineRefused, container, format!("the engine refused: {}", message.trim()))
        }
        error => Error::new(Reason::EngineUnavailable, container, format!("the engine does not answer: {error}")),
    }
}

fn too_slow(container: &str) -> Error {
    Error::new(Reason::EngineUnavailable, container, format!("the engine does not answer within {UPDATE_BOUND:?}"))
}
