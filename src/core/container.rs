//! The containers of an extension's services.

use std::time::Duration;

use super::Broker;
use crate::{
    engine::ContainerDetails,
    model::{
        error::{Error, Reason, Result},
        extension::{BackendRecord, Installed},
        reference::ExtensionId,
    },
};

/// What callers of a starting backend are told to wait.
pub(super) const STARTING_RETRY: Duration = Duration::from_millis(500);

/// The container of a service.
#[derive(Debug)]
pub(super) enum BackendContainer {
    /// It exists.
    Found(ContainerDetails),
    /// It was made and is gone, or was never made.
    Missing(String),
}

impl BackendContainer {
    /// The container, where it runs.
    ///
    /// # Errors
    ///
    /// `BACKEND_STOPPED`, `BACKEND_STARTING`, `CONTAINER_PAUSED`.
    pub(super) fn running(self, id: &ExtensionId) -> Result<ContainerDetails> {
        let stopped = |message: String| Error::new(Reason::BackendStopped, id.as_str(), message);
        match self {
            BackendContainer::Missing(service) => {
                Err(stopped(format!("the container of {service} of {id} is gone; disable and enable {id}")))
            }
            BackendContainer::Found(container) => match container.state.as_str() {
                "running" => Ok(container),
                "paused" => {
                    let message = format!("the container {} is paused; unpause it", container.name);
                    Err(Error::new(Reason::ContainerPaused, id.as_str(), message))
                }
                "restarting" => {
                    let message =
                        format!("the container {} is being started again by its restart policy", container.name);
                    Err(starting(id, message))
                }
                "exited" | "dead" => {
                    Err(stopped(format!("{} exited with code {}", container.name, container.exit_code)))
                }
                state => Err(stopped(format!("{} is {state}", container.name))),
            },
        }
    }
}

/// The backend that an extension has.
///
/// # Errors
///
/// `NO_BACKEND`.
pub(super) fn backend_of(installed: &Installed) -> Result<&BackendRecord> {
    let id = &installed.id;
    let none = || Error::new(Reason::NoBackend, id.as_str(), format!("{id} has no backend: no `vm` part"));
    installed.record.backend.as_ref().ok_or_else(none)
}

/// Whether a backend has a service.
///
/// # Errors
///
/// `SERVICE_NOT_FOUND`.
pub(super) fn check_service(id: &ExtensionId, backend: &BackendRecord, service: &str) -> Result<()> {
    if backend.services.iter().any(|known| known == service) {
        return Ok(());
    }
    let message = format!("{id} has no service {service:?}; it has {}", backend.services.join(", "));
    Err(Error::new(Reason::ServiceNotFound, service, message))
}

/// A backend that takes no calls yet.
pub(super) fn starting(id: &ExtensionId, message: String) -> Error {
    Error::new(Reason::BackendStarting, id.as_str(), message).retry_after(STARTING_RETRY)
}

impl Broker {
    /// The container of one of an extension's services, by the ledger.
    pub(super) async fn backend_container(
        &self,
        installed: &Installed,
        backend: &BackendRecord,
        service: &str,
    ) -> Result<BackendContainer> {
        check_service(&installed.id, backend, service)?;
        let ledger = self.store.ledger(Some(&installed.id)).await?;
        for entry in ledger.iter().filter(|e| e.is_backend_of(installed) && e.service == service) {
            if let Some(details) = self.engine.container(&entry.id).await? {
                return Ok(BackendContainer::Found(details));
            }
        }
        Ok(BackendContainer::Missing(service.to_owned()))
    }
}
