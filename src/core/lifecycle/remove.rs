//! Takes away what an extension, or one generation of it, has: from our own records alone, by id, through the Engine API.
//! The image may be gone, the compose file broken.

use futures_util::future::join_all;

use super::{
    super::{Broker, names::kept_image},
    failpoint,
    uninstall::Removed,
};
use crate::model::{
    error::Result,
    extension::{Installed, LedgerEntry, Maker, ResourceKind},
    journal::{ChangeKind, Step},
    labels,
    reference::ExtensionId,
    registration::StopCause,
};

/// What in the engine shall go.
pub(super) struct Goods {
    /// Entries of the ledger.
    entries: Vec<LedgerEntry>,
    /// What was made under these goes as well, on the ledger or not.
    nonces: Vec<String>,
    /// Networks that bear such a nonce and stay: another generation uses them.
    spared: Vec<String>,
    /// Whether containers may stop in order. What a failed install made has nothing to save, and nobody waits for it.
    in_order: bool,
}

impl Goods {
    /// Everything that an extension has, except volumes that are kept.
    fn all(generations: &[Installed], ledger: &[LedgerEntry], in_order: bool) -> Self {
        let nonces = generations.iter().flat_map(|one| [one.record.nonce.clone(), one.record.network_nonce.clone()]);
        Goods {
            entries: ledger.iter().filter(|entry| !entry.keep).cloned().collect(),
            nonces: nonces.filter(|nonce| !nonce.is_empty()).collect(),
            spared: vec![],
            in_order,
        }
    }

    /// What the broker made for one generation.
    pub(super) fn of_generation(generation: &Installed, ledger: &[LedgerEntry], in_order: bool) -> Self {
        let (mine, others): (Vec<_>, Vec<_>) = ledger.iter().cloned().partition(|entry| {
            !entry.keep && entry.maker == Maker::Broker && entry.generation == generation.generation
        });
        Goods {
            entries: mine,
            nonces: vec![generation.record.nonce.clone()],
            spared: others.into_iter().filter(|entry| entry.kind == ResourceKind::Network).map(|e| e.id).collect(),
            in_order,
        }
    }

    fn ids(&self, kind: ResourceKind) -> Vec<String> {
        self.entries.iter().filter(|entry| entry.kind == kind).map(|entry| entry.id.clone()).collect()
    }

    fn is_meant(&self, nonce: &str) -> bool {
        self.nonces.iter().any(|mine| mine == nonce)
    }
}

impl Broker {
    /// Removes what an extension has, wherever it is. Volumes that an install made which did not come to its end go as
    /// well.
    pub(super) async fn remove_all(&self, installed: &mut Installed) -> Result<Removed> {
        let id = installed.id.clone();
        let change = installed.change.clone();
        let notes = change.as_ref().map(|change| change.notes.clone()).unwrap_or_default();
        let is_install = installed.changing() == Some(ChangeKind::Install);
        let undone = is_install || notes.unfinished;
        self.sessions.end_of(&id);
        self.end_use(&id, StopCause::Uninstalled).await;
        self.close_gateway(&id).await?;
        self.strike_gone(&id).await?;
        let mut removed = Removed::default();
        let generations = self.store.generations(&id).await?;
        let ledger = self.store.ledger(Some(&id)).await?;
        let built = generations.iter().any(|one| one.record.backend.as_ref().is_some_and(|backend| backend.built));
        if built || ledger.iter().any(|entry| !entry.keep) {
            self.remove_objects(&Goods::all(&generations, &ledger, !undone)).await?;
        }
        // Generations that did not come to be the installed one; of these, what is made late goes as well.
        let next = change.and_then(|change| change.next);
        let is_current = |one: &Installed| one.generation == installed.generation;
        let is_unfinished = |one: &&Installed| if is_current(one) { undone } else { Some(one.generation) == next };
        let unfinished: Vec<&Installed> = generations.iter().filter(is_unfinished).collect();
        for generation in &unfinished {
            if generation.record.backend.as_ref().is_some_and(|backend| backend.built) {
                self.sweep_late_of(generation).await?;
            }
            self.remove_made_volumes(generation).await?;
        }
        for volume in ledger.iter().filter(|entry| entry.kind == ResourceKind::Volume && entry.keep) {
            let is_of_unfinished = unfinished.iter().any(|one| one.record.made_volumes.contains(&volume.name));
            if (is_of_unfinished || notes.remove_volumes) && self.engine.remove_volume(&volume.id).await? {
                self.store.strike(vec![(volume.kind, volume.id.clone())]).await?;
                self.catalogue.forget([(volume.kind, volume.id.clone())]);
                removed.removed_volumes.push(volume.name.clone());
            } else {
                removed.kept_volumes.push(volume.name.clone());
            }
        }
        if built && self.is_apart() {
            self.remove_unused_shims().await?;
        }
        if !is_install {
            self.step(installed, Step::UninstallFiles).await?;
        }
        self.registrations.remove(&id);
        self.extension_sockets.close(&id);
        self.remove_files(&id).await?;
        for generation in &generations {
            removed.image_removed |= self.remove_images(generation, &[]).await?;
        }
        failpoint::current_done(installed);
        self.store.forget(&id).await?;
        Ok(removed)
    }

    /// Containers, networks and anonymous volumes: those on the ledger, and those that prove a nonce.
    pub(super) async fn remove_objects(&self, goods: &Goods) -> Result<()> {
        let mut containers = goods.ids(ResourceKind::Container);
        let marked = self.engine.containers(&[labels::NONCE.to_owned()]).await?;
        let marked =
            marked.into_iter().filter(|found| self.is_made_under(&found.into(), |nonce| goods.is_meant(nonce)));
        containers.extend(marked.map(|container| container.id));
        containers.sort();
        containers.dedup();
        let ends = containers.iter().map(|container| async move {
            if goods.in_order
                && let Err(error) = self.engine.stop(container).await
            {
                tracing::warn!(%error, container, "a container does not stop in order; it is killed");
            }
            self.engine.remove_container(container).await
        });
        join_all(ends).await.into_iter().collect::<Result<Vec<()>>>()?;
        self.catalogue.forget(containers.into_iter().map(|id| (ResourceKind::Container, id)));
        let mut networks = goods.ids(ResourceKind::Network);
        let marked = self.engine.networks().await?.into_iter();
        let marked = marked.filter(|found| self.is_made_under(&found.into(), |nonce| goods.is_meant(nonce)));
        networks.extend(marked.map(|network| network.id).filter(|id| !goods.spared.contains(id)));
        networks.sort();
        networks.dedup();
        for network in &networks {
            if self.engine.remove_network(network).await? {
                self.catalogue.forget([(ResourceKind::Network, network.clone())]);
            } else {
                tracing::warn!(network, "a network stays: other containers use it");
            }
        }
        for volume in goods.ids(ResourceKind::Volume) {
            self.engine.remove_volume(&volume).await?;
        }
        Ok(())
    }

    /// Volumes that a generation which broke off made, also where it did not come to put them on the ledger.
    pub(super) async fn remove_made_volumes(&self, generation: &Installed) -> Result<()> {
        let made = &generation.record.made_volumes;
        if made.is_empty() {
            return Ok(());
        }
        for volume in self.engine.volumes().await?.into_iter().filter(|volume| made.contains(&volume.name)) {
            if self.bears(&volume, &generation.id) {
                self.engine.remove_volume(&volume.name).await?;
                self.store.strike(vec![(ResourceKind::Volume, volume.name)]).await?;
            }
        }
        Ok(())
    }

    /// Images that came into the engine for a generation, and that nobody else uses; `spared` stay. True when the one it
    /// was installed from went.
    pub(super) async fn remove_images(&self, generation: &Installed, spared: &[String]) -> Result<bool> {
        let record = &generation.record;
        let mut removed = false;
        for image in record.fetched_images.iter().filter(|image| !spared.contains(image)) {
            if !self.is_used_elsewhere(&generation.id, image).await? && self.engine.remove_image(image).await? {
                removed |= *image == record.reference || Some(image) == record.image_id.as_ref();
            }
        }
        if record.image_id.is_some() {
            self.engine.remove_image(&kept_image(&record.nonce)).await?;
        }
        Ok(removed)
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
}
