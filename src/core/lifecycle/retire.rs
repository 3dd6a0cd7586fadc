//! The end of an update: the old generation goes, or takes its place again.

use super::{
    super::{
        Broker,
        names::{aside_name, kept_image},
    },
    failpoint,
    remove::Goods,
};
use crate::model::{
    error::{Error, Result},
    extension::{Installed, LedgerEntry, Maker, ResourceKind},
    journal::Step,
    reference::Reference,
};

impl Broker {
    /// Removes every generation but the installed one, which was committed. Returns the named volumes, which stay.
    pub(super) async fn retire_old(&self, installed: &Installed) -> Result<Vec<String>> {
        let id = &installed.id;
        let generations = self.store.generations(id).await?;
        let ledger = self.store.ledger(Some(id)).await?;
        for old in generations.iter().filter(|one| one.generation != installed.generation) {
            self.remove_objects(&Goods::of_generation(old, &ledger, false)).await?;
            self.remove_generation_files(old).await?;
            self.remove_images(old, &self.images_in_use(installed)).await?;
            self.remove_replaced_image(old, installed).await?;
            failpoint::done(Step::UpdateRetire);
            self.store.finish_update(old, None).await?;
        }
        let kept = ledger.into_iter().filter(|entry| entry.kind == ResourceKind::Volume && entry.keep);
        Ok(kept.map(|entry| entry.name).collect())
    }

    fn images_in_use(&self, installed: &Installed) -> Vec<String> {
        let record = &installed.record;
        let own = [Some(record.reference.clone()), record.image_id.clone()];
        own.into_iter().flatten().chain(record.fetched_images.clone()).collect()
    }

    /// An image that lost its name to the new one, and that we had fetched, is of no use to anybody.
    async fn remove_replaced_image(&self, old: &Installed, new: &Installed) -> Result<()> {
        let fetched = old.record.fetched_images.contains(&old.record.reference);
        let Some(image) =
            old.record.image_id.as_ref().filter(|id| fetched && Some(*id) != new.record.image_id.as_ref())
        else {
            return Ok(());
        };
        match self.engine.image(image).await? {
            Some(left) if left.names.is_empty() => self.engine.remove_image(image).await.map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Takes away what there is of the new generation and puts the old one, `old`, back in its place.
    pub(super) async fn return_to_old(&self, old: &mut Installed) -> Result<()> {
        let id = old.id.clone();
        if old.change.as_ref().is_some_and(|change| change.step != Step::UpdateReturn) {
            self.step(old, Step::UpdateReturn).await?;
        }
        self.pools.close(&id);
        let Some(change) = old.change.clone() else { return Ok(()) };
        let generations = self.store.generations(&id).await?;
        let Some(new) = generations.into_iter().find(|one| Some(one.generation) == change.next) else {
            return Err(Error::bug(format!("{id}: the generation that an update was to bring is not on record")));
        };
        let ledger = self.give_networks_back(old, &new).await?;
        if new.record.backend.as_ref().is_some_and(|backend| backend.built) {
            self.remove_objects(&Goods::of_generation(&new, &ledger, false)).await?;
            self.remove_made_networks(&new).await?;
            self.remove_made_volumes(&new).await?;
            self.sweep_late_of(&new).await?;
        }
        if old.record.backend.as_ref().is_some_and(|backend| backend.built) {
            self.put_back(old, &ledger, &change.notes.running).await?;
        }
        self.remove_generation_files(&new).await?;
        for (name, image) in &change.notes.names {
            if self.engine.image(image).await?.is_some() {
                self.engine.tag(image, &name.parse::<Reference>()?).await?;
            }
        }
        self.remove_images(&new, &self.images_in_use(old)).await?;
        if change.notes.keeps_image {
            let kept = kept_image(&old.record.nonce);
            // Its own name may stand for another image by now: then ours has to hold it as long as it is installed.
            if self.engine.image(&kept).await?.is_some_and(|image| image.names.len() > 1) {
                self.engine.remove_image(&kept).await?;
            }
        }
        failpoint::done(Step::UpdateReturn);
        self.store.finish_update(&new, Some(old)).await?;
        tracing::info!(extension = %id, generation = old.generation, "went back to the old generation");
        Ok(())
    }

    /// Networks that both generations use are the old one's again. Returns the ledger as it is then.
    async fn give_networks_back(&self, old: &Installed, new: &Installed) -> Result<Vec<LedgerEntry>> {
        let mut ledger = self.store.ledger(Some(&old.id)).await?;
        let mut given = vec![];
        for entry in ledger.iter_mut().filter(|entry| {
            entry.kind == ResourceKind::Network
                && entry.maker == Maker::Broker
                && entry.generation == new.generation
                && !new.record.made_networks.contains(&entry.name)
        }) {
            entry.generation = old.generation;
            given.push(entry.clone());
        }
        self.store.record(given).await?;
        Ok(ledger)
    }

    /// Networks that the new generation made, also where it did not come to put them on the ledger.
    async fn remove_made_networks(&self, new: &Installed) -> Result<()> {
        let made = &new.record.made_networks;
        let nonce = new.record.network_nonce();
        for network in self.engine.networks().await?.into_iter().filter(|network| made.contains(&network.name)) {
            if self.is_made_under(&(&network).into(), |of| of == nonce) {
                self.engine.remove_network(&network.id).await?;
            }
        }
        Ok(())
    }

    /// Gives the old containers their names again and starts those that ran.
    async fn put_back(&self, old: &Installed, ledger: &[LedgerEntry], running: &[String]) -> Result<()> {
        let containers = ledger.iter().filter(|entry| entry.is_backend_of(old));
        let mut is_started = false;
        for entry in containers {
            let Some(container) = self.engine.container(&entry.id).await? else { continue };
            if container.name == aside_name(&entry.id) {
                self.engine.rename(&entry.id, &entry.name).await?;
            }
            if old.enabled && running.contains(&entry.id) && container.state != "running" {
                if !is_started {
                    self.clear_stale_socket(old).await;
                    is_started = true;
                }
                self.engine.start(&entry.id).await?;
            }
        }
        Ok(())
    }

    async fn remove_generation_files(&self, generation: &Installed) -> Result<()> {
        let directory = self.layout.extension(&generation.id);
        let number = generation.generation.unsigned_abs();
        let remove = move || directory.remove_generation(number).map_err(Into::into);
        super::super::blocking::blocking(remove).await
    }
}
