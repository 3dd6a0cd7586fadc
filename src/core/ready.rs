//! Waits until a backend is ready, or will not be.

use std::time::Duration;

use tokio::time::Instant;

use super::{Broker, InstallPhase, Report, start::BackendContainer, state::State, view::View};
use crate::model::{
    error::{Error, Reason, Result},
    extension::Installed,
};

/// How often it is looked.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long containers without a socket must have run to count as running.
const SETTLE: Duration = Duration::from_secs(1);
/// Lines of a dead backend's log that go into the error.
const LOG_LINES: u32 = 20;

impl Broker {
    /// Waits until the backend is ready. When the time has passed and its containers run, that is enough: it is then
    /// DEGRADED (NO_SOCKET), as many real extensions are that expose a socket which nobody makes.
    ///
    /// Errors: BACKEND_EXITED.
    pub(super) async fn wait_ready(&self, installed: &Installed, timeout: Duration, report: &Report) -> Result<()> {
        let Some(backend) = installed.record.backend.as_ref().filter(|backend| backend.built) else { return Ok(()) };
        report.phase(InstallPhase::Waiting, &backend.service);
        let until = Instant::now() + timeout;
        let mut ready_since = None;
        loop {
            let view = self.look(installed).await?;
            match view.observed.state {
                State::Ready if self.answers(installed).await => {
                    let since = *ready_since.get_or_insert_with(Instant::now);
                    if backend.socket.is_some() || since.elapsed() >= SETTLE.min(timeout) {
                        return Ok(());
                    }
                }
                State::Failed if !self.comes_back(installed).await? => return Err(self.exited(installed, &view).await),
                _ => ready_since = None,
            }
            if Instant::now() >= until {
                return match view.observed.state {
                    State::Failed | State::Backoff => Err(self.exited(installed, &view).await),
                    _ => Ok(()),
                };
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The extension as it is, taken as installed.
    async fn look(&self, installed: &Installed) -> Result<View> {
        let mut installed = installed.clone();
        installed.phase = crate::model::extension::Phase::Installed;
        self.view_as(installed).await
    }

    /// Whether a connection can really be made, also where only root may.
    async fn answers(&self, installed: &Installed) -> bool {
        let Some(backend) = &installed.record.backend else { return true };
        let Some(socket) = &backend.socket else { return true };
        self.dial_socket(installed, backend, socket).await.is_ok()
    }

    /// Whether the engine starts the backend again by itself.
    async fn comes_back(&self, installed: &Installed) -> Result<bool> {
        let Some(backend) = &installed.record.backend else { return Ok(false) };
        let container = self.backend_container(installed, backend, &backend.service).await?;
        Ok(
            matches!(container, BackendContainer::Found(details) if details.restarts_itself && details.state != "created"),
        )
    }

    async fn exited(&self, installed: &Installed, view: &View) -> Error {
        let id = &installed.id;
        let mut message = format!("the backend of {id} did not stay up: {}", view.observed.message);
        let dead = view.containers.iter().find(|container| container.state != "running");
        if let Some(container) = dead
            && let Ok(log) = self.engine.log_tail(&container.id, LOG_LINES).await
            && !log.is_empty()
        {
            message.push_str(&format!("; the end of its log:\n{log}"));
        }
        Error::new(Reason::BackendExited, id.as_str(), message)
    }
}
