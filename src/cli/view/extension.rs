//! An installed extension.

use serde::Serialize;

use super::resource::shortened;
use crate::{cli::text::enum_name, pb};

/// An installed extension, as observed when asked.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct ExtensionView {
    pub(in crate::cli) id: String,
    pub(in crate::cli) reference: String,
    pub(in crate::cli) version: String,
    pub(in crate::cli) image_id: String,
    pub(in crate::cli) generation: i64,
    pub(in crate::cli) title: String,
    pub(in crate::cli) description: String,
    pub(in crate::cli) vendor: String,
    pub(in crate::cli) state: String,
    pub(in crate::cli) state_reason: String,
    pub(in crate::cli) state_message: String,
    pub(in crate::cli) enabled: bool,
    pub(in crate::cli) ui: Option<UiView>,
    pub(in crate::cli) backend: Option<BackendView>,
    pub(in crate::cli) host_binaries: Vec<String>,
    pub(in crate::cli) installed_at: Option<String>,
    pub(in crate::cli) warnings: Vec<String>,
    pub(in crate::cli) registrations: Vec<RegistrationView>,
    pub(in crate::cli) registration_socket: String,
}

/// A backend that has registered.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct RegistrationView {
    /// Empty for the host.
    pub(in crate::cli) service: String,
    /// Empty for the host.
    pub(in crate::cli) container_id: String,
    pub(in crate::cli) epoch: i64,
    pub(in crate::cli) instance: String,
    pub(in crate::cli) software: String,
    pub(in crate::cli) endpoints: Vec<String>,
    pub(in crate::cli) ready: bool,
    pub(in crate::cli) message: String,
}

/// The UI part.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct UiView {
    pub(in crate::cli) title: String,
    pub(in crate::cli) root_dir: String,
    pub(in crate::cli) entry: String,
    pub(in crate::cli) icon_path: String,
}

/// The container part.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct BackendView {
    pub(in crate::cli) project: String,
    pub(in crate::cli) service: String,
    pub(in crate::cli) socket: String,
    pub(in crate::cli) attached: bool,
    pub(in crate::cli) containers: Vec<ContainerView>,
}

/// One container.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct ContainerView {
    pub(in crate::cli) id: String,
    pub(in crate::cli) name: String,
    pub(in crate::cli) service: String,
    pub(in crate::cli) state: String,
    pub(in crate::cli) exit_code: i32,
}

impl ExtensionView {
    /// The state with its reason: `degraded (NO_SOCKET)`.
    pub(in crate::cli) fn state_text(&self) -> String {
        if self.state_reason.is_empty() {
            return self.state.clone();
        }
        format!("{} ({})", self.state, self.state_reason)
    }

    /// The backend in a word: `-`, `attached`, or how many of its containers run.
    pub(in crate::cli) fn backend_text(&self) -> String {
        let Some(backend) = &self.backend else { return "-".into() };
        if backend.attached {
            return "attached".into();
        }
        let running = backend.containers.iter().filter(|container| container.state == "running").count();
        format!("{running}/{} running", backend.containers.len())
    }
}

impl From<pb::Extension> for ExtensionView {
    fn from(it: pb::Extension) -> Self {
        ExtensionView {
            state: enum_name(it.state().as_str_name(), "EXTENSION_STATE_"),
            id: it.id,
            reference: it.reference,
            version: it.version,
            image_id: it.image_id,
            generation: it.generation,
            title: it.title,
            description: it.description,
            vendor: it.vendor,
            state_reason: it.state_reason,
            state_message: it.state_message,
            enabled: it.enabled,
            ui: it.ui.map(UiView::from),
            backend: it.backend.map(BackendView::from),
            host_binaries: it.host_binaries,
            installed_at: it.installed_at.map(|at| at.to_string()),
            warnings: it.warnings,
            registrations: it.registrations.into_iter().map(RegistrationView::from).collect(),
            registration_socket: it.registration_socket,
        }
    }
}

impl From<pb::Registration> for RegistrationView {
    fn from(it: pb::Registration) -> Self {
        RegistrationView {
            service: it.service,
            container_id: it.container_id,
            epoch: it.epoch,
            instance: it.instance,
            software: it.software,
            endpoints: it.endpoints,
            ready: it.ready,
            message: it.message,
        }
    }
}

impl RegistrationView {
    /// Who it is, what it offers and how it is, in a line.
    pub(in crate::cli) fn text(&self) -> String {
        let who = match (self.service.as_str(), shortened(&self.container_id)) {
            ("", None) => "a process on this machine".to_owned(),
            ("", Some(container)) => format!("container {container}"),
            (service, _) => format!("service {service}"),
        };
        let offers = if self.endpoints.is_empty() { "nothing".to_owned() } else { self.endpoints.join(", ") };
        let colon = if self.message.is_empty() { "" } else { ": " };
        let health = if self.ready { "" } else { ", not ready" };
        format!("{who} offers {offers}{health}{colon}{}", self.message)
    }
}

impl From<pb::UserInterface> for UiView {
    fn from(it: pb::UserInterface) -> Self {
        UiView { title: it.title, root_dir: it.root_dir, entry: it.entry, icon_path: it.icon_path }
    }
}

impl From<pb::Backend> for BackendView {
    fn from(it: pb::Backend) -> Self {
        BackendView {
            project: it.project,
            service: it.service,
            socket: it.socket,
            attached: it.attached,
            containers: it.containers.into_iter().map(ContainerView::from).collect(),
        }
    }
}

impl From<pb::BackendContainer> for ContainerView {
    fn from(it: pb::BackendContainer) -> Self {
        ContainerView { id: it.id, name: it.name, service: it.service, state: it.state, exit_code: it.exit_code }
    }
}
