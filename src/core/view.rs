//! An installed extension as it is seen when asked.

use std::{collections::HashMap, time::Duration};

use super::{
    Broker,
    call::is_young,
    catalogue::{Object, ObjectKey},
    leases::HeldLease,
    state::{BackendFacts, ContainerFacts, Facts, Observed, SocketFacts, observe},
};
use crate::{
    files::guest::{DialError, GuestDir},
    model::{
        error::Result,
        extension::{BackendRecord, Installed, LedgerEntry, ResourceKind},
        grant::{Grant, Need},
        labels,
        reference::ExtensionId,
        registration::Health,
    },
};

/// How long a look through a tunnel may take.
const LOOK_BOUND: Duration = Duration::from_secs(2);

/// An installed extension and what was observed of it.
#[derive(Debug, Clone)]
pub struct View {
    /// What is on record.
    pub installed: Installed,
    /// What it does.
    pub observed: Observed,
    /// Its containers.
    pub containers: Vec<ContainerView>,
    /// What is registered, the host's first.
    pub registered: Vec<HeldLease>,
    /// The socket at which a process on the host registers.
    pub registration_socket: Option<String>,
    /// Its UI, where it has one.
    pub ui: Option<UiView>,
}

/// One container of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerView {
    /// Full id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Service.
    pub service: String,
    /// State as the engine names it, or `missing`.
    pub state: String,
    /// Exit code of its last run.
    pub exit_code: i64,
}

/// Where a UI's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UiView {
    /// Title of the tab.
    pub title: String,
    /// Directory of its files.
    pub root_dir: String,
    /// Entry page, relative to it.
    pub entry: String,
    /// Icon file, or empty.
    pub icon_path: String,
}

/// What the engine said about all containers of extensions, asked once for a whole list.
type Seen = Result<HashMap<String, Object>, String>;

impl Broker {
    /// One installed extension.
    ///
    /// # Errors
    ///
    /// `EXTENSION_NOT_FOUND`.
    pub async fn view(&self, id: &ExtensionId) -> Result<View> {
        let view = self.view_as(self.installed(id).await?).await?;
        self.events.tell_observed(&view.installed, &view.observed, false);
        Ok(view)
    }

    /// An extension as if it were on record like this.
    pub(super) async fn view_as(&self, installed: Installed) -> Result<View> {
        let missing = self.missing_grants(&installed).await?;
        let seen = self.seen_of(&installed).await;
        let attached = self.registrations.host(&installed.id).is_some();
        self.view_of(installed, &missing, &seen, attached).await
    }

    /// The same, if nothing that it needs were missing, and nobody stood in for its containers.
    pub(super) async fn view_by_itself(&self, installed: Installed) -> Result<View> {
        let seen = self.seen_of(&installed).await;
        self.view_of(installed, &[], &seen, false).await
    }

    async fn seen_of(&self, installed: &Installed) -> Seen {
        self.seen(&format!("{}={}", labels::EXTENSION, installed.id), &[installed]).await
    }

    async fn missing_grants(&self, installed: &Installed) -> Result<Vec<Need>> {
        Ok(self.decisions(&installed.id).await?.missing(&installed.record.needs()))
    }

    /// Up to `limit` installed extensions behind `after`, ordered by id.
    pub async fn views(&self, after: &str, limit: usize) -> Result<Vec<View>> {
        let all = self.store.extensions(after, limit).await?;
        let seen = match self.catalogue.all(|kind| kind == ResourceKind::Container) {
            Some(known) => Ok(known.into_iter().map(|((_, id), object)| (id, object)).collect()),
            None => self.seen(labels::EXTENSION, &all.iter().collect::<Vec<_>>()).await,
        };
        let mut views = Vec::with_capacity(all.len());
        for installed in all {
            let missing = self.missing_grants(&installed).await?;
            let attached = self.registrations.host(&installed.id).is_some();
            let view = self.view_of(installed, &missing, &seen, attached).await?;
            self.events.tell_observed(&view.installed, &view.observed, false);
            views.push(view);
        }
        Ok(views)
    }

    /// Asks the engine, unless nothing that is listed has containers.
    async fn seen(&self, label: &str, listed: &[&Installed]) -> Seen {
        if !listed.iter().any(|installed| installed.record.backend.as_ref().is_some_and(|backend| backend.built)) {
            return Ok(HashMap::new());
        }
        let asked = self.catalogue.now();
        let containers = self.engine.containers(&[label.to_owned()]).await.map_err(|error| error.to_string())?;
        let found: Vec<(ObjectKey, Object)> = containers.into_iter().map(Into::into).collect();
        // Whoever is told this and lists next shall not hear something older.
        self.catalogue.refresh(asked, found.clone());
        Ok(found.into_iter().map(|((_, id), object)| (id, object)).collect())
    }

    async fn view_of(&self, installed: Installed, missing: &[Need], seen: &Seen, attached: bool) -> Result<View> {
        let (of_backend, of_programs): (Vec<&Need>, Vec<&Need>) = missing.iter().partition(|need| is_of_backend(need));
        let mut containers = Vec::new();
        let backend = match &installed.record.backend {
            None => None,
            Some(backend) => {
                let found = self.containers_of(&installed, seen).await?;
                let health = match self.registrations.host(&installed.id).filter(|_| attached) {
                    Some(host) => Some(host.hello.health),
                    None => found.as_ref().ok().and_then(|found| self.health(&installed.id, backend, found)),
                };
                let found_or = found.as_deref().map_err(Clone::clone);
                let known = (attached, health);
                let facts = self.backend_facts(&installed, backend, found_or, known).await;
                containers = found.unwrap_or_default();
                Some(facts)
            }
        };
        let facts = Facts {
            changing: installed.changing(),
            enabled: installed.enabled,
            granted: of_backend.is_empty(),
            lacking: of_programs.iter().map(|need| need.grant.to_string()).collect(),
            backend,
        };
        let observed = observe(&facts);
        let ui = self.ui_view(&installed);
        let registered = self.registrations.of(&installed.id);
        let registration_socket = self.extension_sockets.path(&installed.id);
        let registration_socket = registration_socket.map(|path| self.path_for_user(&installed.id, path));
        Ok(View { installed, observed, containers, registered, registration_socket, ui })
    }

    /// How the backend's service says it is, if one of these containers has registered for it. What others say, such as
    /// another service or an older generation, says nothing of it.
    pub(super) fn health(
        &self,
        id: &ExtensionId,
        backend: &BackendRecord,
        containers: &[ContainerView],
    ) -> Option<Health> {
        let of_service = containers.iter().filter(|container| container.service == backend.service);
        let ids: Vec<&str> = of_service.map(|container| container.id.as_str()).collect();
        self.registrations.health(id, &backend.service, &ids)
    }

    /// The containers on the ledger, in the author's order of services.
    async fn containers_of(
        &self,
        installed: &Installed,
        seen: &Seen,
    ) -> Result<std::result::Result<Vec<ContainerView>, String>> {
        let seen = match seen {
            Ok(seen) => seen,
            Err(why) => return Ok(Err(why.clone())),
        };
        let mut all = Vec::new();
        let ledger = self.store.ledger(Some(&installed.id)).await?;
        for entry in ledger.into_iter().filter(|entry| entry.is_backend_of(installed)) {
            let LedgerEntry { id, name, service, .. } = entry;
            let state = seen.get(&id).map_or("missing".to_owned(), |container| container.state.clone());
            let exit_code = match state.as_str() {
                "exited" | "dead" | "restarting" => match seen.get(&id).and_then(|container| container.exit_code) {
                    Some(code) => code,
                    None => match self.engine.container(&id).await {
                        Ok(details) => details.map_or(0, |details| details.exit_code),
                        Err(error) => return Ok(Err(error.to_string())),
                    },
                },
                _ => 0,
            };
            all.push(ContainerView { id, name, service, state, exit_code });
        }
        let order = installed.record.backend.as_ref().map(|backend| backend.services.clone()).unwrap_or_default();
        all.sort_by_key(|container| order.iter().position(|service| *service == container.service));
        Ok(Ok(all))
    }

    async fn backend_facts(
        &self,
        installed: &Installed,
        backend: &BackendRecord,
        containers: std::result::Result<&[ContainerView], String>,
        (attached, health): (bool, Option<Health>),
    ) -> BackendFacts {
        let is_seen = containers.is_ok() && backend.built;
        let socket = match (&health, &backend.socket) {
            // What it says itself is the last word.
            (Some(Health { ready: true, .. }), _) if is_seen => Some(SocketFacts::Answers),
            (Some(Health { ready: false, .. }), _) if is_seen => Some(self.while_silent(installed, backend).await),
            (None, Some(socket)) if is_seen => Some(self.socket_facts(installed, backend, socket).await),
            _ => None,
        };
        let facts = |container: &ContainerView| ContainerFacts {
            service: container.service.clone(),
            is_backend: container.service == backend.service,
            state: container.state.clone(),
            exit_code: container.exit_code,
        };
        BackendFacts {
            attached,
            health,
            built: backend.built,
            containers: containers.map(|containers| containers.iter().map(facts).collect()),
            socket,
        }
    }

    /// Whether the socket takes connections. One that only the container's root may use counts as answering: Install saw
    /// it answer, and a look from inside the container is too dear for a list.
    async fn socket_facts(&self, installed: &Installed, backend: &BackendRecord, socket: &str) -> SocketFacts {
        if self.is_apart() {
            let dialled = tokio::time::timeout(LOOK_BOUND, self.dial_socket(installed, backend, socket)).await;
            return match dialled {
                Ok(Ok(_)) => SocketFacts::Answers,
                _ => self.while_silent(installed, backend).await,
            };
        }
        let guest = self.layout.extension(&installed.id).guest();
        let dialled = GuestDir::open(&guest).map(|guest| guest.dial(socket));
        if let Ok(Ok(_) | Err(DialError::Denied | DialError::Busy)) = dialled {
            return SocketFacts::Answers;
        }
        self.while_silent(installed, backend).await
    }

    /// What to make of a backend that takes no calls: it is given time from its start on.
    async fn while_silent(&self, installed: &Installed, backend: &BackendRecord) -> SocketFacts {
        match self.backend_container(installed, backend, &backend.service).await {
            Ok(super::container::BackendContainer::Found(container))
                if is_young(&container.started_at, self.ready_timeout(installed)) =>
            {
                SocketFacts::Young
            }
            _ => SocketFacts::Silent,
        }
    }

    fn ui_view(&self, installed: &Installed) -> Option<UiView> {
        let ui = installed.record.ui.as_ref()?;
        let files = self.layout.extension(&installed.id).generation(installed.generation.unsigned_abs());
        let icon = ui.icon.as_ref().map(|name| files.icon().join(name).display().to_string());
        Some(UiView {
            title: ui.title.clone(),
            root_dir: files.ui().display().to_string(),
            entry: ui.entry.clone(),
            icon_path: icon.unwrap_or_default(),
        })
    }
}

/// What the containers of an extension need; its host programs are asked about when they run.
pub(super) fn backend_needs(installed: &Installed) -> Vec<Need> {
    let mut needs = installed.record.needs();
    needs.retain(is_of_backend);
    needs
}

fn is_of_backend(need: &Need) -> bool {
    !matches!(need.grant, Grant::HostExec(_) | Grant::HostExecAny)
}
