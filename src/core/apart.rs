//! Engines that share no directory with the broker: in a virtual machine, or on another one. What containers have of the
//! broker lies in volumes there, and is reached by a tunnel into each container.

use std::{io, path::Path};

use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, OnceCell};

use super::{Broker, ownership::EXTENSION_LABEL, package::blocking};
use crate::{
    engine::{Mounts, Volume},
    exec::Way,
    files::extension::ExtensionDir,
    model::{
        compose::labels::SIGNATURE,
        error::{Error, Reason, Result},
        extension::{Installed, LedgerEntry, Maker, OwnerSource, ResourceKind},
        reference::ExtensionId,
        signature::Mark,
    },
    store::now_ms,
};

/// What the volume with the shim is made for.
const SHIM: &str = "shim";
/// The shim's name in it.
const SHIM_NAME: &str = "shim";
/// How much of the shim's digest stands in the name of its volume, in bytes.
const DIGEST_BYTES: usize = 8;
/// How much of the broker's own name stands in the names of its volumes.
const BROKER_CHARS: usize = 12;

/// Whether engine and broker share directories, and what is known of the volumes where they do not.
#[derive(Debug)]
pub(super) struct Apart {
    shared: OnceCell<bool>,
    /// Name of the volume with the shim, once it was filled by this run.
    shim: Mutex<Option<String>>,
}

impl Apart {
    /// `shared` where that is settled; else the engine is asked when it matters.
    pub(super) fn new(shared: Option<bool>) -> Self {
        Apart { shared: OnceCell::new_with(shared), shim: Mutex::new(None) }
    }
}

impl Broker {
    /// Whether the engine's containers can have directories of the broker: they run on its kernel. Errors:
    /// ENGINE_UNAVAILABLE while that is not known.
    pub async fn shares_files(&self) -> Result<bool> {
        let ask = async || Ok(self.engine.kernels().await?.are_one());
        self.apart.shared.get_or_try_init(ask).await.copied()
    }

    /// Whether it is known that they share none. Asks nobody, so that calls go on while the engine is silent.
    pub(super) fn is_apart(&self) -> bool {
        self.apart.shared.get() == Some(&false)
    }

    /// How the shim in an extension's containers is reached, whose broker directory this is.
    pub(super) async fn way<'a>(&self, broker_dir: &'a Path) -> Result<Way<'a>> {
        Ok(if self.shares_files().await? { Way::Shared(broker_dir) } else { Way::Apart })
    }

    /// What an extension's containers have of the broker. Volumes are made where there are none, and are on the ledger.
    ///
    /// Errors: ENGINE_UNAVAILABLE, ENGINE_REFUSED, FILE_FAILED, SHIM_UNAVAILABLE, PROJECT_NAME_TAKEN.
    pub(super) async fn mounts(&self, installed: &Installed, directory: &ExtensionDir) -> Result<Mounts> {
        if self.shares_files().await? {
            return Ok(Mounts::Shared { guest_dir: directory.guest(), broker_dir: directory.broker() });
        }
        let there = self.engine.volumes().await?;
        let guest = self.guest_volume(&installed.id);
        if self.make_volume(&guest, installed.id.as_str(), &there).await? {
            self.engine.open_volume(&guest).await?;
        }
        self.store.record(vec![guest_entry(&installed.id, &guest)]).await?;
        Ok(Mounts::Apart { guest, shim: self.shim_volume(&there).await? })
    }

    /// Removes what a stopped backend left in the place of its socket.
    pub(super) async fn clear_socket_apart(&self, installed: &Installed, socket: &str) -> Result<()> {
        let guest = self.guest_volume(&installed.id);
        let there = self.engine.volumes().await?;
        // In a new one there is none.
        if !there.iter().any(|volume| volume.name == guest) {
            return Ok(());
        }
        let mounts = Mounts::Apart { guest, shim: self.shim_volume(&there).await? };
        self.engine.unlink_socket(&mounts, socket).await
    }

    /// The name of the volume that stands for an extension's guest directory.
    fn guest_volume(&self, id: &ExtensionId) -> String {
        // Of these characters a volume's name may not have all.
        format!("longshore-{}-guest-{}", self.short_name(), id.slug().replace('=', "."))
    }

    fn short_name(&self) -> &str {
        let name = self.engine.broker();
        name.get(..BROKER_CHARS).unwrap_or(name)
    }

    /// The volume with the shim, filled by this run.
    async fn shim_volume(&self, there: &[Volume]) -> Result<String> {
        let mut known = self.apart.shim.lock().await;
        if let Some(name) = known.as_ref().filter(|name| there.iter().any(|volume| volume.name == **name)) {
            return Ok(name.clone());
        }
        self.hub.runs_in_containers()?;
        let shim = self.hub.shim().to_owned();
        let digest = blocking(move || digest(&shim)).await?;
        let name = format!("longshore-{}-shim-{digest}", self.short_name());
        self.make_volume(&name, "", there).await?;
        // One that is there may have been filled by half.
        self.engine.put_program(&name, SHIM_NAME, self.hub.shim()).await?;
        *known = Some(name.clone());
        Ok(name)
    }

    /// Makes a volume of ours, for an extension or for all: whether it is new. Errors: PROJECT_NAME_TAKEN where somebody
    /// else made one of that name.
    async fn make_volume(&self, name: &str, extension: &str, there: &[Volume]) -> Result<bool> {
        let mark = Mark { kind: ResourceKind::Volume, extension, generation: 0, name, nonce: "" };
        if let Some(volume) = there.iter().find(|volume| volume.name == name) {
            let signature = volume.labels.get(SIGNATURE);
            return match signature.is_some_and(|signature| self.key.verifies(&mark, signature)) {
                true => Ok(false),
                false => {
                    let message = format!("the volume {name} was made by somebody else; remove it");
                    Err(Error::new(Reason::ProjectNameTaken, name, message))
                }
            };
        }
        let mut labels = self.engine.own_labels(SHIM);
        if !extension.is_empty() {
            labels = [(EXTENSION_LABEL.to_owned(), extension.to_owned())].into();
        }
        labels.insert(SIGNATURE.into(), self.key.sign(&mark));
        self.engine.create_volume(name, labels).await?;
        Ok(true)
    }

    /// Removes the volumes with shims that no container uses any more.
    pub(super) async fn remove_unused_shims(&self) -> Result<()> {
        let mut known = self.apart.shim.lock().await;
        for volume in self.engine.volumes().await? {
            if self.engine.is_own(&volume.labels, SHIM) && self.engine.remove_volume(&volume.name).await? {
                known.take_if(|name| *name == volume.name);
            }
        }
        Ok(())
    }
}

/// The line of the ledger for a guest volume, which goes with the extension.
fn guest_entry(id: &ExtensionId, name: &str) -> LedgerEntry {
    LedgerEntry {
        kind: ResourceKind::Volume,
        id: name.to_owned(),
        name: name.to_owned(),
        extension: id.to_string(),
        generation: 0,
        service: String::new(),
        keep: false,
        source: OwnerSource::Created,
        maker: Maker::Broker,
        first_seen_ms: now_ms(),
    }
}

/// The beginning of a file's digest.
fn digest(path: &Path) -> Result<String> {
    let hash = || -> io::Result<Sha256> {
        let (mut hash, mut file) = (Sha256::new(), std::fs::File::open(path)?);
        io::copy(&mut file, &mut HashWriter(&mut hash))?;
        Ok(hash)
    };
    let hash = hash().map_err(|error| {
        let shown = path.display().to_string();
        Error::new(Reason::FileFailed, &shown, format!("{shown} cannot be read: {error}")).caused_by(error)
    })?;
    Ok(hex::encode(&hash.finalize()[..DIGEST_BYTES]))
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
