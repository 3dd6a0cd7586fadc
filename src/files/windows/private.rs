//! Files and directories that are nobody else's. What they inherit says so: the data directory lies in the user's own
//! part of the disk, which is closed to others.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    path::Path,
};

use super::layout::failed;
use crate::model::error::{Error, Reason, Result};

/// The process that holds a data directory, which Windows does not tell.
pub fn holder_of(_data: &Path) -> Option<i32> {
    None
}

/// Whether a file is a program that this user may run.
pub fn is_program(path: &Path) -> bool {
    path.is_file()
}

/// Makes one directory. Modes mean nothing here.
///
/// # Errors
/// What the system says.
pub fn make_dir(path: &Path, _mode: u32) -> io::Result<()> {
    DirBuilder::new().create(path)
}

/// Makes a directory, and those above it; one that is there stays as it is.
pub(super) fn make_private(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).create(path).map_err(|error| failed("create", path, error))
}

/// Whether a directory may hold the broker's data.
///
/// # Errors
/// `CONFIG_INVALID` for what is no directory; `FILE_FAILED`.
pub fn check_owner(path: &Path) -> Result<()> {
    let found = fs::metadata(path).map_err(|error| failed("open", path, error))?;
    if found.is_dir() {
        return Ok(());
    }
    let shown = path.display().to_string();
    Err(Error::new(Reason::ConfigInvalid, shown.clone(), format!("data directory {shown:?} is not a directory")))
}

/// Takes from others what rights they have: none, by what is inherited.
pub(super) fn close_to_others(_path: &Path) -> Result<()> {
    Ok(())
}

/// Opens a file for writing; it is emptied.
pub(super) fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).open(path)
}

/// Modes mean nothing here; that it is a directory does.
pub(super) fn set_mode(path: &Path, _mode: u32) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(failed("use", path, io::ErrorKind::NotADirectory.into())),
        Err(error) => Err(failed("open", path, error)),
    }
}

/// Gives something another name, under which there is nothing.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

/// Makes no link: a broker that works for several users has them, which is not there on Windows.
pub(super) fn link(_to: &Path, _at: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Lets nobody else in.
pub(super) fn admit(_directory: &Path, _uid: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Gives nobody anything.
pub(super) fn open_tree_to_user(_path: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes nothing anybody's: there is one user.
///
/// # Errors
/// None here.
pub fn hand_over(_path: &Path, _uid: u32) -> io::Result<()> {
    Ok(())
}

/// How a file is opened that anybody named.
pub fn readable() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true);
    options
}
