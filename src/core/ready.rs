//! Waits until a backend is ready, or will not be.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Broker, InstallPhase, Report,
    container::BackendContainer,
    state::State,
    view::{ContainerView, View},
};
use crate::model::{
    error::{Error, Reason, Result},
    extension::{BackendRecord, Installed},
    labels,
};

/// How often it is looked.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long containers without a socket must have run to count as running.
const SETTLE: Duration = Duration::from_secs(1);
/// How often a backend that has no other service may have ended before it counts as one that will not stay up; the
/// engine waits longer each time, so this takes seconds.
const HOPELESS: i64 = 5;
/// Lines of a dead backend's log that go into the error.
const LOG_LINES: u32 = 20;

/// How waiting for a backend ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    /// It is ready.
    Ready,
    /// The time has passed, and its containers run.
    Late,
}

/// What the engine does about a container that ends.
struct Restarts {
    comes_back: bool,
    count: i64,
    /// It ended with 0 last, and nobody calls it: it may be a job, however often the engine has started it before that
    /// was seen.
    may_be_job: bool,
}

impl Restarts {
    fn is_hopeless(&self) -> bool {
        self.count >= HOPELESS && !self.may_be_job
    }
}

impl Broker {
    /// Waits until the backend is ready. When the time has passed and its containers run, that is enough: it is then
    /// DEGRADED (NO_SOCKET), as many real extensions are that expose a socket which nobody makes.
    ///
    /// # Errors
    ///
    /// `BACKEND_EXITED`.
    pub(super) async fn wait_ready(
        &self,
        installed: &Installed,
        timeout: Duration,
        report: &Report,
    ) -> Result<Readiness> {
        let Some(backend) = installed.record.backend.as_ref().filter(|backend| backend.built) else {
            return Ok(Readiness::Ready);
        };
        report.phase(InstallPhase::Waiting, &backend.service);
        let until = Instant::now() + timeout;
        let mut ready_since = None;
        loop {
            let view = self.look(installed).await?;
            match view.observed.state {
                State::Ready if self.answers(installed, &view).await => {
                    let since = *ready_since.get_or_insert_with(Instant::now);
                    if backend.socket.is_some() || since.elapsed() >= SETTLE.min(timeout) {
                        return Ok(Readiness::Ready);
                    }
                }
                State::Backoff if self.is_job(installed, backend).await? => return Ok(Readiness::Ready),
                State::Failed if !self.restarts(installed).await?.comes_back => {
                    return Err(self.exited(installed, &view).await);
                }
                // One that depends on no other service has no reason to do better at the next try.
                _ if backend.services.len() == 1 && self.restarts(installed).await?.is_hopeless() => {
                    return Err(self.exited(installed, &view).await);
                }
                _ => ready_since = None,
            }
            if Instant::now() >= until {
                let failed = matches!(view.observed.state, State::Failed | State::Backoff);
                // Between two ends it runs; that is not what "running" means.
                let fails = failed || view.observed.state != State::Ready && self.restarts(installed).await?.count > 0;
                return if fails { Err(self.exited(installed, &view).await) } else { Ok(Readiness::Late) };
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// How long a backend is given after its start.
    pub(super) fn ready_timeout(&self, installed: &Installed) -> Duration {
        installed.record.ready_timeout_ms.map_or(self.limits.ready_timeout, Duration::from_millis)
    }

    /// The extension as it is, taken as installed with all that it needs: what was accepted for an update is on record
    /// at its end only.
    async fn look(&self, installed: &Installed) -> Result<View> {
        let mut installed = installed.clone();
        installed.change = None;
        let view = self.view_by_itself(installed).await?;
        self.want_tunnels(&view.containers);
        Ok(view)
    }

    /// Whether a connection can really be made, also where only root may; one that registered says so itself.
    async fn answers(&self, installed: &Installed, view: &View) -> bool {
        let Some(backend) = &installed.record.backend else { return true };
        if let Some(health) = self.health(&installed.id, backend, &view.containers) {
            return health.ready;
        }
        let Some(socket) = &backend.socket else { return true };
        self.dial_socket(installed, backend, socket).await.is_ok()
    }

    /// Whether the backend is a job that its author wants done again and again: it ends with 0, and there is no socket to
    /// call. Where the policy that restarts it is ours, it is left ended instead: every third real image has no command
    /// of its own, and ends at once; the UI in it needs only the docker CLI or the host's programs.
    async fn is_job(&self, installed: &Installed, backend: &BackendRecord) -> Result<bool> {
        if backend.socket.is_some() {
            return Ok(false);
        }
        let container = match self.backend_container(installed, backend, &backend.service).await? {
            BackendContainer::Found(container) if container.state == "restarting" && container.exit_code == 0 => {
                container
            }
            BackendContainer::Found(_) | BackendContainer::Missing(_) => return Ok(false),
        };
        if container.labels.get(labels::RESTART).is_none_or(|whose| whose != labels::RESTART_DEFAULT) {
            return Ok(true);
        }
        // It runs and ends many times a second, and the engine refuses to change it right between the two: the next look
        // tries again.
        if let Err(error) = self.engine.never_restart(&container.id).await {
            tracing::debug!(%error, extension = %installed.id, "a job cannot be left ended yet");
        }
        Ok(false)
    }

    /// What the engine does about a backend that ends.
    async fn restarts(&self, installed: &Installed) -> Result<Restarts> {
        let none = Restarts { comes_back: false, count: 0, may_be_job: false };
        let Some(backend) = &installed.record.backend else { return Ok(none) };
        Ok(match self.backend_container(installed, backend, &backend.service).await? {
            BackendContainer::Missing(_) => none,
            BackendContainer::Found(details) => Restarts {
                comes_back: details.restarts_itself && details.state != "created",
                count: details.restarts,
                may_be_job: backend.socket.is_none() && details.exit_code == 0,
            },
        })
    }

    async fn exited(&self, installed: &Installed, view: &View) -> Error {
        let id = &installed.id;
        let mut message = format!("the backend of {id} did not stay up");
        let service = installed.record.backend.as_ref().map_or("", |backend| &backend.service);
        let ended = |container: &&ContainerView| container.state != "running" && container.exit_code != 0;
        let backend = view.containers.iter().find(|container| container.service == service);
        let dead = backend
            .filter(|container| container.state != "running")
            .or_else(|| view.containers.iter().find(ended))
            .or(backend);
        if !view.observed.message.is_empty() {
            message.push_str(&format!(": {}", view.observed.message));
        }
        if let Some(container) = dead
            && let Ok(log) = self.engine.log_tail(&container.id, LOG_LINES).await
            && !log.is_empty()
        {
            message.push_str(&format!("; the end of its log:\n{log}"));
        }
        Error::new(Reason::BackendExited, id.as_str(), message)
    }
}
