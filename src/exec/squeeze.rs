//! Squeezing the process limit of a container: nothing in it can fork until the tree that is being killed is gone.
//!
//! A tree that forks faster than it can be walked ends that way, and no other. What the limit was is written down before
//! it is changed, so that the next start of a killed broker restores it ([`restore_pids_limit`]).

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::{Mutex, watch},
    time::{sleep, timeout},
};

use crate::{
    dockerd::{Dockerd, Failure},
    model::error::Result,
};

/// Where Podman's own API begins, in the oldest version that can change a container.
const PODMAN_API: &str = "/v4.3.0/libpod";

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
    /// Before one begins; it says what is on record then, which is the true limit where an earlier one was not undone.
    pub note: Box<dyn Fn(String, i64) -> BoxFuture<'static, Result<i64>> + Send + Sync>,
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
    dockerd: Dockerd,
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

/// A squeeze that somebody needs; to be released. Neither holding nor releasing may be broken off.
#[derive(Debug)]
pub(super) struct Held<'a>(&'a Squeeze);

impl Squeeze {
    pub(super) fn new(dockerd: &Dockerd, container: String, journal: Option<Arc<SqueezeJournal>>) -> Self {
        let dockerd = dockerd.within(UPDATE_BOUND);
        Squeeze { dockerd, container, journal, state: Mutex::default(), is_free: watch::Sender::new(true) }
    }

    /// Squeezes, or joins those who do; `None` where the engine does not. `begin` is asked just before, and says whether
    /// it is needed still.
    pub(super) async fn hold(&self, begin: impl FnOnce() -> bool) -> Option<Held<'_>> {
        let mut state = self.state.lock().await;
        if state.holders > 0 {
            if !begin() {
                return None;
            }
        } else {
            match self.squeeze(begin).await {
                Ok(Some(limit_before)) => state.limit_before = limit_before,
                Ok(None) => return None,
                Err(error) => {
                    tracing::warn!(container = self.container, %error, "its process limit cannot be squeezed");
                    return None;
                }
            }
        }
        state.holders += 1;
        Some(Held(self))
    }

    /// What the limit was; `None` where it was left.
    async fn squeeze(&self, begin: impl FnOnce() -> bool) -> Result<Option<i64>> {
        let found = limit_of(&self.dockerd, &self.container).await?;
        let limit = match &self.journal {
            Some(journal) => (journal.note)(self.container.clone(), found).await?,
            None => found,
        };
        if !begin() {
            // What an earlier squeeze could not restore stays on record until it is restored.
            if limit == found {
                self.settle().await
            } else {
                self.restore(limit).await
            }
            return Ok(None);
        }
        self.is_free.send_replace(false);
        let squeezed = set_limit(&self.dockerd, &self.container, SQUEEZED).await;
        if squeezed.is_err() {
            // It may have been done all the same.
            self.restore(limit).await;
        }
        squeezed?;
        Ok(Some(limit))
    }

    async fn restore(&self, limit: i64) {
        match restore(&self.dockerd, &self.container, limit).await {
            Ok(()) => self.settle().await,
            Err(error) => {
                tracing::error!(container = self.container, limit, %error, "its process limit is not restored")
            }
        }
        self.is_free.send_replace(true);
    }

    async fn settle(&self) {
        let settled = match &self.journal {
            Some(journal) => (journal.settle)(self.container.clone()).await,
            None => Ok(()),
        };
        if let Err(error) = settled {
            tracing::warn!(container = self.container, %error, "a restored process limit stays on record");
        }
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
/// none.
///
/// # Errors
///
/// `ENGINE_REFUSED`, `ENGINE_UNAVAILABLE`: to be tried again.
pub async fn restore_pids_limit(dockerd: &Dockerd, container: &str, limit: i64) -> Result<()> {
    restore(&dockerd.within(UPDATE_BOUND), container, limit).await
}

async fn restore(dockerd: &Dockerd, container: &str, limit: i64) -> Result<()> {
    let mut tries = 1;
    loop {
        match set_limit(dockerd, container, limit).await {
            Ok(()) => return Ok(()),
            Err(Failure::Refused(refusal)) if refusal.is_missing() => return Ok(()),
            Err(failure) if tries == RESTORE_TRIES => return Err(failure.into()),
            Err(_) => {}
        }
        tries += 1;
        sleep(RESTORE_PAUSE).await;
    }
}

/// What the process limit of a container is; 0 is none.
async fn limit_of(dockerd: &Dockerd, container: &str) -> Result<i64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Inspected {
        host_config: HostConfig,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct HostConfig {
        pids_limit: Option<i64>,
    }
    let found: Inspected = dockerd.get(container, &format!("/containers/{container}/json")).await?;
    Ok(found.host_config.pids_limit.unwrap_or_default().max(0))
}

/// Of Docker's API Podman 4 has no `update`; it has one in its own, which no other engine has.
async fn set_limit(dockerd: &Dockerd, container: &str, limit: i64) -> Result<(), Failure> {
    let path = format!("/containers/{container}/update");
    let missing = match dockerd.post(container, &path, &json!({ "PidsLimit": limit })).await {
        Err(Failure::Refused(refusal)) if refusal.is_missing() => refusal,
        changed => return changed.map(drop),
    };
    let limit = if limit == 0 { -1 } else { limit };
    let change = json!({ "pids": { "limit": limit } });
    match dockerd.post(container, &format!("{PODMAN_API}{path}"), &change).await {
        // The container is gone.
        Err(Failure::Refused(again)) if again.is_missing() => Err(missing.into()),
        changed => changed.map(drop),
    }
}
