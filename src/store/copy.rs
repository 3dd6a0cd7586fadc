//! A copy of a database, to be looked at: even to read one SQLite lays files beside it, and one of an older version is
//! changed when it is opened.

use std::{fs, io, path::Path};

use super::Store;
use crate::model::error::{Error, Reason, Result};

/// A sound copy, opened; it goes with the value. What it says names the original.
#[derive(Debug)]
pub struct StoreCopy {
    store: Store,
    _scratch: tempfile::TempDir,
}

impl StoreCopy {
    /// Copies a database, with what was written last and is not in the file itself yet, and looks whether it is sound.
    ///
    /// # Errors
    ///
    /// `FILE_FAILED`, `STORE_DAMAGED`, `STORE_NEWER`, `STORE_UNWRITABLE`.
    pub async fn of(database: &Path) -> Result<StoreCopy> {
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
        let store = Store::open_as(&copy, database)?;
        store.check().await?;
        Ok(StoreCopy { store, _scratch: scratch })
    }

    /// What is in it.
    pub fn store(&self) -> &Store {
        &self.store
    }
}
