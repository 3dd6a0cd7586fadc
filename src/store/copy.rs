//! A copy of a database, to be looked at: even to read one SQLite lays files beside it, and one of an older version is
//! changed when it is opened.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Store;
use crate::model::{
    error::{Error, Reason, Result},
    shell,
};

/// A copy; it goes with the value. What it says names the original.
#[derive(Debug)]
pub struct StoreCopy {
    original: PathBuf,
    copy: PathBuf,
    _scratch: tempfile::TempDir,
}

impl StoreCopy {
    /// Copies a database, with what was written last and is not in the file itself yet.
    ///
    /// # Errors
    ///
    /// `FILE_FAILED`.
    pub fn of(database: &Path) -> Result<StoreCopy> {
        let shown = database.display().to_string();
        let failed = |error: io::Error| {
            let message = format!("{shown} cannot be copied to be looked at ($TMPDIR says where to): {error}");
            Error::new(Reason::FileFailed, shown.clone(), message).caused_by(error)
        };
        let scratch = tempfile::tempdir().map_err(failed)?;
        let copy = scratch.path().join("longshore.db");
        for suffix in ["", "-wal"] {
            let with = |path: &Path| format!("{}{suffix}", path.display());
            match fs::copy(with(database), with(&copy)) {
                Err(error) if !suffix.is_empty() && error.kind() == io::ErrorKind::NotFound => {}
                copied => drop(copied.map_err(failed)?),
            }
        }
        Ok(StoreCopy { original: database.to_owned(), copy, _scratch: scratch })
    }

    /// Opens it, and looks whether it is sound.
    ///
    /// # Errors
    ///
    /// `STORE_DAMAGED`, `STORE_NEWER`, `STORE_UNWRITABLE`.
    pub async fn check(&self) -> Result<Store> {
        let checked = async {
            let store = Store::open(&self.copy)?;
            store.check().await?;
            Ok(store)
        };
        checked.await.map_err(|error: Error| {
            let original = self.original.display().to_string();
            let mend = |database: &Path| shell::repair(database.parent().unwrap_or(Path::new("/")));
            let message = error.message().replace(&mend(&self.copy), &mend(&self.original));
            let message = message.replace(&self.copy.display().to_string(), &original);
            Error::new(error.reason(), original, message)
        })
    }
}
