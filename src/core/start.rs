//! Makes and starts an extension's containers, and puts what was made on the ledger.

use std::{collections::HashMap, time::Duration};

use super::{
    Broker, InstallPhase, Report,
    call::STARTING_RETRY,
    compose::Planned,
    fetched::Fetched,
    ownership::{EXTENSION_LABEL, GENERATION_LABEL, NONCE_LABEL, PROJECT_LABEL, SERVICE_LABEL},
    stage::BackendDraft,
};
use crate::{
    engine::{BackendSpec, ContainerDetails, Volume},
    files::{extension::GenerationDir, guest::GuestDir},
    model::{
        compose::{PluginImage, labels},
        error::{Error, Reason, Result},
        extension::{BackendRecord, Installed, LedgerEntry, ResourceKind},
        grant::Decisions,
        manifest::PLUGIN_IMAGE,
        reference::{ExtensionId, Reference},
    },
    store::now_ms,
};

/// Service name of a backend that is one image; Docker Desktop's container name ends in it (F54).
const IMAGE_SERVICE: &str = "service";
/// Compose waits for services that wait for the health of others; no longer than this, or the ready time-out.
const MIN_COMPOSE_TIME: Duration = Duration::from_secs(120);

/// The container of a service.
#[derive(Debug)]
pub(super) enum BackendContainer {
    /// It exists.
    Found(ContainerDetails),
    /// It was made and is gone, or was never made.
    Missing(String),
}

impl BackendContainer {
    /// The container, where it runs. Errors: BACKEND_STOPPED, BACKEND_STARTING, CONTAINER_PAUSED.
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
                    Err(Error::new(Reason::BackendStarting, id.as_str(), message).retry_after(STARTING_RETRY))
                }
                "exited" | "dead" => {
                    Err(stopped(format!("{} exited with code {}", container.name, container.exit_code)))
                }
                state => Err(stopped(format!("{} is {state}", container.name))),
            },
        }
    }
}

/// What is about to be made for a backend.
pub(super) struct Blueprint {
    backend: BackendRecord,
    kind: BlueprintKind,
    names: Names,
}

/// Names of containers, networks and volumes that will exist.
#[derive(Default)]
struct Names {
    containers: Vec<String>,
    networks: Vec<String>,
    volumes: Vec<String>,
}

enum BlueprintKind {
    Image(String),
    Compose { docker_host_image: String },
}

impl Broker {
    /// The container of one of an extension's services, by the ledger.
    pub(super) async fn backend_container(
        &self,
        installed: &Installed,
        backend: &BackendRecord,
        service: &str,
    ) -> Result<BackendContainer> {
        if !backend.services.iter().any(|known| known == service) {
            let known = backend.services.join(", ");
            let message = format!("{} has no service {service:?}; it has {known}", installed.id);
            return Err(Error::new(Reason::ServiceNotFound, service, message));
        }
        let ledger = self.store.ledger(Some(&installed.id)).await?;
        for entry in ledger.iter().filter(|e| e.kind == ResourceKind::Container && e.service == service) {
            if let Some(details) = self.engine.container(&entry.id).await? {
                return Ok(BackendContainer::Found(details));
            }
        }
        Ok(BackendContainer::Missing(service.to_owned()))
    }

    /// Works out what a backend will be made of, and brings the images it needs. `None` where its image was never built.
    pub(super) async fn blueprint(
        &self,
        installed: &Installed,
        draft: &BackendDraft,
        decisions: &Decisions,
        files: &GenerationDir,
        fetched: &mut Fetched,
        report: &Report,
    ) -> Result<Option<Blueprint>> {
        let id = &installed.id;
        let record = &installed.record;
        let socket = record.backend.as_ref().and_then(|backend| backend.socket.clone());
        let project = id.project();
        match draft {
            BackendDraft::Image(image) => {
                let image = match (image.as_str(), &record.image_id) {
                    (PLUGIN_IMAGE, None) => return Ok(None),
                    (PLUGIN_IMAGE, Some(own)) => own.clone(),
                    (other, _) => self.bring_image(other, fetched, report).await?,
                };
                let services = vec![IMAGE_SERVICE.to_owned()];
                let backend = BackendRecord {
                    project: project.clone(),
                    service: IMAGE_SERVICE.into(),
                    socket,
                    services,
                    built: true,
                };
                Ok(Some(Blueprint {
                    backend,
                    kind: BlueprintKind::Image(image),
                    names: Names {
                        containers: vec![format!("{project}-{IMAGE_SERVICE}")],
                        networks: vec![format!("{project}_default")],
                        volumes: vec![],
                    },
                }))
            }
            BackendDraft::Compose(prepass) => {
                if record.image_id.is_none() && !prepass.plugin_services.is_empty() {
                    return Ok(None);
                }
                let image = PluginImage { reference: record.reference.clone(), id: record.image_id.clone() };
                let (title, generation) = (&record.title, installed.generation);
                let planned = Planned { id, title, generation, nonce: &record.nonce, image, decisions };
                let plan = self.plan(&planned, prepass, &files.compose()).await?;
                for image in &plan.images {
                    self.bring_image(image, fetched, report).await?;
                }
                files.write_private("compose.json", plan.file.to_string().as_bytes())?;
                Ok(Some(Blueprint {
                    backend: BackendRecord {
                        project,
                        service: plan.backend_service,
                        socket,
                        services: plan.services.into_iter().map(|service| service.name).collect(),
                        built: true,
                    },
                    kind: BlueprintKind::Compose { docker_host_image: record.reference.clone() },
                    names: Names { containers: plan.container_names, networks: plan.networks, volumes: plan.volumes },
                }))
            }
        }
    }

    /// Has an image in the engine, pulling it where it is missing, and returns its id.
    async fn bring_image(&self, name: &str, fetched: &mut Fetched, report: &Report) -> Result<String> {
        if let Some(image) = self.engine.image(name).await? {
            return Ok(image.id);
        }
        let reference: Reference = name.parse()?;
        Ok(self.pull(&reference, true, fetched, report).await?.id)
    }

    /// Makes and starts what a blueprint says; `installed` remembers what it will be made of before anything is made.
    pub(super) async fn build(
        &self,
        installed: &mut Installed,
        blueprint: Blueprint,
        ready_timeout: Duration,
        report: &Report,
    ) -> Result<()> {
        self.sweep_late().await?;
        self.check_names(installed, &blueprint.backend.project, &blueprint.names).await?;
        let existing = self.engine.volumes().await?;
        let is_new = |name: &&String| !existing.iter().any(|volume| volume.name == **name);
        installed.record.made_volumes = blueprint.names.volumes.iter().filter(is_new).cloned().collect();
        installed.record.backend = Some(blueprint.backend.clone());
        self.store.save(installed).await?;
        report.phase(InstallPhase::Starting, &blueprint.backend.project);
        self.clear_stale_socket(installed);
        let started = match &blueprint.kind {
            BlueprintKind::Image(image) => self.create_single(installed, &blueprint, image).await,
            BlueprintKind::Compose { docker_host_image } => {
                self.compose_up(installed, docker_host_image, ready_timeout).await
            }
        };
        // Whatever was made goes on the ledger, also when the rest failed.
        let recorded = self.record_made(installed, &blueprint.names.volumes, &existing).await;
        started.and(recorded)
    }

    /// Starts again what was built before.
    pub(super) async fn start_built(&self, installed: &Installed) -> Result<()> {
        let Some(backend) = installed.record.backend.as_ref().filter(|backend| backend.built) else { return Ok(()) };
        let container = self.backend_container(installed, backend, &backend.service).await?;
        // One that runs listens on it.
        if container.running(&installed.id).is_err() {
            self.clear_stale_socket(installed);
        }
        let files = self.layout.extension(&installed.id).generation(installed.generation.unsigned_abs());
        if files.compose_file().is_file() {
            // Somebody may have come since it was installed, whom Compose would take for ours.
            self.check_names(installed, &backend.project, &Names::default()).await?;
            let existing = self.engine.volumes().await?;
            self.compose_up(installed, &installed.record.reference, self.limits.ready_timeout).await?;
            let ledger = self.store.ledger(Some(&installed.id)).await?;
            let volumes = ledger.into_iter().filter(|entry| entry.kind == ResourceKind::Volume && entry.keep);
            return self.record_made(installed, &volumes.map(|entry| entry.name).collect::<Vec<_>>(), &existing).await;
        }
        match self.backend_container(installed, backend, &backend.service).await? {
            BackendContainer::Found(container) => self.engine.start(&container.id).await,
            BackendContainer::Missing(service) => {
                let message =
                    format!("the container of {service} is gone; uninstall {} and install it again", installed.id);
                Err(Error::new(Reason::BackendStopped, installed.id.as_str(), message))
            }
        }
    }

    async fn compose_up(&self, installed: &Installed, image: &str, ready_timeout: Duration) -> Result<()> {
        let id = &installed.id;
        let files = self.layout.extension(id).generation(installed.generation.unsigned_abs());
        let environment = self.compose_environment(image, &Default::default(), &Decisions::default());
        let limit = ready_timeout.max(MIN_COMPOSE_TIME);
        let compose = self.compose().await?;
        let (file, directory, project) = (files.compose_file(), files.compose(), id.project());
        let text = std::fs::read(&file).unwrap_or_default();
        let links = serde_json::from_slice(&text).is_ok_and(|planned| labels::has_links(&planned));
        let up = async {
            if links {
                compose.up(&file, &directory, &project, &environment, false).await?;
                self.lay_links(installed).await?;
            }
            compose.up(&file, &directory, &project, &environment, true).await
        };
        tokio::time::timeout(limit, up).await.unwrap_or_else(|_| {
            let message = format!("the services of {id} did not start within {} s", limit.as_secs());
            Err(Error::new(Reason::ComposeFailed, id.as_str(), message))
        })
    }

    /// `vm.image`: one container, with the labels Compose would give it.
    async fn create_single(&self, installed: &Installed, blueprint: &Blueprint, image: &str) -> Result<()> {
        let directory = self.layout.extension(&installed.id);
        let project = &blueprint.backend.project;
        let own = own_labels(installed);
        let compose = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            let compose = pairs.iter().map(|(key, value)| (format!("com.docker.compose.{key}"), (*value).to_owned()));
            compose.chain(own.clone()).collect()
        };
        let network = format!("{project}_default");
        self.engine.create_network(&network, compose(&[("project", project), ("network", "default")])).await?;
        let mut labels = compose(&[
            ("project", project),
            ("service", IMAGE_SERVICE),
            ("container-number", "1"),
            ("oneoff", "False"),
            ("project.config_files", ""),
            ("project.working_dir", &directory.path().to_string_lossy()),
        ]);
        labels.insert("com.docker.desktop.extension".into(), "true".into());
        labels.insert("com.docker.desktop.extension.name".into(), installed.record.title.clone());
        labels.insert(labels::RESTART.into(), labels::RESTART_DEFAULT.into());
        let container = self
            .engine
            .create_backend(BackendSpec {
                name: format!("{project}-{IMAGE_SERVICE}"),
                image: image.to_owned(),
                labels,
                network,
                service: IMAGE_SERVICE.into(),
                guest_dir: directory.guest(),
                broker_dir: directory.broker(),
            })
            .await?;
        self.engine.start(&container).await
    }

    /// A socket file that a stopped backend left would make one that does not unlink it fail.
    fn clear_stale_socket(&self, installed: &Installed) {
        let Some(socket) = installed.record.backend.as_ref().and_then(|backend| backend.socket.as_deref()) else {
            return;
        };
        let guest = self.layout.extension(&installed.id).guest();
        let cleared = GuestDir::open(&guest).and_then(|guest| {
            guest.clear_stale_socket(socket).map_err(|e| Error::new(Reason::FileFailed, socket, e.to_string()))
        });
        if let Err(error) = cleared {
            tracing::debug!(%error, extension = %installed.id, "a stale socket stays");
        }
    }

    /// Puts what carries this install's nonce on the ledger. Of the volumes those that were not there `before`, and those
    /// that are on it already: a label is a claim and no more.
    async fn record_made(&self, installed: &Installed, volumes: &[String], before: &[Volume]) -> Result<()> {
        let ledger = self.store.ledger(Some(&installed.id)).await?;
        let is_ours = |name: &str| {
            !before.iter().any(|volume| volume.name == name)
                || ledger.iter().any(|entry| entry.kind == ResourceKind::Volume && entry.id == name)
        };
        let entry = |kind, id: &str, name: &str, service: &str, keep| LedgerEntry {
            kind,
            id: id.to_owned(),
            name: name.to_owned(),
            extension: installed.id.to_string(),
            generation: installed.generation,
            service: service.to_owned(),
            keep,
            first_seen_ms: now_ms(),
        };
        let mut made = Vec::new();
        for container in self.engine.containers(&[nonce_label(installed)]).await? {
            let service = container.labels.get(SERVICE_LABEL).map_or("", String::as_str);
            made.push(entry(ResourceKind::Container, &container.id, &container.name, service, false));
            let details = self.engine.container(&container.id).await?;
            for mounted in details.into_iter().flat_map(|details| details.mounts) {
                let volume = &mounted.volume;
                if is_anonymous(volume) && !volumes.contains(volume) && is_ours(volume) {
                    made.push(entry(ResourceKind::Volume, &mounted.volume, &mounted.volume, service, false));
                }
            }
        }
        for network in self.engine.networks().await? {
            if network.labels.get(NONCE_LABEL) == Some(&installed.record.nonce) {
                made.push(entry(ResourceKind::Network, &network.id, &network.name, "", false));
            }
        }
        for volume in self.engine.volumes().await? {
            let ours = volume.labels.get(EXTENSION_LABEL).is_some_and(|id| id == installed.id.as_str());
            if ours && volumes.contains(&volume.name) && is_ours(&volume.name) {
                made.push(entry(ResourceKind::Volume, &volume.name, &volume.name, "", true));
            }
        }
        self.store.record(made).await
    }

    /// Compose selects by label: whatever carries the project's name and is not ours would be taken over or removed by
    /// it. So it must not be there (design section 5). Volumes that this extension left are its own.
    async fn check_names(&self, installed: &Installed, project: &str, names: &Names) -> Result<()> {
        let of_project = |labels: &HashMap<String, String>| labels.get(PROJECT_LABEL).is_some_and(|of| of == project);
        let ledger = self.store.ledger(Some(&installed.id)).await?;
        let ours = |kind, id: &str| ledger.iter().any(|entry| entry.kind == kind && entry.id == id);
        let mut taken = Vec::new();
        for c in self.engine.containers(&[]).await? {
            if (of_project(&c.labels) || names.containers.contains(&c.name)) && !ours(ResourceKind::Container, &c.id) {
                taken.push(format!("container {}", c.name));
            }
        }
        for n in self.engine.networks().await? {
            if (of_project(&n.labels) || names.networks.contains(&n.name)) && !ours(ResourceKind::Network, &n.id) {
                taken.push(format!("network {}", n.name));
            }
        }
        for v in self.engine.volumes().await? {
            let named = v.name.starts_with(&format!("{project}_")) || names.volumes.contains(&v.name);
            let left = v.labels.get(EXTENSION_LABEL).is_some_and(|id| id == installed.id.as_str());
            if (of_project(&v.labels) || named) && !left && !ours(ResourceKind::Volume, &v.name) {
                taken.push(format!("volume {}", v.name));
            }
        }
        if taken.is_empty() {
            return Ok(());
        }
        let message = format!(
            "{} would use the project name {project}, and these belong to somebody else: {}; rename or remove them",
            installed.id,
            taken.join(", ")
        );
        Err(Error::new(Reason::ProjectNameTaken, project, message))
    }
}

/// Labels that mark what is made for an extension.
fn own_labels(installed: &Installed) -> Vec<(String, String)> {
    vec![
        (EXTENSION_LABEL.into(), installed.id.to_string()),
        (GENERATION_LABEL.into(), installed.generation.to_string()),
        (NONCE_LABEL.into(), installed.record.nonce.clone()),
    ]
}

/// The filter for what one install made.
pub(super) fn nonce_label(installed: &Installed) -> String {
    format!("{NONCE_LABEL}={}", installed.record.nonce)
}

/// The engine names volumes that nobody named with 64 hexadecimal digits.
pub(super) fn is_anonymous(volume: &str) -> bool {
    volume.len() == 64 && volume.bytes().all(|byte| byte.is_ascii_hexdigit())
}
