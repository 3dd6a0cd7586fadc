//! Finds again what a lost or damaged store knew: extensions by what is written down beside their files, objects of the
//! engine by the signature that they carry. It lists before anything is done, and what it cannot prove it leaves alone.

use super::{
    catalogue::{self, Object, ObjectKey},
    ledger::{self, is_anonymous},
    proof::{Marked, Proof, proof},
    written,
};
use crate::{
    clock::now_ms,
    engine::Engine,
    files::layout::Layout,
    model::{
        error::Result,
        extension::{Installed, LedgerEntry, Maker, OwnerSource, Record, ResourceKind},
        labels,
        reference::ExtensionId,
    },
    store::{Store, StoreCopy},
};

/// Finds and adopts.
#[derive(Debug)]
pub struct Repair {
    layout: Layout,
    engine: Engine,
}

/// What there is to adopt, and what is left alone.
#[derive(Debug, Default)]
pub struct Surveyed {
    /// Extensions that come to be on record again. Their grants do not.
    pub extensions: Vec<Installed>,
    /// Directories of extensions in which nothing is written down.
    pub unknown: Vec<String>,
    /// Objects that bear our signature.
    pub objects: Vec<LedgerEntry>,
    /// Objects that claim to be an extension's and do not prove it.
    pub unproved: Vec<Unproved>,
}

/// An object that claims to be an extension's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unproved {
    /// What it is.
    pub kind: ResourceKind,
    /// Its name.
    pub name: String,
    /// Why it is left alone.
    pub why: &'static str,
}

/// How a store that is not damaged is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Soundness {
    /// It can be read.
    Sound,
    /// It is not there, though extensions are.
    Missing,
    /// Neither it nor an extension is there.
    NothingThere,
}

impl Repair {
    /// Of a data directory, which is held meanwhile: no broker runs on it.
    pub fn new(layout: Layout, engine: Engine) -> Self {
        Repair { layout, engine }
    }

    /// Whether the store is sound; nothing is changed.
    ///
    /// # Errors
    ///
    /// `STORE_DAMAGED`, `STORE_NEWER`, `STORE_UNWRITABLE`, `FILE_FAILED`.
    pub async fn check(&self) -> Result<Soundness> {
        if !self.layout.database().exists() {
            let has_extensions = !self.layout.extensions()?.is_empty();
            return Ok(if has_extensions { Soundness::Missing } else { Soundness::NothingThere });
        }
        StoreCopy::of(&self.layout.database()).await?;
        Ok(Soundness::Sound)
    }

    /// Looks what there is; nothing is changed.
    ///
    /// # Errors
    ///
    /// `ENGINE_UNAVAILABLE`, `FILE_FAILED`.
    pub async fn survey(&self) -> Result<Surveyed> {
        let mut surveyed = Surveyed::default();
        for (name, directory) in self.layout.extensions()? {
            // The newest that is written down: an update writes just before it commits.
            let written = directory.generations()?.into_iter().rev().find_map(|number| {
                written::read(&directory.generation(number))
                    .filter(|found| found.generation.unsigned_abs() == number && found.id.slug() == name)
            });
            match written {
                Some(installed) => surveyed.extensions.push(installed),
                None => surveyed.unknown.push(name),
            }
        }
        let key = self.layout.known_key()?;
        let objects = self.objects().await?;
        let marked = |nonce: &str| {
            objects.iter().filter(|(_, object)| object.labels.get(labels::NONCE).is_some_and(|of| of == nonce)).count()
        };
        for ((kind, id), Object { name, labels, .. }) in &objects {
            let object = Marked { kind: *kind, id, name, labels };
            let proof = match &key {
                Some(key) => proof(key, &object),
                None => Err("the key is lost, so no signature can be checked"),
            };
            match proof {
                // The name was the extension's to choose: a copy of the labels would prove as much.
                Ok(Proof { maker: Maker::Extension, nonce, .. }) if marked(nonce) > 1 => {
                    let why = "something else bears the very same mark";
                    surveyed.unproved.push(Unproved { kind: *kind, name: name.clone(), why });
                }
                Ok(proof) => surveyed.objects.push(entry(&object, &proof)),
                Err(why) => surveyed.unproved.push(Unproved { kind: *kind, name: name.clone(), why }),
            }
        }
        self.add_anonymous(&mut surveyed).await?;
        self.add_owners(&mut surveyed);
        Ok(surveyed)
    }

    /// Puts the damaged store aside, where there is one, and makes a new one of what was surveyed. Returns where the old
    /// one lies.
    ///
    /// # Errors
    ///
    /// `FILE_FAILED`, `STORE_UNWRITABLE`.
    pub async fn adopt(&self, surveyed: Surveyed) -> Result<std::path::PathBuf> {
        let aside = self.layout.put_database_aside()?;
        let store = Store::open(&self.layout.database())?;
        store.adopt(surveyed.extensions, surveyed.objects).await?;
        Ok(aside)
    }

    /// The engine's objects that claim to be an extension's.
    async fn objects(&self) -> Result<Vec<(ObjectKey, Object)>> {
        let mut objects = catalogue::objects(&self.engine, |_| true).await?;
        objects.retain(|(_, object)| object.labels.contains_key(labels::EXTENSION));
        Ok(objects)
    }

    /// Volumes without a name came with the containers that are adopted, and go with them.
    async fn add_anonymous(&self, surveyed: &mut Surveyed) -> Result<()> {
        let mut added: Vec<LedgerEntry> = vec![];
        let is_ours = |entry: &&LedgerEntry| entry.kind == ResourceKind::Container && entry.maker == Maker::Broker;
        for container in surveyed.objects.iter().filter(is_ours) {
            let Some(details) = self.engine.container(&container.id).await? else { continue };
            let volumes = details.mounts.into_iter().map(|mount| mount.volume).filter(|volume| is_anonymous(volume));
            added.extend(volumes.map(|volume| LedgerEntry {
                kind: ResourceKind::Volume,
                id: volume.clone(),
                name: volume,
                keep: false,
                ..container.clone()
            }));
        }
        surveyed.objects.extend(added);
        Ok(())
    }

    /// An extension of which only objects are left gets a record with nothing in it, so that it can be removed.
    fn add_owners(&self, surveyed: &mut Surveyed) {
        for object in surveyed.objects.iter().filter(|object| !object.keep) {
            let is_known = |installed: &Installed| installed.id.as_str() == object.extension;
            let Ok(id) = object.extension.parse::<ExtensionId>() else { continue };
            if !surveyed.extensions.iter().any(is_known) {
                let record =
                    Record { reference: format!("{id}:unknown"), version: "unknown".into(), ..Record::default() };
                surveyed.extensions.push(Installed {
                    id,
                    generation: object.generation,
                    enabled: false,
                    installed_at_ms: now_ms(),
                    record,
                    change: None,
                });
            }
        }
    }
}

/// The line of the ledger for an object that proves whose it is.
fn entry(object: &Marked<'_>, proof: &Proof<'_>) -> LedgerEntry {
    let service = object.labels.get(labels::SERVICE).filter(|_| proof.maker == Maker::Broker);
    LedgerEntry {
        service: service.cloned().unwrap_or_default(),
        source: OwnerSource::Recovered,
        ..ledger::entry(&proof.extension, proof.generation, proof.maker, object.kind, object.id, object.name)
    }
}
