//! Removes a tree; what cannot be removed is told. No container has been at it: from Windows none shares a directory.

use std::{
    error::Error as StdError,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use crate::model::error::{Error, Reason};

/// What could not be removed.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Paths and why, the first hundred.
    pub listed: Vec<(PathBuf, io::Error)>,
    /// How many there are in all.
    pub total: u64,
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files could not be removed", self.total)?;
        match self.listed.first() {
            Some((path, error)) => write!(f, ", the first is {:?}: {error}", path.display().to_string()),
            None => Ok(()),
        }
    }
}

impl StdError for Leftovers {}

impl From<Leftovers> for Error {
    fn from(left: Leftovers) -> Self {
        let subject = left.listed.first().map(|(path, _)| path.display().to_string()).unwrap_or_default();
        Error::new(Reason::FileFailed, subject, left.to_string()).caused_by(left)
    }
}

/// Removes what lies at `path`, if anything: a file, a link (not what it leads to) or a whole directory.
///
/// # Errors
/// That it could not be removed, as a whole.
pub fn remove(path: &Path) -> Result<(), Leftovers> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Leftovers { listed: vec![(path.to_owned(), error)], total: 1 })
        }
        _ => Ok(()),
    }
}
