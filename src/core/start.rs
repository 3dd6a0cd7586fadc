//! Makes and starts an extension's containers.

use std::{collections::HashMap, time::Duration};

use super::{
    Broker, InstallPhase, Report,
    compose::Planned,
    container::BackendContainer,
    fetched::Fetched,
    names::{Names, default_network},
    stage::BackendDraft,
};
use crate::{
    engine::{BackendSpec, Volume},
    files::{
        extension::{COMPOSE_FILE, GenerationDir},
        guest::GuestDir,
    },
    model::{
        compose::{self, PluginImage},
        error::{Error, Reason, Result},
        extension::{BackendRecord, Installed, ResourceKind},
        grant::Decisions,
        labels,
        manifest::PLUGIN_IMAGE,
        reference::Reference,
        signature::Mark,
    },
};

/// Service name of a backend that is one image; Docker Desktop's container name ends in it (F54).
const IMAGE_SERVICE: &str = "service";
/// Compose waits for services that wait for the health of others; no longer than this, or the ready time-out.
const MIN_COMPOSE_TIME: Duration = Duration::from_secs(120);

/// What is about to be made for a backend.
pub(super) struct Blueprint {
    backend: BackendRecord,
    kind: BlueprintKind,
    names: Names,
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
                files.write_private(COMPOSE_FILE, plan.file.to_string().as_bytes())?;
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
    /// way.
    ///
    /// # Errors
    ///
    /// `PROJECT_NAME_TAKEN`, `ENGINE_UNAVAILABLE`.
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
            self.compose_up(installed, self.ready_timeout(installed), &[]).await?;
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
        let links = serde_json::from_slice(&text).is_ok_and(|planned| compose::has_links(&planned));
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
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let network = default_network(project);
        let mut labels = compose(&[(labels::PROJECT, project), (labels::NETWORK, "default")]);
        labels.insert(labels::EXTENSION.into(), installed.id.to_string());
        let nonce = installed.record.network_nonce();
        let (kind, extension) = (ResourceKind::Network, installed.id.as_str());
        let mark = Mark { kind, extension, generation: 0, name: &network, nonce };
        labels.insert(labels::NONCE.into(), nonce.to_owned());
        labels.insert(labels::SIGNATURE.into(), self.key.sign(&mark));
        // The one that an earlier generation had stays.
        if !self.engine.networks().await?.iter().any(|found| found.name == network) {
            self.engine.create_network(&network, labels).await?;
        }
        let mut labels = compose(&[
            (labels::PROJECT, project),
            (labels::SERVICE, IMAGE_SERVICE),
            (labels::CONTAINER_NUMBER, "1"),
            (labels::ONE_OFF, "False"),
            (labels::CONFIG_FILES, ""),
            (labels::WORKING_DIR, &directory.path().to_string_lossy()),
        ]);
        let name = format!("{project}-{IMAGE_SERVICE}");
        let (kind, generation, nonce) = (ResourceKind::Container, installed.generation, &installed.record.nonce);
        let mark = Mark { kind, extension, generation, name: &name, nonce };
        labels.extend(labels::of_generation(installed, &installed.record.nonce));
        labels.insert(labels::SIGNATURE.into(), self.key.sign(&mark));
        labels.extend(labels::of_desktop(&installed.record.title));
        labels.insert(labels::RESTART.into(), labels::RESTART_DEFAULT.into());
        let spec = BackendSpec {
            name,
            image: image.clone(),
            labels,
            network,
            service: IMAGE_SERVICE.into(),
            mounts: self.have_mounts(installed).await?,
        };
        let there = self.engine.containers(&[labels::made_under(&installed.record.nonce)]).await?;
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
}
