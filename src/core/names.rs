//! Names in the engine: those that an extension's backend takes, and whether somebody else has them; those that what an
//! old generation has bears during an update.

use std::collections::HashMap;

use super::Broker;
use crate::model::{
    error::{Error, Reason, Result},
    extension::{Installed, ResourceKind},
    labels,
};

/// Names of containers, networks and volumes that will exist.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) containers: Vec<String>,
    pub(super) networks: Vec<String>,
    pub(super) volumes: Vec<String>,
}

impl Broker {
    /// Makes sure that they are free. Compose selects by label: whatever carries the project's name and is not ours would
    /// be taken over or removed by it. So it must not be there (design section 5). Volumes that this extension left are
    /// its own.
    ///
    /// # Errors
    ///
    /// `PROJECT_NAME_TAKEN`, `ENGINE_UNAVAILABLE`.
    pub(super) async fn check_names(&self, installed: &Installed, project: &str, names: &Names) -> Result<()> {
        let of_project = |labels: &HashMap<String, String>| labels.get(labels::PROJECT).is_some_and(|of| of == project);
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

/// The network of a project whose file names none.
pub(super) fn default_network(project: &str) -> String {
    format!("{project}_default")
}

/// What a container of an old generation is called while one of the new generation has its name.
pub(super) fn aside_name(container_id: &str) -> String {
    format!("longshore-aside-{}", container_id.get(..24).unwrap_or(container_id))
}

/// The name that holds the image of an old generation during an update; `nonce` is that generation's.
pub(super) fn kept_image(nonce: &str) -> String {
    format!("longshore/kept:{nonce}")
}
