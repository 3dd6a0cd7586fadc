//! The ledger's side of what is made and goes: what the broker made for an extension is put on it, what the engine does
//! not have any more is struck off.

use std::collections::HashSet;

use super::{
    Broker,
    catalogue::{self, Object, ObjectKey},
    names::Names,
    proof::proof,
};
use crate::{
    clock::now_ms,
    engine::{Container, Network, Volume},
    model::{
        error::Result,
        extension::{Installed, LedgerEntry, Maker, OwnerSource, ResourceKind},
        labels,
        reference::ExtensionId,
    },
};

/// What is about to be put on the ledger, and as what it is listed before the engine's events tell of it.
#[derive(Default)]
struct New {
    entries: Vec<LedgerEntry>,
    objects: Vec<(ObjectKey, Object)>,
}

impl New {
    fn container(&mut self, of: &Installed, container: Container) {
        let service = service_of(&container);
        let entry =
            entry(&of.id, of.generation, Maker::Broker, ResourceKind::Container, &container.id, &container.name);
        self.entries.push(LedgerEntry { service, ..entry });
        self.objects.push(container.into());
    }

    fn network(&mut self, of: &Installed, network: Network) {
        let entry = entry(&of.id, of.generation, Maker::Broker, ResourceKind::Network, &network.id, &network.name);
        self.entries.push(entry);
        self.objects.push(network.into());
    }

    fn volume(&mut self, of: &Installed, name: &str, service: String) {
        let entry = entry(&of.id, of.generation, Maker::Broker, ResourceKind::Volume, name, name);
        self.entries.push(LedgerEntry { service, ..entry });
    }

    fn has_volume(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.kind == ResourceKind::Volume && entry.id == name)
    }
}

impl Broker {
    /// Puts on the ledger what proves to be this generation's and is not there: a start that broke off may have made it,
    /// when the broker was killed or the engine went away. Else it would count as somebody else's.
    pub(super) async fn record_unknown(&self, installed: &Installed) -> Result<()> {
        if !installed.record.backend.as_ref().is_some_and(|backend| backend.built) {
            return Ok(());
        }
        let ledger = self.store.ledger(Some(&installed.id)).await?;
        let is_known = |kind, id: &str| ledger.iter().any(|entry| entry.kind == kind && entry.id == id);
        let mut new = New::default();
        for container in self.made_containers(installed).await? {
            let is_ours = proof(&self.key, &(&container).into()).is_ok_and(|proof| proof.maker == Maker::Broker);
            if is_ours && !is_known(ResourceKind::Container, &container.id) {
                new.container(installed, container);
            }
        }
        for network in self.engine.networks().await? {
            let is_ours = self.is_made_under(&(&network).into(), |nonce| nonce == installed.record.network_nonce());
            if is_ours && !is_known(ResourceKind::Network, &network.id) {
                new.network(installed, network);
            }
        }
        if new.entries.is_empty() {
            return Ok(());
        }
        let objects = new.entries.len();
        tracing::info!(extension = %installed.id, objects, "found what a start that broke off had made");
        self.put_on_ledger(new).await
    }

    /// Puts what carries this generation's nonce on the ledger. Of the volumes those that were not there `before`, and
    /// those that are on it already: a label is a claim and no more.
    pub(super) async fn record_made(&self, installed: &Installed, names: &Names, before: &[Volume]) -> Result<()> {
        let volumes = &names.volumes;
        let ledger = self.store.ledger(Some(&installed.id)).await?;
        let is_ours = |name: &str| {
            !before.iter().any(|volume| volume.name == name)
                || ledger.iter().any(|entry| entry.kind == ResourceKind::Volume && entry.id == name)
        };
        let mut new = New::default();
        for container in self.made_containers(installed).await? {
            if proof(&self.key, &(&container).into()).is_err() {
                tracing::warn!(container = container.name, "a container bears a copy of an extension's labels");
                continue;
            }
            let details = self.engine.container(&container.id).await?;
            for mounted in details.into_iter().flat_map(|details| details.mounts) {
                let volume = &mounted.volume;
                if is_anonymous(volume) && !volumes.contains(volume) && is_ours(volume) {
                    new.volume(installed, volume, service_of(&container));
                }
            }
            new.container(installed, container);
        }
        for network in self.engine.networks().await? {
            // One that an earlier generation made is this one's from now on, if it is used.
            let known = ledger.iter().any(|entry| entry.kind == ResourceKind::Network && entry.id == network.id);
            let marked = self.is_made_under(&(&network).into(), |nonce| nonce == installed.record.network_nonce());
            if names.networks.contains(&network.name) && (known || marked) {
                new.network(installed, network);
            }
        }
        for volume in self.engine.volumes().await? {
            let is_named = self.bears(&volume, &installed.id) && volumes.contains(&volume.name);
            if is_named && is_ours(&volume.name) {
                new.volume(installed, &volume.name, String::new());
            }
            // Podman tells of the anonymous ones late.
            if new.has_volume(&volume.name) {
                new.objects.push(volume.into());
            }
        }
        self.put_on_ledger(new).await
    }

    /// The containers that bear a generation's nonce.
    async fn made_containers(&self, installed: &Installed) -> Result<Vec<Container>> {
        self.engine.containers(&[labels::made_under(&installed.record.nonce)]).await
    }

    async fn put_on_ledger(&self, new: New) -> Result<()> {
        let keys: Vec<_> = new.entries.iter().map(|entry| (entry.kind, entry.id.clone())).collect();
        self.store.record(new.entries).await?;
        self.catalogue.add(new.objects);
        self.catalogue.tell_again(&keys);
        Ok(())
    }

    /// Strikes off the ledger what the engine does not have any more.
    pub(super) async fn strike_gone(&self, id: &ExtensionId) -> Result<()> {
        // Read first: what is put on it meanwhile was not looked for.
        let ledger = self.store.ledger(Some(id)).await?;
        if ledger.is_empty() {
            return Ok(());
        }
        let there: HashSet<ObjectKey> =
            catalogue::objects(&self.engine, |_| true).await?.into_iter().map(|(key, _)| key).collect();
        let gone = ledger.into_iter().map(|entry| (entry.kind, entry.id)).filter(|entry| !there.contains(entry));
        self.store.strike(gone.collect()).await
    }
}

/// A line of the ledger for what was made for a generation, without a service. A volume that has a name is kept.
pub(super) fn entry(
    extension: &ExtensionId,
    generation: i64,
    maker: Maker,
    kind: ResourceKind,
    id: &str,
    name: &str,
) -> LedgerEntry {
    LedgerEntry {
        kind,
        id: id.to_owned(),
        name: name.to_owned(),
        extension: extension.to_string(),
        generation,
        service: String::new(),
        keep: kind == ResourceKind::Volume && !is_anonymous(id),
        source: OwnerSource::Created,
        maker,
        first_seen_ms: now_ms(),
    }
}

fn service_of(container: &Container) -> String {
    container.labels.get(labels::SERVICE).cloned().unwrap_or_default()
}

/// The engine names volumes that nobody named with 64 hexadecimal digits.
pub(super) fn is_anonymous(volume: &str) -> bool {
    volume.len() == 64 && volume.bytes().all(|byte| byte.is_ascii_hexdigit())
}
