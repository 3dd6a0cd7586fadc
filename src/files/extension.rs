//! The directories of one extension and of its generations.

use std::{
    fs::{self, DirBuilder},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use cap_std::{ambient_authority, fs::Dir};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use super::{
    layout::{failed, names, private_file, set_mode},
    remove::{self, Leftovers},
    unpack::{Placement, Unpacker},
};
use crate::model::error::Result;

/// What belongs to one extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionDir {
    root: PathBuf,
}

/// The files of one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationDir {
    root: PathBuf,
}

/// A private directory under way to become a generation; it goes when the value is dropped.
#[derive(Debug)]
pub struct Staging {
    files: GenerationDir,
    promoted: bool,
}

impl ExtensionDir {
    pub(super) fn at(root: PathBuf) -> Self {
        ExtensionDir { root }
    }

    /// Makes the directories that are missing and sets their modes.
    ///
    /// # Errors
    /// `FILE_FAILED`, also where a link or a file lies in the way.
    pub fn create(&self) -> Result<()> {
        for (path, mode) in [
            (self.root.clone(), 0o700),
            (self.guest(), 0o777),
            (self.broker(), 0o755),
            (self.root.join("generations"), 0o700),
        ] {
            match DirBuilder::new().mode(mode).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("create", &path, error));
                }
                _ => set_mode(&path, mode)?,
            }
        }
        Ok(())
    }

    /// The extension's own directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Shared with the containers, which may put anything there. Use a [`super::guest::GuestDir`] to look into it.
    pub fn guest(&self) -> PathBuf {
        self.root.join("guest")
    }

    /// The broker's own files inside the containers, read-only there.
    pub fn broker(&self) -> PathBuf {
        self.root.join("broker")
    }

    /// The configuration of the docker command line when it runs for this extension, which keeps there what it logs in
    /// to.
    pub fn docker_config(&self) -> PathBuf {
        self.root.join("docker-config")
    }

    /// The files of generation `number`.
    pub fn generation(&self, number: u64) -> GenerationDir {
        GenerationDir { root: self.root.join("generations").join(number.to_string()) }
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
    pub fn remove_generation(&self, number: u64) -> Result<(), Leftovers> {
        remove::remove(&self.generation(number).root)
    }

    /// Removes everything. What a container's root left in `guest` may be beyond a plain user's rights; it is listed.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove(&self) -> Result<(), Leftovers> {
        remove::remove(&self.root)
    }
}

impl GenerationDir {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// `metadata.json` as it was in the image.
    pub fn metadata(&self) -> PathBuf {
        self.root.join("metadata.json")
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
        self.root.join("record.json")
    }

    /// The author's compose directory.
    pub fn compose(&self) -> PathBuf {
        self.root.join("compose")
    }

    /// The compose file that is run, made from the author's.
    pub fn compose_file(&self) -> PathBuf {
        self.root.join("compose.json")
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
        let (path, partial) = (self.root.join(name), self.root.join(format!(".{name}.partial")));
        private_file(&partial)
            .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(|error| failed("write", &path, error))
    }
}

impl Staging {
    pub(super) fn at(root: PathBuf) -> Self {
        Staging { files: GenerationDir { root }, promoted: false }
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
        match rename_new(&self.files.root, &target.root) {
            Ok(()) => self.promoted = true,
            // Somebody mounted a disk over `extensions`.
            Err(Errno::XDEV) => self.copy_to(extension, &target, number)?,
            Err(error) => return Err(failed("create", &target.root, error.into())),
        }
        Ok(target)
    }

    /// The slow way to promote.
    pub(super) fn copy_to(&self, extension: &ExtensionDir, target: &GenerationDir, number: u64) -> Result<()> {
        let partial = GenerationDir { root: extension.root.join("generations").join(format!(".{number}.partial")) };
        remove::remove(&partial.root)?;
        DirBuilder::new().mode(0o700).create(&partial.root).map_err(|error| failed("create", &partial.root, error))?;
        Unpacker::new(Placement::AsIs).copy_tree(&self.files.open()?, Path::new("."), &partial.open()?)?;
        rename_new(&partial.root, &target.root).map_err(|error| failed("create", &target.root, error.into()))
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

fn rename_new(from: &Path, to: &Path) -> Result<(), Errno> {
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
}
