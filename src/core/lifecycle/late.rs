//! What the engine was asked for when an install broke off may come into being after that: the engine does not ask
//! whether anybody still waits for it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::super::{Broker, gateway::MAY_BE_LATE, proof::Marked};
use crate::{
    engine::Volume,
    model::{
        error::Result,
        extension::{Installed, Record, ResourceKind},
        labels,
        reference::ExtensionId,
    },
    store::Broken,
};

/// When it is looked after an install broke off.
const LOOK_AGAIN: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(25), Duration::from_secs(90)];

impl Broker {
    /// Looks a few times for what comes late.
    pub(super) fn spawn_late_sweeps(self: &Arc<Self>) {
        let broker = self.clone();
        self.tasks.spawn(async move {
            for pause in LOOK_AGAIN {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = broker.stopping.cancelled() => return,
                }
                let swept = match broker.sweep_late(None).await.map(drop).and(broker.settle_creates(None).await) {
                    Ok(()) => broker.engine.remove_earlier_temporaries().await.map(|_| ()),
                    failed => failed,
                };
                if let Err(error) = swept {
                    tracing::debug!(%error, "cannot look for what came late");
                }
            }
        });
    }

    /// Has a generation that broke off looked for from now on, and removes what came meanwhile. Whoever calls holds the
    /// claim.
    pub(super) async fn sweep_late_of(&self, generation: &Installed) -> Result<()> {
        let Record { nonce, made_volumes, .. } = &generation.record;
        let (extension, volumes) = (Some(generation.id.clone()), made_volumes.clone());
        self.store.note_broken(Broken { nonce: nonce.clone(), extension, volumes }).await?;
        self.sweep_late(Some(&generation.id)).await.map(drop)
    }

    /// Removes what was made for installs that broke off, and tells how many containers and networks those were. Whoever
    /// calls holds the claim on `held`.
    pub(in crate::core) async fn sweep_late(&self, held: Option<&ExtensionId>) -> Result<usize> {
        let broken = self.store.broken(MAY_BE_LATE).await?;
        if broken.is_empty() {
            return Ok(0);
        }
        let of = |object: &Marked<'_>| {
            let under = |broken: &&Broken| self.is_made_under(object, |nonce| broken.nonce == nonce);
            broken.iter().find(under)
        };
        let mut removed = 0;
        // The engine makes a volume that a container mounts and that is gone, without labels.
        let mut mounted = HashSet::new();
        for container in self.engine.containers(&[labels::NONCE.to_owned()]).await? {
            if let Some(broken) = of(&(&container).into()) {
                let mounts = self.engine.container(&container.id).await?.into_iter().flat_map(|found| found.mounts);
                mounted.extend(mounts.map(|mount| mount.volume).filter(|volume| broken.volumes.contains(volume)));
                self.engine.remove_container(&container.id).await?;
                removed += 1;
            }
        }
        for network in self.engine.networks().await? {
            if of(&(&network).into()).is_some() {
                removed += usize::from(self.engine.remove_network(&network.id).await?);
            }
        }
        for broken in broken.iter().filter(|broken| !broken.volumes.is_empty()) {
            self.sweep_late_volumes(broken, &mounted, held).await?;
        }
        Ok(removed)
    }

    /// Removes volumes of an install that broke off: a container that came late held them, or made them again.
    async fn sweep_late_volumes(
        &self,
        broken: &Broken,
        mounted: &HashSet<String>,
        held: Option<&ExtensionId>,
    ) -> Result<()> {
        let Some(id) = &broken.extension else { return Ok(()) };
        // Nobody shall begin to use them meanwhile.
        let claim = if held == Some(id) { None } else { self.claims.take_aside(id).ok() };
        if held != Some(id) && claim.is_none() {
            return Ok(());
        }
        let labelled = |volume: &Volume| self.bears(volume, id);
        let mut there = self.engine.volumes().await?;
        there.retain(|volume| broken.volumes.contains(&volume.name));
        there.retain(|volume| labelled(volume) || mounted.contains(&volume.name));
        if there.is_empty() {
            return Ok(());
        }
        let (generations, ledger) = (self.store.generations(id).await?, self.store.ledger(None).await?);
        let is_known = |name: &String| {
            generations.iter().any(|one| one.record.made_volumes.contains(name))
                || ledger.iter().any(|entry| entry.kind == ResourceKind::Volume && entry.id == *name)
        };
        for Volume { name, .. } in there.into_iter().filter(|volume| !is_known(&volume.name)) {
            tracing::info!(extension = %id, volume = name, "removing a volume that an install which broke off left");
            self.engine.remove_volume(&name).await?;
        }
        Ok(())
    }
}
