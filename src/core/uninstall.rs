//! Uninstall: from our own records alone, by id, through the Engine API. The image may be gone, the compose file broken.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{Broker, ownership::EXTENSION_LABEL, start::nonce_label, view::View};
use crate::model::{
    error::{Error, Reason, Result},
    extension::{Installed, LedgerEntry, Phase, ResourceKind},
    reference::{ExtensionId, Reference},
};

/// What an uninstall left and took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Named volumes that stayed.
    pub kept_volumes: Vec<String>,
    /// Named volumes that were removed.
    pub removed_volumes: Vec<String>,
    /// Whether the image was removed.
    pub image_removed: bool,
}

impl Broker {
    /// Removes an extension. Goes on when the caller goes away: half an uninstall helps nobody.
    ///
    /// Errors: EXTENSION_NOT_FOUND, EXTENSION_BUSY, ENGINE_UNAVAILABLE.
    pub async fn uninstall(self: Arc<Self>, reference: Reference, volumes: bool) -> Result<Removed> {
        let broker = self.clone();
        self.tasks.spawn(async move { broker.uninstall_now(&reference, volumes).await }).await.map_err(broken_off)?
    }

    async fn uninstall_now(&self, reference: &Reference, volumes: bool) -> Result<Removed> {
        let id = &reference.id;
        let _claim = self.claims.take(id)?;
        let mut installed = self.installed(id).await?;
        if !reference.is_bare() && installed.record.reference != reference.to_string() {
            let message = format!("{reference} is not installed; {} is", installed.record.reference);
            return Err(Error::new(Reason::ExtensionNotFound, id.as_str(), message));
        }
        installed.phase = Phase::Uninstalling;
        installed.record.remove_volumes = volumes;
        self.store.save(&installed).await?;
        let removed = self.remove_all(&installed).await?;
        tracing::info!(extension = %id, "uninstalled");
        Ok(removed)
    }

    /// Removes what an extension has, wherever it is. Volumes that an install made which did not come to its end go as
    /// well.
    pub(super) async fn remove_all(&self, installed: &Installed) -> Result<Removed> {
        let id = &installed.id;
        self.sessions.end_of(id);
        self.attached.end(id);
        self.pools.close(id);
        self.hub.end_all_of(id.as_str()).await;
        self.close_gateway(id).await?;
        self.strike_gone(id).await?;
        let mut removed = Removed::default();
        let ledger = self.store.ledger(Some(id)).await?;
        let built = installed.record.backend.as_ref().is_some_and(|backend| backend.built);
        if built || ledger.iter().any(|entry| !entry.keep) {
            self.remove_objects(installed, &ledger).await?;
        }
        if built && installed.phase == Phase::Installing {
            self.store.note_broken(installed.record.nonce.clone()).await?;
            self.sweep_late().await?;
        }
        let undone = installed.phase == Phase::Installing;
        if undone && !installed.record.made_volumes.is_empty() {
            self.remove_made_volumes(installed).await?;
        }
        for volume in ledger.iter().filter(|entry| entry.kind == ResourceKind::Volume && entry.keep) {
            let made_now = installed.record.made_volumes.contains(&volume.name);
            let goes = if undone { made_now } else { installed.record.remove_volumes };
            if goes && self.engine.remove_volume(&volume.id).await? {
                self.store.strike(vec![(volume.kind, volume.id.clone())]).await?;
                removed.removed_volumes.push(volume.name.clone());
            } else {
                removed.kept_volumes.push(volume.name.clone());
            }
        }
        self.remove_files(id).await?;
        for image in &installed.record.fetched_images {
            if !self.is_used_elsewhere(id, image).await? && self.engine.remove_image(image).await? {
                let record = &installed.record;
                removed.image_removed |= *image == record.reference || Some(image) == record.image_id.as_ref();
            }
        }
        self.store.forget(id).await?;
        Ok(removed)
    }

    /// Containers, networks and anonymous volumes: those on the ledger, and those that bear this install's nonce.
    async fn remove_objects(&self, installed: &Installed, ledger: &[LedgerEntry]) -> Result<()> {
        let of = |kind| ledger.iter().filter(move |entry| entry.kind == kind && !entry.keep);
        let mut containers: Vec<String> = of(ResourceKind::Container).map(|entry| entry.id.clone()).collect();
        let marked = self.engine.containers(&[nonce_label(installed)]).await?;
        containers.extend(marked.into_iter().map(|container| container.id));
        containers.sort();
        containers.dedup();
        // What a failed install made has nothing to save, and nobody waits for it to stop in order.
        let stop = installed.phase != Phase::Installing;
        let ends = containers.iter().map(|container| async move {
            if stop && let Err(error) = self.engine.stop(container).await {
                tracing::warn!(%error, container, "a container does not stop in order; it is killed");
            }
            self.engine.remove_container(container).await
        });
        join_all(ends).await.into_iter().collect::<Result<Vec<()>>>()?;
        let mut networks: Vec<String> = of(ResourceKind::Network).map(|entry| entry.id.clone()).collect();
        let marked = self
            .engine
            .networks()
            .await?
            .into_iter()
            .filter(|network| network.labels.get(super::ownership::NONCE_LABEL) == Some(&installed.record.nonce));
        networks.extend(marked.map(|network| network.id));
        networks.sort();
        networks.dedup();
        for network in &networks {
            if !self.engine.remove_network(network).await? {
                tracing::warn!(extension = %installed.id, network, "a network stays: other containers use it");
            }
        }
        for volume in of(ResourceKind::Volume) {
            self.engine.remove_volume(&volume.id).await?;
        }
        Ok(())
    }

    /// Volumes that an install which broke off made, also where it did not come to put them on the ledger.
    async fn remove_made_volumes(&self, installed: &Installed) -> Result<()> {
        let made = &installed.record.made_volumes;
        for volume in self.engine.volumes().await?.into_iter().filter(|volume| made.contains(&volume.name)) {
            if volume.labels.get(EXTENSION_LABEL).is_some_and(|id| id == installed.id.as_str()) {
                self.engine.remove_volume(&volume.name).await?;
            }
        }
        Ok(())
    }

    async fn is_used_elsewhere(&self, id: &ExtensionId, image: &str) -> Result<bool> {
        let all = self.store.extensions("", usize::MAX).await?;
        let uses = |other: &Installed| {
            other.record.reference == image
                || other.record.image_id.as_deref() == Some(image)
                || other.record.fetched_images.iter().any(|i| i == image)
        };
        Ok(all.iter().any(|other| other.id != *id && uses(other)))
    }

    /// Starts the containers of a disabled extension. Errors: GRANTS_REQUIRED, PROJECT_NAME_TAKEN, EXTENSION_BUSY,
    /// ENGINE_UNAVAILABLE.
    pub async fn enable(self: Arc<Self>, id: ExtensionId) -> Result<View> {
        let broker = self.clone();
        let work = async move {
            let _claim = broker.claims.take(&id)?;
            let mut installed = broker.installed(&id).await?;
            let needs = super::view::backend_needs(&installed);
            let missing = broker.store.decisions(&id).await?.missing(&needs);
            if !missing.is_empty() {
                return Err(super::install::grants_required(id.as_str(), missing));
            }
            // What is wanted is recorded first: its containers use its gateway when they start.
            installed.enabled = true;
            broker.store.save(&installed).await?;
            if let Err(error) = broker.start_built(&installed).await {
                installed.enabled = false;
                broker.store.save(&installed).await?;
                return Err(error);
            }
            broker.view(&id).await
        };
        self.tasks.spawn(work).await.map_err(broken_off)?
    }

    /// Stops the containers of an extension and ends its programs. Errors: EXTENSION_BUSY, ENGINE_UNAVAILABLE.
    pub async fn disable(self: Arc<Self>, id: ExtensionId) -> Result<View> {
        let broker = self.clone();
        let work = async move {
            let _claim = broker.claims.take(&id)?;
            let mut installed = broker.installed(&id).await?;
            // What is wanted is recorded first: whatever happens now, it shall not run.
            installed.enabled = false;
            broker.store.save(&installed).await?;
            broker.stop_containers(&id).await?;
            broker.view(&id).await
        };
        self.tasks.spawn(work).await.map_err(broken_off)?
    }

    /// Ends an extension's programs and stops its containers.
    pub(super) async fn stop_containers(&self, id: &ExtensionId) -> Result<()> {
        self.pools.close(id);
        self.gateways.end_connections(id.as_str());
        self.hub.end_all_of(id.as_str()).await;
        let ledger = self.store.ledger(Some(id)).await?;
        let containers = ledger.iter().filter(|entry| entry.kind == ResourceKind::Container);
        let stops = join_all(containers.map(|entry| self.engine.stop(&entry.id))).await;
        stops.into_iter().collect::<Result<Vec<()>>>()?;
        Ok(())
    }
}

fn broken_off(error: tokio::task::JoinError) -> Error {
    Error::bug("a change of an extension broke off").caused_by(error)
}
