//! The directories of one extension and of its generations.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use cap_std::{ambient_authority, fs::Dir};
use sha2::{Digest, Sha256};

use super::{
    layout::{SHORT, failed, names, write_private},
    private::{link, make_dir, open_tree_to_user, rename_new, set_mode},
    remove::{self, Remains},
    unpack::{Placement, Unpacker},
};
use crate::model::error::Result;

/// What the store says of a generation, among its files.
pub const RECORD: &str = "record.json";
/// The compose file that is run, among the files of a generation.
pub const COMPOSE_FILE: &str = "compose.json";
/// How much of a hash makes a name that no two extensions have.
const SHORT_BYTES: usize = 8;

/// What belongs to one extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionDir {
    root: PathBuf,
    /// Whether a user who is not the broker's has to find files in it.
    is_for_user: bool,
}

/// The files of one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationDir {
    root: PathBuf,
    /// Whether it is laid out for a user who is not the broker's.
    is_for_user: bool,
}

/// A private directory under way to become a generation; it goes when the value is dropped.
#[derive(Debug)]
pub struct Staging {
    files: GenerationDir,
    promoted: bool,
}

impl ExtensionDir {
    pub(super) fn at(root: PathBuf, is_for_user: bool) -> Self {
        ExtensionDir { root, is_for_user }
    }

    /// Makes the directories that are missing and sets their modes.
    ///
    /// # Errors
    /// `FILE_FAILED`, also where a link or a file lies in the way.
    pub fn create(&self) -> Result<()> {
        let passage = if self.is_for_user { 0o711 } else { 0o700 };
        let hidden = self.is_for_user.then(|| (self.root.join("hidden"), 0o700));
        let own = [(self.guest(), 0o777), (self.broker(), 0o755), (self.root.join("generations"), passage)];
        for (path, mode) in std::iter::once((self.root.clone(), passage)).chain(hidden).chain(own) {
            match make_dir(&path, mode) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("create", &path, error));
                }
                _ => set_mode(&path, mode)?,
            }
        }
        match self.short_broker() {
            Some(short) => match link(&self.broker(), &short) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("create", &short, error)),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// The extension's own directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Shared with the containers, which may put anything there. Use a [`super::guest::GuestDir`] to look into it.
    pub fn guest(&self) -> PathBuf {
        if self.is_for_user { self.root.join("hidden/guest") } else { self.root.join("guest") }
    }

    /// The broker's own files inside the containers, read-only there.
    pub fn broker(&self) -> PathBuf {
        self.root.join("broker")
    }

    /// A short way to the same for a user who is not the broker's; where there is none, that user cannot come there.
    pub fn short_broker(&self) -> Option<PathBuf> {
        let slug = self.root.file_name().filter(|_| self.is_for_user)?;
        let hash = Sha256::digest(slug.as_encoded_bytes());
        let name: String = hash.iter().take(SHORT_BYTES).map(|byte| format!("{byte:02x}")).collect();
        Some(self.root.parent()?.parent()?.join(SHORT).join(name))
    }

    /// The configuration of the docker command line when it runs for this extension, which keeps there what it logs in
    /// to.
    pub fn docker_config(&self) -> PathBuf {
        self.root.join("docker-config")
    }

    /// The files of generation `number`.
    pub fn generation(&self, number: u64) -> GenerationDir {
        GenerationDir { root: self.root.join("generations").join(number.to_string()), is_for_user: self.is_for_user }
    }

    /// Numbers of the generations that have files, in order.
    ///
    /// # Errors
    /// `FILE_FAILED`.
    pub fn generations(&self) -> Result<Vec<u64>> {
        let mut found: Vec<u64> =
            names(&self.root.join("generations"))?.iter().filter_map(|name| name.parse().ok()).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Removes the files of one generation.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove_generation(&self, number: u64) -> Result<(), Remains> {
        remove::remove(&self.generation(number).root)
    }

    /// Removes everything. What a container's root left in `guest` may be beyond a plain user's rights; it is listed.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove(&self) -> Result<(), Remains> {
        if let Some(short) = self.short_broker() {
            let _ = fs::remove_file(short);
        }
        remove::remove(&self.root)
    }
}

impl GenerationDir {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The UI's files.
    pub fn ui(&self) -> PathBuf {
        self.root.join("ui")
    }

    /// Holds the icon's file.
    pub fn icon(&self) -> PathBuf {
        self.root.join("icon")
    }

    /// Host binaries.
    pub fn host(&self) -> PathBuf {
        self.root.join("host")
    }

    /// What the store says of the generation, for the day on which there is no store.
    pub fn record(&self) -> PathBuf {
        self.root.join(RECORD)
    }

    /// The author's compose directory. Containers may write it and set its mode: where a user who is not the broker's finds
    /// files, it lies below a directory that is closed to that user, and that no container has.
    pub fn compose(&self) -> PathBuf {
        if self.is_for_user { self.hidden().join("compose") } else { self.root.join("compose") }
    }

    fn hidden(&self) -> PathBuf {
        self.root.join("hidden")
    }

    /// The compose file that is run, made from the author's.
    pub fn compose_file(&self) -> PathBuf {
        self.root.join(COMPOSE_FILE)
    }

    /// Lets others read and run what is for the user, and nobody but the broker write it. What containers may write is
    /// moved out of their reach.
    fn open_to_user(&self) -> Result<()> {
        let hidden = self.hidden();
        match make_dir(&hidden, 0o700) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed("create", &hidden, error)),
            _ => set_mode(&hidden, 0o700)?,
        }
        let compose = self.root.join("compose");
        match fs::rename(&compose, hidden.join("compose")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("move", &compose, error)),
            _ => set_mode(&self.root, 0o711)?,
        }
        for tree in [self.ui(), self.icon(), self.host()] {
            open_tree_to_user(&tree).map_err(|error| failed("set the modes in", &tree, error))?;
        }
        Ok(())
    }

    /// The directory, opened; files below are reached through it without leaving it.
    ///
    /// # Errors
    /// `FILE_FAILED`.
    pub fn open(&self) -> Result<Dir> {
        Dir::open_ambient_dir(&self.root, ambient_authority()).map_err(|error| failed("open", &self.root, error))
    }

    /// Writes a file that only the broker's user may read, whole or not at all.
    ///
    /// # Errors
    /// `FILE_FAILED`.
    pub fn write_private(&self, name: &str, content: &[u8]) -> Result<()> {
        write_private(&self.root, name, content)
    }
}

impl Staging {
    pub(super) fn at(root: PathBuf) -> Self {
        Staging { files: GenerationDir { root, is_for_user: false }, promoted: false }
    }

    /// The files so far.
    pub fn files(&self) -> &GenerationDir {
        &self.files
    }

    /// Makes the files those of generation `number`, in one step.
    ///
    /// # Errors
    /// `FILE_FAILED`, also if that generation has files already.
    pub fn promote(mut self, extension: &ExtensionDir, number: u64) -> Result<GenerationDir> {
        let target = extension.generation(number);
        if extension.is_for_user {
            self.files.open_to_user()?;
        }
        match rename_new(&self.files.root, &target.root) {
            Ok(()) => self.promoted = true,
            // Somebody mounted a disk over `extensions`.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => self.copy_to(extension, &target, number)?,
            Err(error) => return Err(failed("create", &target.root, error)),
        }
        Ok(target)
    }

    /// The slow way to promote.
    pub(super) fn copy_to(&self, extension: &ExtensionDir, target: &GenerationDir, number: u64) -> Result<()> {
        let root = extension.root.join("generations").join(format!(".{number}.partial"));
        let partial = GenerationDir { root, is_for_user: extension.is_for_user };
        remove::remove(&partial.root)?;
        let copied = self.copy_into(&partial, extension.is_for_user).and_then(|()| {
            rename_new(&partial.root, &target.root).map_err(|error| failed("create", &target.root, error))
        });
        if copied.is_err() {
            // Its number does not come again, so that nobody would take it away.
            let _ = remove::remove(&partial.root);
        }
        copied
    }

    fn copy_into(&self, partial: &GenerationDir, is_for_user: bool) -> Result<()> {
        make_dir(&partial.root, 0o700).map_err(|error| failed("create", &partial.root, error))?;
        Unpacker::new(Placement::AsIs).copy_tree(&self.files.open()?, Path::new("."), &partial.open()?)?;
        if is_for_user { partial.open_to_user() } else { Ok(()) }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.promoted
            && let Err(left) = remove::remove(&self.files.root)
        {
            tracing::warn!(%left, "staged files stay until the next start");
        }
    }
}
