//! Engines that share no directory with the broker: in a virtual machine, or on another one. What containers have of the
//! broker lies in volumes there, and is reached by a tunnel into each container.

use std::{io, path::Path};

use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, OnceCell};

use super::{Broker, blocking::blocking, ledger::entry};
use crate::{
    engine::Volume,
    exec::Reach,
    model::{
        error::{Error, Reason, Result},
        extension::{Installed, LedgerEntry, Maker, ResourceKind},
        labels,
        mounts::{Mounts, SHIM_NAME},
        reference::ExtensionId,
        signature::Mark,
    },
};

/// What the volume with the shim is made for.
const SHIM: &str = "shim";
/// How much of the shim's digest is kept beside it, in bytes.
const DIGEST_BYTES: usize = 16;
/// How much of the broker's own name stands in the names of its volumes.
const BROKER_CHARS: usize = 12;

/// Whether engine and broker share directories, and what is known of the volumes where they do not.
#[derive(Debug)]
pub(super) struct Apart {
    shared: OnceCell<bool>,
    /// Whether this run saw that the volume with the shim holds this broker's.
    has_shim: Mutex<bool>,
}

impl Apart {
    /// `shared` where that is settled; else the engine is asked when it matters.
    pub(super) fn new(shared: Option<bool>) -> Self {
        Apart { shared: OnceCell::new_with(shared), has_shim: Mutex::new(false) }
    }
}

impl Broker {
    /// Whether the engine's containers can have directories of the broker: they run on its kernel.
    ///
    /// # Errors
    ///
    /// `ENGINE_UNAVAILABLE` while that is not known.
    pub async fn shares_files(&self) -> Result<bool> {
        let ask = async || Ok(self.engine.kernels().await?.are_one());
        self.apart.shared.get_or_try_init(ask).await.copied()
    }

    /// Whether it is known that they share none. Asks nobody, so that calls go on while the engine is silent.
    pub(super) fn is_apart(&self) -> bool {
        self.apart.shared.get() == Some(&false)
    }

    /// How the shim in an extension's containers is reached, whose broker directory this is.
    pub(super) async fn reach<'a>(&self, broker_dir: &'a Path) -> Result<Reach<'a>> {
        Ok(if self.shares_files().await? { Reach::Shared(broker_dir) } else { self.reach_apart().await? })
    }

    /// The same where it is known that no directory is shared. Containers that another version of the broker made have its
    /// shim until then.
    pub(super) async fn reach_apart(&self) -> Result<Reach<'static>> {
        let mut has_shim = self.apart.has_shim.lock().await;
        if !*has_shim {
            let there = self.engine.volumes().await?;
            self.have_shim(&there, &mut has_shim).await?;
        }
        Ok(Reach::Apart)
    }

    /// What an extension's containers have of the broker, made or not.
    ///
    /// # Errors
    ///
    /// `ENGINE_UNAVAILABLE`.
    pub(super) async fn mounts(&self, id: &ExtensionId) -> Result<Mounts> {
        let directory = self.layout.extension(id);
        Ok(match self.shares_files().await? {
            true => Mounts::Shared { guest_dir: directory.guest(), broker_dir: directory.broker() },
            false => Mounts::Apart { guest: self.guest_volume(id), shim: self.shim_volume() },
        })
    }

    /// The same, there from now on. Volumes are on the ledger.
    ///
    /// # Errors
    ///
    /// `ENGINE_UNAVAILABLE`, `ENGINE_REFUSED`, `FILE_FAILED`, `SHIM_UNAVAILABLE`, `PROJECT_NAME_TAKEN`.
    pub(super) async fn have_mounts(&self, installed: &Installed) -> Result<Mounts> {
        let mounts = self.mounts(&installed.id).await?;
        if let Mounts::Apart { guest, .. } = &mounts {
            let there = self.engine.volumes().await?;
            if self.make_volume(guest, installed.id.as_str(), &there).await? {
                self.engine.open_volume(guest).await?;
            }
            let entry = entry(&installed.id, 0, Maker::Broker, ResourceKind::Volume, guest, guest);
            // It goes with the extension.
            self.store.record(vec![LedgerEntry { keep: false, ..entry }]).await?;
            self.have_shim(&there, &mut *self.apart.has_shim.lock().await).await?;
        }
        Ok(mounts)
    }

    /// Removes what a stopped backend left in the place of its socket.
    pub(super) async fn clear_socket_apart(&self, installed: &Installed, socket: &str) -> Result<()> {
        let guest = self.guest_volume(&installed.id);
        let there = self.engine.volumes().await?;
        // In a new one there is none.
        if !there.iter().any(|volume| volume.name == guest) {
            return Ok(());
        }
        self.have_shim(&there, &mut *self.apart.has_shim.lock().await).await?;
        let mounts = Mounts::Apart { guest, shim: self.shim_volume() };
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

    /// The name of the volume with the shim. All containers have the same, so that each has the shim of the broker that
    /// runs, whichever made it.
    fn shim_volume(&self) -> String {
        format!("longshore-{}-shim", self.short_name())
    }

    /// Has the volume with the shim be there, and hold this broker's. What runs of another goes on.
    async fn have_shim(&self, there: &[Volume], has_shim: &mut bool) -> Result<()> {
        let name = self.shim_volume();
        if *has_shim && there.iter().any(|volume| volume.name == name) {
            return Ok(());
        }
        self.hub.runs_in_containers()?;
        let shim = self.hub.shim().to_owned();
        let digest = blocking(move || digest(&shim)).await?;
        self.make_volume(&name, "", there).await?;
        self.engine.have_program(&name, SHIM_NAME, self.hub.shim(), &digest).await?;
        *has_shim = true;
        Ok(())
    }

    /// Makes a volume of ours, for an extension or for all: whether it is new.
    ///
    /// # Errors
    ///
    /// `PROJECT_NAME_TAKEN` where somebody else made one of that name.
    async fn make_volume(&self, name: &str, extension: &str, there: &[Volume]) -> Result<bool> {
        let mark = Mark { kind: ResourceKind::Volume, extension, generation: 0, name, nonce: "" };
        if let Some(volume) = there.iter().find(|volume| volume.name == name) {
            let signature = volume.labels.get(labels::SIGNATURE);
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
            labels = [(labels::EXTENSION.to_owned(), extension.to_owned())].into();
        }
        labels.insert(labels::SIGNATURE.into(), self.key.sign(&mark));
        self.engine.create_volume(name, labels).await?;
        Ok(true)
    }

    /// Removes the volume with the shim where no container uses it any more.
    pub(super) async fn remove_unused_shims(&self) -> Result<()> {
        let mut has_shim = self.apart.has_shim.lock().await;
        self.engine.filled().await;
        for volume in self.engine.volumes().await? {
            if self.engine.is_own(&volume.labels, SHIM) && self.engine.remove_volume(&volume.name).await? {
                *has_shim = false;
            }
        }
        Ok(())
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
