//! Containers: listed, inspected, made for `vm.image`, started, stopped, removed.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use bollard::{
    body_full,
    models::{
        ContainerCreateBody, ContainerUpdateBody, HostConfig, Mount, MountTmpfsOptions, MountType, NetworkingConfig,
        RestartPolicy, RestartPolicyNameEnum,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder,
        StartContainerOptions, StopContainerOptionsBuilder, UploadToContainerOptionsBuilder,
    },
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    Engine,
    answers::{Inspected, Listed},
    found,
    volumes::volume_mount,
};
use crate::model::{
    error::{Error, Reason, Result},
    mounts::{CONTAINER_DIR, DOORS_BYTES, EXTENSION_SOCKET, EXTENSION_SOCKET_VARIABLE, GUEST_DIR, Mounts, SHIM_DIR},
};

/// Seconds that a container gets to stop where its author does not say.
const DEFAULT_STOP_S: i64 = 10;
/// Most seconds that it gets.
const MAX_STOP_S: i64 = 30;
/// How long the engine's list may take to agree that a container stopped.
const LIST_LAG: Duration = Duration::from_secs(2);
/// When to look again.
const LIST_AGAIN: Duration = Duration::from_millis(5);

/// A container in a list.
#[derive(Debug, Clone)]
pub struct Container {
    /// Full id.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// Image as it was named.
    pub image: String,
    /// State as the engine names it.
    pub state: String,
    /// Exit code of the last run, where the engine's list tells it.
    pub exit_code: Option<i64>,
    /// Labels.
    pub labels: HashMap<String, String>,
}

/// One container closely.
#[derive(Debug, Clone)]
pub struct ContainerDetails {
    /// Full id.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// State as the engine names it.
    pub state: String,
    /// Exit code of the last run.
    pub exit_code: i64,
    /// How often the engine started it again.
    pub restarts: i64,
    /// When it was started last, RFC 3339.
    pub started_at: String,
    /// Whether it has a terminal, which decides how its log is framed.
    pub tty: bool,
    /// Whether the engine starts it again when it ends.
    pub restarts_itself: bool,
    /// Whether it does so however it ended and however often.
    pub always_restarts: bool,
    /// Labels.
    pub labels: HashMap<String, String>,
    /// What is mounted.
    pub mounts: Vec<Mounted>,
}

/// A volume in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Name of the volume.
    pub volume: String,
    /// Where it is mounted.
    pub target: String,
}

/// What the container of a `vm.image` backend is made of.
#[derive(Debug, Clone)]
pub struct BackendSpec {
    /// Name of the container.
    pub name: String,
    /// Image id or reference.
    pub image: String,
    /// Labels.
    pub labels: HashMap<String, String>,
    /// Network to join.
    pub network: String,
    /// Service name, known on that network.
    pub service: String,
    /// What it has of the broker.
    pub mounts: Mounts,
}

impl Mounts {
    /// What stands for the guest directory.
    pub(super) fn guest(&self) -> String {
        match self {
            Mounts::Shared { guest_dir, .. } => guest_dir.display().to_string(),
            Mounts::Apart { guest, .. } => guest.clone(),
        }
    }

    pub(super) fn list(&self) -> Vec<Mount> {
        let bind = |source: &PathBuf, target: &str, read_only| Mount {
            typ: Some(MountType::BIND),
            source: Some(source.display().to_string()),
            target: Some(target.into()),
            read_only: Some(read_only),
            ..Default::default()
        };
        match self {
            Mounts::Shared { guest_dir, broker_dir } => {
                vec![bind(guest_dir, GUEST_DIR, false), bind(broker_dir, CONTAINER_DIR, true)]
            }
            Mounts::Apart { guest, shim } => {
                // Empty at each start: the doors of the tunnel are laid there.
                let options =
                    MountTmpfsOptions { size_bytes: Some(DOORS_BYTES), mode: Some(0o755), ..Default::default() };
                let doors = Mount {
                    typ: Some(MountType::TMPFS),
                    target: Some(CONTAINER_DIR.into()),
                    tmpfs_options: Some(options),
                    ..Default::default()
                };
                vec![volume_mount(guest, GUEST_DIR, false), doors, volume_mount(shim, SHIM_DIR, true)]
            }
        }
    }
}

impl Engine {
    /// All containers, running or not, that carry every one of `labels` (`key` or `key=value`).
    pub async fn containers(&self, labels: &[String]) -> Result<Vec<Container>> {
        self.list("all=1", &HashMap::from([("label", labels.to_vec())])).await
    }

    async fn list(&self, query: &str, filters: &HashMap<&str, Vec<String>>) -> Result<Vec<Container>> {
        let filters = serde_json::to_string(filters).map_err(|e| Error::bug("a filter is no JSON").caused_by(e))?;
        let filters = utf8_percent_encode(&filters, NON_ALPHANUMERIC);
        let listed: Vec<Listed> = self.dockerd.get("", &format!("/containers/json?{query}&filters={filters}")).await?;
        Ok(listed.into_iter().map(Container::from).collect())
    }

    /// Those of some containers that exist, by full id.
    pub async fn containers_by_id(&self, ids: &[String]) -> Result<Vec<Container>> {
        self.list("all=1", &HashMap::from([("id", ids.to_vec())])).await
    }

    async fn inspect(&self, id: &str) -> Result<Option<Inspected>> {
        let path = format!("/containers/{}/json", utf8_percent_encode(id, NON_ALPHANUMERIC));
        found(self.dockerd.get(id, &path).await.map_err(Error::from))
    }

    /// One container by id or name, if it exists.
    pub async fn container(&self, id: &str) -> Result<Option<ContainerDetails>> {
        Ok(self.inspect(id).await?.map(ContainerDetails::from))
    }

    /// Makes the container of a `vm.image` backend; command, environment and user come from the image, and where it
    /// registers is added.
    ///
    /// # Errors
    ///
    /// `IMAGE_NOT_FOUND` where that was removed meanwhile, `ENGINE_REFUSED`, `ENGINE_UNAVAILABLE`.
    pub async fn create_backend(&self, spec: BackendSpec) -> Result<String> {
        let aliases = bollard::models::EndpointSettings { aliases: Some(vec![spec.service]), ..Default::default() };
        let body = ContainerCreateBody {
            image: Some(spec.image),
            labels: Some(spec.labels),
            env: Some(vec![format!("{EXTENSION_SOCKET_VARIABLE}={EXTENSION_SOCKET}")]),
            host_config: Some(HostConfig {
                mounts: Some(spec.mounts.list()),
                network_mode: Some(spec.network.clone()),
                restart_policy: Some(RestartPolicy {
                    name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                    maximum_retry_count: None,
                }),
                ..Default::default()
            }),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(spec.network, aliases)])),
            }),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
        let image = body.image.clone().unwrap_or_default();
        let created = self.client()?.create_container(Some(options), body).await;
        let created = created.map_err(|e| self.refused(&spec.name, e));
        Ok(self.with_image(&image, created).await?.id)
    }

    /// Starts a container; one that runs is left alone.
    pub async fn start(&self, id: &str) -> Result<()> {
        let started = self.client()?.start_container(id, None::<StartContainerOptions>).await;
        started.map_err(|e| self.refused(id, e))
    }

    /// Stops a container, giving it the time that its author set (10 s by default), but no more than half a minute: an
    /// extension must not make itself unstoppable. One that is gone is stopped.
    pub async fn stop(&self, id: &str) -> Result<()> {
        let Some(container) = self.inspect(id).await? else { return Ok(()) };
        let seconds = container.stop_timeout_s().unwrap_or(DEFAULT_STOP_S).clamp(0, MAX_STOP_S);
        let options = StopContainerOptionsBuilder::default().t(i32::try_from(seconds).unwrap_or_default()).build();
        let stopped = self.client()?.stop_container(id, Some(options)).await;
        match found(stopped.map_err(|e| self.refused(id, e)))? {
            Some(()) => self.listed_as_stopped(id).await,
            None => Ok(()),
        }
    }

    /// Waits a moment for the engine's list to agree that a container has stopped: Docker 26 tells whoever waits for the
    /// stop before it updates what it lists.
    async fn listed_as_stopped(&self, id: &str) -> Result<()> {
        let filters = HashMap::from([("id", vec![id.to_owned()]), ("status", vec!["running".to_owned()])]);
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < LIST_LAG && !self.list("", &filters).await?.is_empty() {
            tokio::time::sleep(LIST_AGAIN).await;
        }
        Ok(())
    }

    /// Gives a container another name.
    pub async fn rename(&self, id: &str, name: &str) -> Result<()> {
        let options = RenameContainerOptionsBuilder::default().name(name).build();
        self.client()?.rename_container(id, options).await.map_err(|e| self.refused(id, e))
    }

    /// Removes a container with its anonymous volumes. One that is gone is removed.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let removed = self.client()?.remove_container(id, Some(options)).await;
        match found(removed.map_err(|e| self.refused(id, e))) {
            // The engine is at it already.
            Err(error) if error.message().contains("is already in progress") => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Lays a symbolic link into a container that has not run yet; missing directories are made.
    pub async fn lay_link(&self, id: &str, path: &str, target: &str) -> Result<()> {
        let put_together = || -> std::io::Result<Vec<u8>> {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            let mut archive = tar::Builder::new(Vec::new());
            archive.append_link(&mut header, path.trim_start_matches('/'), target)?;
            archive.into_inner()
        };
        let archive = put_together().map_err(|e| Error::bug(format!("no archive can hold a link at {path:?}: {e}")))?;
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        let laid = self.client()?.upload_to_container(id, Some(options), body_full(archive.into())).await;
        laid.map_err(|e| self.refused(id, e))
    }

    /// Lets a container stay ended: the engine does not start it again.
    pub async fn never_restart(&self, id: &str) -> Result<()> {
        let never = RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None };
        let update = ContainerUpdateBody { restart_policy: Some(never), ..Default::default() };
        self.client()?.update_container(id, update).await.map_err(|e| self.refused(id, e))
    }

    /// The end of a container's log, for an error message.
    pub async fn log_tail(&self, id: &str, lines: u32) -> Result<String> {
        use futures_util::TryStreamExt;
        let details = self.container(id).await?;
        let details =
            details.ok_or_else(|| Error::new(Reason::ResourceNotFound, id, format!("there is no container {id}")))?;
        let source = super::LogSource { id: details.id, tty: details.tty };
        let options = super::LogOptions { tail: Some(lines), ..Default::default() };
        let chunks = super::logs(self, source, options).await?;
        let bytes: Vec<u8> = chunks
            .try_fold(Vec::new(), |mut all, chunk| async {
                all.extend(chunk.data);
                Ok(all)
            })
            .await?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }
}
