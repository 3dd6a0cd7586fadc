//! A tree of files as it is being written: whatever the source says, nothing lands outside the destination, which is
//! held open.
//!
//! Links are copied where they lead to a file of the tree: to make one takes a privilege that few users have.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Component, Path, PathBuf},
};

use cap_std::fs::Dir;

use super::{
    account::{Account, copy, cut_short, failed},
    name::{is_one_on_windows, refused},
    unpack::{Limits, Unpacked},
};
use crate::model::error::{Error, Result};

/// The tree.
pub(super) struct Tree<'a> {
    root: Dir,
    /// What is taken, and what is left out.
    pub(super) account: Account<'a>,
    links: BTreeMap<PathBuf, PathBuf>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(destination: &Dir, limits: &'a Limits) -> Result<Self> {
        let root = destination.try_clone().map_err(|error| failed(Path::new(""), error))?;
        Ok(Tree { root, account: Account::new(limits), links: BTreeMap::new() })
    }

    /// A directory; what was there under the name is replaced unless it is a directory.
    pub(super) fn dir(&mut self, path: &Path, _mode: u32) -> Result<()> {
        check(path)?;
        let mut at = PathBuf::new();
        for name in path {
            at.push(name);
            self.links.remove(&at);
            if self.root.symlink_metadata(&at).is_ok_and(|found| !found.is_dir()) {
                self.root.remove_file(&at).map_err(|error| failed(&at, error))?;
            }
        }
        if !path.as_os_str().is_empty() {
            self.root.create_dir_all(path).map_err(|error| failed(path, error))?;
        }
        Ok(())
    }

    /// A file of `size` bytes; it replaces what was there.
    pub(super) fn file(&mut self, path: &Path, _mode: u32, size: u64, content: &mut dyn Read) -> Result<()> {
        self.account.count_bytes(path.as_os_str().as_encoded_bytes(), size)?;
        self.free_place(path)?;
        let mut file = self.root.create(path).map_err(|error| failed(path, error))?;
        let copied = copy(path, size, content, &mut file)?;
        if copied != size {
            return Err(cut_short(path, copied, size));
        }
        Ok(())
    }

    /// A symbolic link, copied at the end if it leads to a file inside.
    pub(super) fn symlink(&mut self, path: &Path, target: &Path) -> Result<()> {
        self.account.count_link(path, target)?;
        self.free_place(path)?;
        self.links.insert(path.to_owned(), target.to_owned());
        Ok(())
    }

    /// A second name for a file that was written before; otherwise it is left out with a warning.
    pub(super) fn hardlink(&mut self, path: &Path, existing: &Path) -> Result<()> {
        if let Some(target) = self.links.get(existing).cloned() {
            return self.symlink(path, &target);
        }
        if path == existing {
            return Ok(());
        }
        if !self.root.symlink_metadata(existing).is_ok_and(|found| found.is_file()) {
            self.account.warn(path, "left out: a hard link to what was not taken before");
            return Ok(());
        }
        self.free_place(path)?;
        self.root.hard_link(existing, &self.root, path).map_err(|error| failed(path, error))
    }

    /// Lays the links. `base` is the directory that they may not leave, `image_path` where it was in the image.
    pub(super) fn finish(mut self, base: &Path, image_path: Option<&Path>) -> Result<Unpacked> {
        for (path, target) in std::mem::take(&mut self.links) {
            let Some(leads_to) = end_of(&path, &target, base, image_path) else {
                self.account.warn(&path, "left out: a link to a place outside");
                continue;
            };
            let Ok(found) = self.root.symlink_metadata(&leads_to) else {
                self.account.warn(&path, "left out: a link that leads nowhere");
                continue;
            };
            if !found.is_file() {
                self.account.warn(&path, "left out: a link to what is no file");
                continue;
            }
            self.account.count_bytes(path.as_os_str().as_encoded_bytes(), found.len())?;
            self.root.copy(&leads_to, &self.root, &path).map_err(|error| failed(&path, error))?;
        }
        Ok(self.account.close())
    }

    /// Makes the name free: the directory above exists, and nothing lies under the name.
    fn free_place(&mut self, path: &Path) -> Result<()> {
        let Some(parent) = path.parent() else {
            return Err(refused(b".", "the top of the archive must be a directory"));
        };
        check(path)?;
        self.dir(parent, 0)?;
        self.links.remove(path);
        let removed = match self.root.symlink_metadata(path) {
            Ok(found) if found.is_dir() => self.root.remove_dir_all(path),
            Ok(_) => self.root.remove_file(path),
            Err(_) => Ok(()),
        };
        removed.map_err(|error| failed(path, error))
    }
}

/// Refuses what is a name elsewhere and means something else here.
fn check(path: &Path) -> Result<()> {
    for component in path.components() {
        match component {
            Component::Normal(name) if name.to_str().is_some_and(is_one_on_windows) => {}
            _ => return Err(wrong(path)),
        }
    }
    Ok(())
}

fn wrong(path: &Path) -> Error {
    refused(path.as_os_str().as_encoded_bytes(), "Windows takes no such name")
}

/// Where a link leads, below the destination; `None` for a place outside.
fn end_of(path: &Path, target: &Path, base: &Path, image_path: Option<&Path>) -> Option<PathBuf> {
    let text = target.to_str()?;
    let mut here: Vec<&str> = match text.strip_prefix('/') {
        // By its place in the image.
        Some(absolute) => {
            let top = image_path?.to_str()?.trim_matches('/');
            let inside = absolute.strip_prefix(top)?;
            return end_of(&base.join("."), Path::new(inside.trim_start_matches('/')), base, None);
        }
        None => path.parent()?.strip_prefix(base).ok()?.iter().map(|name| name.to_str()).collect::<Option<_>>()?,
    };
    here.retain(|name| *name != ".");
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(here.pop()?),
            name => here.push(name),
        }
    }
    let end = base.join(here.iter().collect::<PathBuf>());
    check(&end).ok().map(|()| end)
}
