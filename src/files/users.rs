//! The data directory of a broker that works for several users: one for each of them, closed to the others.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use super::layout::{Layout, check_owner, lock, make_private, names, set_mode};
use crate::model::error::Result;

/// Others pass through to what they know the name of.
const PASSAGE: u32 = 0o711;

/// The directory, held for this process alone as long as the value lives.
#[derive(Debug)]
pub struct Users {
    root: PathBuf,
    _lock: File,
}

impl Users {
    /// Makes or opens it and locks it.
    ///
    /// # Errors
    /// Those of [`Layout::open`].
    pub fn open(root: &Path) -> Result<Users> {
        for path in [root, &root.join("users")] {
            make_private(path)?;
            check_owner(path)?;
            set_mode(path, PASSAGE)?;
        }
        Ok(Users { root: root.to_owned(), _lock: lock(&root.join("lock"))? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Who has a directory in it, by uid.
    ///
    /// # Errors
    /// `FILE_FAILED`.
    pub fn known(&self) -> Result<Vec<u32>> {
        Ok(names(&self.root.join("users"))?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The directory of a user.
    ///
    /// # Errors
    /// Those of [`Layout::open_for`].
    pub fn layout(&self, uid: u32) -> Result<Layout> {
        Layout::open_for(&self.root.join("users").join(uid.to_string()), uid)
    }
}
