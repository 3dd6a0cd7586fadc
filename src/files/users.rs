//! The data directory of a broker that works for several users: one for each of them, closed to the others.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use super::{
    layout::{Layout, check_owner, lock, names},
    private::{make_private, set_mode},
};
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
        make_private(root)?;
        check_owner(root)?;
        // What another broker holds is not touched.
        let lock = lock(&root.join("lock"))?;
        let users = users_in(root);
        make_private(&users)?;
        check_owner(&users)?;
        set_mode(root, PASSAGE)?;
        set_mode(&users, PASSAGE)?;
        Ok(Users { root: root.to_owned(), _lock: lock })
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
        known_in(&self.root)
    }

    /// The directory of a user.
    ///
    /// # Errors
    /// Those of [`Layout::open_for`].
    pub fn layout(&self, uid: u32) -> Result<Layout> {
        Layout::open_for(&directory_of(&self.root, uid), uid)
    }
}

/// Who has a directory in the data directory of a broker that works for several users, by uid; nobody where there is none.
///
/// # Errors
/// `FILE_FAILED`.
pub fn known_in(root: &Path) -> Result<Vec<u32>> {
    Ok(names(&users_in(root))?.iter().filter_map(|name| name.parse().ok()).collect())
}

/// The directory of a user in it.
pub fn directory_of(root: &Path, uid: u32) -> PathBuf {
    users_in(root).join(uid.to_string())
}

/// Where the users have theirs in it.
pub fn users_in(root: &Path) -> PathBuf {
    root.join("users")
}
