//! Removes a tree; what cannot be removed is told. No container has been at it: from Windows none shares a directory.

use std::{fs, io, path::Path};

pub use super::remains::Remains;

/// Removes what lies at `path`, if anything: a file, a link (not what it leads to) or a whole directory.
///
/// # Errors
/// That it could not be removed, as a whole.
pub fn remove(path: &Path) -> Result<(), Remains> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Remains { listed: vec![(path.to_owned(), error)], total: 1 })
        }
        _ => Ok(()),
    }
}
