//! Makes and starts an extension's containers, and puts what was made on the ledger.

use std::{collections::HashMap, time::Duration};

use super::{
    Broker, InstallPhase, Report,
    call::STARTING_RETRY,
    catalogue,
    compose::Planned,
    fetched::Fetched,
    ownership::{EXTENSION_LABEL, GENERATION_LABEL, NONCE_LABEL, PROJECT_LABEL, SERVICE_LABEL},
    proof::proof,
    stage::BackendDraft,
};
use crate::{
    engine::{BackendSpec, ContainerDetails, Volume},
    files::{extension::GenerationDir, guest::GuestDir},
    model::{
        compose::{PluginImage, labels},
        error::{Error, Reason, Result},
        extension::{BackendRecord, Installed, LedgerEntry, Maker, OwnerSource, ResourceKind},
        grant::Decisions,
        manifest::PLUGIN_IMAGE,
        reference::{ExtensionId, Reference},
        signature::Mark,
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

/// What is about to be made, and what was there before.
pub(super) struct Prepared {
    blueprint: Blueprint,
    before: Vec<Volume>,
}

enum BlueprintKind {
    Image,
    Compose,
}

/// A backend that is one container.
fn single(project: String, socket: Option<String>, image: String) -> Blueprint {
    Blueprint {
        kind: BlueprintKind::Image,
        names: Names {
            containers: vec![format!("{project}-{IMAGE_SERVICE}")],
            networks: vec![default_network(&project)],
            volumes: vec![],
        },
        backend: BackendRecord {
            project,
            service: IMAGE_SERVICE.into(),
            socket,
            services: vec![IMAGE_SERVICE.into()],
            image: Some(image),
            built: true,
            lasting: vec![],
        },
    }
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
        for entry in ledger.iter().filter(|e| e.is_backend_of(installed) && e.service == service) {
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
                Ok(Some(single(project, socket, image)))
            }
            BackendDraft::Compose(prepass) => {
                if record.image_id.is_none() && !prepass.plugin_services.is_empty() {
                    return Ok(None);
                }
                let image = PluginImage { reference: record.reference.clone(), id: record.image_id.clone() };
                let (title, generation) = (&record.title, installed.generation);
                let planned = Planned {
                    id,
                    title,
                    generation,
                    nonce: &record.nonce,
                    network_nonce: &record.network_nonce,
                    image,
                    decisions,
                };
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
                        image: None,
                        built: true,
                        lasting: vec![],
                    },
                    kind: BlueprintKind::Compose,
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

    /// Has `installed` remember what will be made of it before anything is made, and makes sure that nobody is in the
    /// way. Errors: PROJECT_NAME_TAKEN, ENGINE_UNAVAILABLE.
    pub(super) async fn prepare(&self, installed: &mut Installed, blueprint: Blueprint) -> Result<Prepared> {
        self.sweep_late(Some(&installed.id)).await?;
        self.check_names(installed, &blueprint.backend.project, &blueprint.names).await?;
        let before = self.engine.volumes().await?;
        let networks = self.engine.networks().await?;
        let names = &blueprint.names;
        let new_volume = |name: &&String| !before.iter().any(|volume| volume.name == **name);
        let new_network = |name: &&String| !networks.iter().any(|network| network.name == **name);
        installed.record.made_volumes = names.volumes.iter().filter(new_volume).cloned().collect();
        installed.record.made_networks = names.networks.iter().filter(new_network).cloned().collect();
        installed.record.backend = Some(blueprint.backend.clone());
        self.store.save(installed).await?;
        Ok(Prepared { blueprint, before })
    }

    /// Makes what was prepared, and starts it if it is meant to run. Compose does not see the containers `aside`.
    pub(super) async fn make(
        &self,
        installed: &Installed,
        prepared: &Prepared,
        ready_timeout: Duration,
        aside: Vec<String>,
        report: &Report,
    ) -> Result<()> {
        let Prepared { blueprint, before } = prepared;
        report.phase(InstallPhase::Starting, &blueprint.backend.project);
        self.clear_stale_socket(installed).await;
        let once = async || match &blueprint.kind {
            BlueprintKind::Image => self.create_single(installed, &blueprint.backend).await,
            BlueprintKind::Compose => self.compose_up(installed, ready_timeout, &aside).await,
        };
        let mut made = once().await;
        // What an install that broke off had asked for may have come in between, under the same names.
        if made.is_err() && self.sweep_late(Some(&installed.id)).await.unwrap_or(0) > 0 {
            made = once().await;
        }
        // Whatever was made goes on the ledger, also when the rest failed.
        let recorded = self.record_made(installed, &blueprint.names, before).await;
        made.and(recorded)
    }

    /// Puts on the ledger what proves to be this generation's and is not there: a start that broke off may have made it,
    /// when the broker was killed or the engine went away. Else it would count as somebody else's.
    pub(super) async fn record_unknown(&self, installed: &Installed) -> Result<()> {
        if !installed.record.backend.as_ref().is_some_and(|backend| backend.built) {
            return Ok(());
        }
        let ledger = self.store.ledger(Some(&installed.id)).await?;
        let is_known = |kind, id: &str| ledger.iter().any(|entry| entry.kind == kind && entry.id == id);
        let mut made = Vec::new();
        let mut there: Vec<(catalogue::Key, catalogue::Object)> = Vec::new();
        for container in self.engine.containers(&[nonce_label(installed)]).await? {
            let is_ours = proof(&self.key, &(&container).into()).is_ok_and(|proof| proof.maker == Maker::Broker);
            if is_ours && !is_known(ResourceKind::Container, &container.id) {
                let service = container.labels.get(SERVICE_LABEL).map_or("", String::as_str);
                made.push(entry(installed, ResourceKind::Container, &container.id, &container.name, service));
                there.push(container.into());
            }
        }
        for network in self.engine.networks().await? {
            let is_ours = self.is_made_under(&(&network).into(), |nonce| nonce == network_nonce(installed));
            if is_ours && !is_known(ResourceKind::Network, &network.id) {
                made.push(entry(installed, ResourceKind::Network, &network.id, &network.name, ""));
                there.push(network.into());
            }
        }
        if made.is_empty() {
            return Ok(());
        }
        tracing::info!(extension = %installed.id, objects = made.len(), "found what a start that broke off had made");
        let keys: Vec<_> = made.iter().map(|entry| (entry.kind, entry.id.clone())).collect();
        self.store.record(made).await?;
        self.catalogue.add(there);
        self.catalogue.tell_again(&keys);
        Ok(())
    }

    /// Starts again what was built before.
    pub(super) async fn start_built(&self, installed: &Installed) -> Result<()> {
        let Some(backend) = installed.record.backend.as_ref().filter(|backend| backend.built) else { return Ok(()) };
        self.record_unknown(installed).await?;
        let container = self.backend_container(installed, backend, &backend.service).await?;
        // One that runs listens on it.
        if container.running(&installed.id).is_err() {
            self.clear_stale_socket(installed).await;
        }
        let files = self.layout.extension(&installed.id).generation(installed.generation.unsigned_abs());
        if files.compose_file().is_file() {
            // Somebody may have come since it was installed, whom Compose would take for ours.
            self.check_names(installed, &backend.project, &Names::default()).await?;
            let existing = self.engine.volumes().await?;
            self.compose_up(installed, self.limits.ready_timeout, &[]).await?;
            let ledger = self.store.ledger(Some(&installed.id)).await?;
            let of = |kind, keep| {
                let entries = ledger.iter().filter(move |entry| entry.kind == kind && entry.keep == keep);
                entries.map(|entry| entry.name.clone()).collect()
            };
            let names = Names {
                containers: vec![],
                networks: of(ResourceKind::Network, false),
                volumes: of(ResourceKind::Volume, true),
            };
            return self.record_made(installed, &names, &existing).await;
        }
        match self.backend_container(installed, backend, &backend.service).await? {
            BackendContainer::Found(container) => self.engine.start(&container.id).await,
            BackendContainer::Missing(_) => {
                self.check_names(installed, &backend.project, &Names::default()).await?;
                let made = self.create_single(installed, backend).await;
                let names = Names { networks: vec![default_network(&backend.project)], ..Names::default() };
                made.and(self.record_made(installed, &names, &[]).await)
            }
        }
    }

    async fn compose_up(&self, installed: &Installed, ready_timeout: Duration, aside: &[String]) -> Result<()> {
        let id = &installed.id;
        let files = self.layout.extension(id).generation(installed.generation.unsigned_abs());
        let image = &installed.record.reference;
        let mut environment = self.compose_environment(image, &Default::default(), &Decisions::default());
        let veil = match aside.is_empty() {
            true => None,
            false => Some(self.engine.veil(aside.to_owned(), &self.places.runtime_dir)?),
        };
        if let Some(veil) = &veil {
            environment.docker_host = veil.url();
        }
        let limit = ready_timeout.max(MIN_COMPOSE_TIME);
        let compose = self.compose().await?;
        self.have_mounts(installed).await?;
        let (file, directory, project) = (files.compose_file(), files.compose(), id.project());
        let text = std::fs::read(&file).unwrap_or_default();
        let links = serde_json::from_slice(&text).is_ok_and(|planned| labels::has_links(&planned));
        let up = async {
            if links {
                compose.up(&file, &directory, &project, &environment, false).await?;
                self.lay_links(installed).await?;
            }
            if links && !installed.is_wanted() {
                return Ok(());
            }
            compose.up(&file, &directory, &project, &environment, installed.is_wanted()).await
        };
        tokio::time::timeout(limit, up).await.unwrap_or_else(|_| {
            let message = format!("the services of {id} did not start within {} s", limit.as_secs());
            Err(Error::new(Reason::ComposeFailed, id.as_str(), message))
        })
    }

    /// `vm.image`: one container, with the labels Compose would give it.
    async fn create_single(&self, installed: &Installed, backend: &BackendRecord) -> Result<()> {
        let directory = self.layout.extension(&installed.id);
        let project = &backend.project;
        let Some(image) = backend.image.clone().or(installed.record.image_id.clone()) else {
            return Err(Error::bug("a backend of one image has none on record"));
        };
        let compose = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            let named = |(key, value): &(&str, &str)| (format!("com.docker.compose.{key}"), (*value).to_owned());
            pairs.iter().map(named).collect()
        };
        let network = default_network(project);
        let mut labels = compose(&[("project", project), ("network", "default")]);
        labels.insert(EXTENSION_LABEL.into(), installed.id.to_string());
        let nonce = network_nonce(installed);
        let (kind, extension) = (ResourceKind::Network, installed.id.as_str());
        let mark = Mark { kind, extension, generation: 0, name: &network, nonce };
        labels.insert(NONCE_LABEL.into(), nonce.to_owned());
        labels.insert(labels::SIGNATURE.into(), self.key.sign(&mark));
        // The one that an earlier generation had stays.
        if !self.engine.networks().await?.iter().any(|found| found.name == network) {
            self.engine.create_network(&network, labels).await?;
        }
        let mut labels = compose(&[
            ("project", project),
            ("service", IMAGE_SERVICE),
            ("container-number", "1"),
            ("oneoff", "False"),
            ("project.config_files", ""),
            ("project.working_dir", &directory.path().to_string_lossy()),
        ]);
        let name = format!("{project}-{IMAGE_SERVICE}");
        let (kind, generation, nonce) = (ResourceKind::Container, installed.generation, &installed.record.nonce);
        let mark = Mark { kind, extension, generation, name: &name, nonce };
        labels.extend(own_labels(installed));
        labels.insert(labels::SIGNATURE.into(), self.key.sign(&mark));
        labels.insert("com.docker.desktop.extension".into(), "true".into());
        labels.insert("com.docker.desktop.extension.name".into(), installed.record.title.clone());
        labels.insert(labels::RESTART.into(), labels::RESTART_DEFAULT.into());
        let spec = BackendSpec {
            name,
            image: image.clone(),
            labels,
            network,
            service: IMAGE_SERVICE.into(),
            mounts: self.have_mounts(installed).await?,
        };
        let there = self.engine.containers(&[nonce_label(installed)]).await?;
        let container = match there.into_iter().find(|found| found.name == spec.name) {
            // A try before this one came as far as that.
            Some(there) => there.id,
            None => self.engine.create_backend(spec).await?,
        };
        if !installed.is_wanted() {
            return Ok(());
        }
        self.engine.with_image(&image, self.engine.start(&container).await).await
    }

    /// A socket file that a stopped backend left would make one that does not unlink it fail.
    pub(super) async fn clear_stale_socket(&self, installed: &Installed) {
        let Some(socket) = installed.record.backend.as_ref().and_then(|backend| backend.socket.as_deref()) else {
            return;
        };
        let guest = self.layout.extension(&installed.id).guest();
        let cleared = match self.is_apart() {
            true => self.clear_socket_apart(installed, socket).await,
            false => GuestDir::open(&guest).and_then(|guest| {
                let cleared = guest.clear_stale_socket(socket).map(drop);
                cleared.map_err(|e| Error::new(Reason::FileFailed, socket, e.to_string()))
            }),
        };
        if let Err(error) = cleared {
            tracing::debug!(%error, extension = %installed.id, "a stale socket stays");
        }
    }

    /// Puts what carries this generation's nonce on the ledger. Of the volumes those that were not there `before`, and
    /// those that are on it already: a label is a claim and no more.
    async fn record_made(&self, installed: &Installed, names: &Names, before: &[Volume]) -> Result<()> {
        let volumes = &names.volumes;
        let ledger = self.store.ledger(Some(&installed.id)).await?;
        let is_ours = |name: &str| {
            !before.iter().any(|volume| volume.name == name)
                || ledger.iter().any(|entry| entry.kind == ResourceKind::Volume && entry.id == name)
        };
        let mut made = Vec::new();
        let mut there: Vec<(catalogue::Key, catalogue::Object)> = Vec::new();
        for container in self.engine.containers(&[nonce_label(installed)]).await? {
            if proof(&self.key, &(&container).into()).is_err() {
                tracing::warn!(container = container.name, "a container bears a copy of an extension's labels");
                continue;
            }
            let service = container.labels.get(SERVICE_LABEL).map_or("", String::as_str);
            made.push(entry(installed, ResourceKind::Container, &container.id, &container.name, service));
            let details = self.engine.container(&container.id).await?;
            there.push(container.clone().into());
            for mounted in details.into_iter().flat_map(|details| details.mounts) {
                let volume = &mounted.volume;
                if is_anonymous(volume) && !volumes.contains(volume) && is_ours(volume) {
                    made.push(entry(installed, ResourceKind::Volume, &mounted.volume, &mounted.volume, service));
                }
            }
        }
        for network in self.engine.networks().await? {
            // One that an earlier generation made is this one's from now on, if it is used.
            let known = ledger.iter().any(|entry| entry.kind == ResourceKind::Network && entry.id == network.id);
            let marked = self.is_made_under(&(&network).into(), |nonce| nonce == network_nonce(installed));
            if names.networks.contains(&network.name) && (known || marked) {
                made.push(entry(installed, ResourceKind::Network, &network.id, &network.name, ""));
                there.push(network.into());
            }
        }
        for volume in self.engine.volumes().await? {
            let ours = self.bears(&volume, &installed.id);
            if ours && volumes.contains(&volume.name) && is_ours(&volume.name) {
                let kept = entry(installed, ResourceKind::Volume, &volume.name, &volume.name, "");
                made.push(LedgerEntry { keep: true, ..kept });
                there.push(volume.into());
            } else if made.iter().any(|made| made.kind == ResourceKind::Volume && made.id == volume.name) {
                // Podman tells of the anonymous ones late.
                there.push(volume.into());
            }
        }
        let keys: Vec<_> = made.iter().map(|entry| (entry.kind, entry.id.clone())).collect();
        self.store.record(made).await?;
        self.catalogue.add(there);
        self.catalogue.tell_again(&keys);
        Ok(())
    }

    /// Whether a volume bears the label of that extension. Where there are several users, another's extension of the same
    /// id has the same label, and only the signature tells whose it is.
    pub(super) fn bears(&self, volume: &Volume, id: &ExtensionId) -> bool {
        let is_proved = || !self.behalf.is_one_of_several() || proof(&self.key, &volume.into()).is_ok();
        volume.labels.get(EXTENSION_LABEL).is_some_and(|owner| owner == id.as_str()) && is_proved()
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
            let left = self.bears(&v, &installed.id);
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

/// The line of the ledger for what the broker made for a generation, and what goes with it.
fn entry(installed: &Installed, kind: ResourceKind, id: &str, name: &str, service: &str) -> LedgerEntry {
    LedgerEntry {
        kind,
        id: id.to_owned(),
        name: name.to_owned(),
        extension: installed.id.to_string(),
        generation: installed.generation,
        service: service.to_owned(),
        keep: false,
        source: OwnerSource::Created,
        maker: Maker::Broker,
        first_seen_ms: now_ms(),
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

/// The label of a generation's networks. Records of older brokers have none of their own.
fn network_nonce(installed: &Installed) -> &str {
    let record = &installed.record;
    if record.network_nonce.is_empty() { &record.nonce } else { &record.network_nonce }
}

/// The network of a project whose file names none.
fn default_network(project: &str) -> String {
    format!("{project}_default")
}

/// The engine names volumes that nobody named with 64 hexadecimal digits.
pub(super) fn is_anonymous(volume: &str) -> bool {
    volume.len() == 64 && volume.bytes().all(|byte| byte.is_ascii_hexdigit())
}
