//! Containers: listed, inspected, made for `vm.image`, started, stopped, removed.

use std::{collections::HashMap, path::PathBuf};

use bollard::{
    body_full,
    models::{
        ContainerCreateBody, ContainerInspectResponse, ContainerSummary, ContainerUpdateBody, HostConfig, Mount,
        MountType, NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        RenameContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
        UploadToContainerOptionsBuilder,
    },
};

use super::{Engine, found};
use crate::model::{
    error::{Error, Reason, Result},
    mounts::{CONTAINER_DIR, GUEST_DIR},
};

/// Seconds that a container gets to stop where its author does not say.
const DEFAULT_STOP_S: i64 = 10;
/// Most seconds that it gets.
const MAX_STOP_S: i64 = 30;

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
    /// Host directory for `/run/guest-services`.
    pub guest_dir: PathBuf,
    /// Host directory for `/run/longshore`, read-only.
    pub broker_dir: PathBuf,
}

impl Engine {
    /// All containers, running or not, that carry every one of `labels` (`key` or `key=value`).
    pub async fn containers(&self, labels: &[String]) -> Result<Vec<Container>> {
        let filters = HashMap::from([("label", labels.to_vec())]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.client()?.list_containers(Some(options)).await.map_err(|e| self.refused("", e))?;
        Ok(listed.into_iter().map(Container::from).collect())
    }

    /// Those of some containers that exist, by full id.
    pub async fn containers_by_id(&self, ids: &[String]) -> Result<Vec<Container>> {
        let filters = HashMap::from([("id", ids.to_vec())]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.client()?.list_containers(Some(options)).await.map_err(|e| self.refused("", e))?;
        Ok(listed.into_iter().map(Container::from).collect())
    }

    /// One container by id or name, if it exists.
    pub async fn container(&self, id: &str) -> Result<Option<ContainerDetails>> {
        let inspected = self.client()?.inspect_container(id, None).await.map_err(|e| self.refused(id, e));
        Ok(found(inspected)?.map(ContainerDetails::from))
    }

    /// Makes the container of a `vm.image` backend; command, environment and user come from the image.
    pub async fn create_backend(&self, spec: BackendSpec) -> Result<String> {
        let bind = |source: &PathBuf, target: &str, read_only| Mount {
            typ: Some(MountType::BIND),
            source: Some(source.display().to_string()),
            target: Some(target.into()),
            read_only: Some(read_only),
            ..Default::default()
        };
        let aliases = bollard::models::EndpointSettings { aliases: Some(vec![spec.service]), ..Default::default() };
        let body = ContainerCreateBody {
            image: Some(spec.image),
            labels: Some(spec.labels),
            host_config: Some(HostConfig {
                mounts: Some(vec![
                    bind(&spec.guest_dir, GUEST_DIR, false),
                    bind(&spec.broker_dir, CONTAINER_DIR, true),
                ]),
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
        let created = self.client()?.create_container(Some(options), body).await;
        created.map(|created| created.id).map_err(|e| self.refused(&spec.name, e))
    }

    /// Starts a container; one that runs is left alone.
    pub async fn start(&self, id: &str) -> Result<()> {
        let started = self.client()?.start_container(id, None::<StartContainerOptions>).await;
        started.map_err(|e| self.refused(id, e))
    }

    /// Stops a container, giving it the time that its author set (10 s by default), but no more than half a minute: an
    /// extension must not make itself unstoppable. One that is gone is stopped.
    pub async fn stop(&self, id: &str) -> Result<()> {
        let inspected = self.client()?.inspect_container(id, None).await.map_err(|e| self.refused(id, e));
        let Some(container) = found(inspected)? else { return Ok(()) };
        let wanted = container.config.and_then(|config| config.stop_timeout).unwrap_or(DEFAULT_STOP_S);
        let seconds = wanted.clamp(0, MAX_STOP_S);
        let options = StopContainerOptionsBuilder::default().t(i32::try_from(seconds).unwrap_or_default()).build();
        let stopped = self.client()?.stop_container(id, Some(options)).await;
        found(stopped.map_err(|e| self.refused(id, e))).map(|_| ())
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

impl From<ContainerSummary> for Container {
    fn from(summary: ContainerSummary) -> Self {
        let name = summary.names.unwrap_or_default().into_iter().next().unwrap_or_default();
        Container {
            id: summary.id.unwrap_or_default(),
            name: name.trim_start_matches('/').to_owned(),
            image: summary.image.unwrap_or_default(),
            state: summary.state.map(|state| state.to_string()).unwrap_or_default(),
            exit_code: summary.status.as_deref().and_then(exit_code_in),
            labels: summary.labels.unwrap_or_default(),
        }
    }
}

/// The exit code in what a list says for people: `Exited (1) 2 minutes ago`, `Restarting (1) 3 seconds ago`.
fn exit_code_in(status: &str) -> Option<i64> {
    let (word, rest) = status.split_once(" (")?;
    let code = rest.split_once(')')?.0;
    matches!(word, "Exited" | "Restarting").then(|| code.parse().ok())?
}

impl From<ContainerInspectResponse> for ContainerDetails {
    fn from(found: ContainerInspectResponse) -> Self {
        let state = found.state.unwrap_or_default();
        let config = found.config.unwrap_or_default();
        let policy = found.host_config.and_then(|host| host.restart_policy).and_then(|policy| policy.name);
        let volume = |mount: bollard::models::MountPoint| {
            let is_volume = mount.typ.as_deref() == Some("volume");
            let volume = mount.name.filter(|name| is_volume && !name.is_empty())?;
            Some(Mounted { volume, target: mount.destination.unwrap_or_default() })
        };
        ContainerDetails {
            id: found.id.unwrap_or_default(),
            name: found.name.unwrap_or_default().trim_start_matches('/').to_owned(),
            state: state.status.map(|status| status.to_string()).unwrap_or_default(),
            exit_code: state.exit_code.unwrap_or(0),
            restarts: found.restart_count.unwrap_or(0),
            started_at: state.started_at.unwrap_or_default(),
            tty: config.tty.unwrap_or(false),
            always_restarts: matches!(
                policy,
                Some(RestartPolicyNameEnum::ALWAYS | RestartPolicyNameEnum::UNLESS_STOPPED)
            ),
            restarts_itself: !matches!(policy, None | Some(RestartPolicyNameEnum::NO | RestartPolicyNameEnum::EMPTY)),
            labels: config.labels.unwrap_or_default(),
            mounts: found.mounts.unwrap_or_default().into_iter().filter_map(volume).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_tells_exit_codes_in_words() {
        for (status, code) in [
            ("Exited (137) 2 minutes ago", Some(137)),
            ("Restarting (1) 3 seconds ago", Some(1)),
            ("Up 2 minutes (healthy)", None),
            ("Created", None),
            ("Exited (x)", None),
        ] {
            assert_eq!(exit_code_in(status), code, "{status}");
        }
    }
}
