//! A tree of files as it is being written: whatever the source says, nothing lands outside the destination, which is
//! held open.
//!
//! Links are copied where they lead to a file of the tree: to make one takes a privilege that few users have.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
};

use cap_std::fs::Dir;

use super::{
    name::{is_one_on_windows, refused},
    unpack::{Limits, Top, Unpacked},
};
use crate::model::error::{Error, Reason, Result};

/// Warnings kept one by one; beyond them they are only counted.
const MAX_WARNINGS: usize = 100;
/// Bytes of names and targets of links that are kept in memory until the end.
const MAX_LINK_BYTES: usize = 32 << 20;

/// The tree.
pub(super) struct Tree<'a> {
    root: Dir,
    limits: &'a Limits,
    links: BTreeMap<PathBuf, PathBuf>,
    link_bytes: usize,
    entries: u64,
    unlisted_warnings: u64,
    report: Unpacked,
}

impl<'a> Tree<'a> {
    pub(super) fn new(destination: &Dir, limits: &'a Limits) -> Result<Self> {
        let root = destination.try_clone().map_err(|error| failed(Path::new(""), error))?;
        let report = Unpacked { files: 0, bytes: 0, warnings: Vec::new(), top: Top::Dir };
        let links = BTreeMap::new();
        Ok(Tree { root, limits, links, link_bytes: 0, entries: 0, unlisted_warnings: 0, report })
    }

    /// Counts one entry against the limit.
    pub(super) fn count_entry(&mut self, name: &[u8]) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.max_entries {
            return Err(refused(name, &format!("more than {} files; that is the limit", self.limits.max_entries)));
        }
        Ok(())
    }

    /// Counts bytes against the limit.
    pub(super) fn count_bytes(&mut self, name: &[u8], bytes: u64) -> Result<()> {
        match self.report.bytes.checked_add(bytes).filter(|total| *total <= self.limits.max_bytes) {
            Some(total) => self.report.bytes = total,
            None => {
                let why = format!("with it the files pass the limit of {} bytes in all", self.limits.max_bytes);
                return Err(refused(name, &why));
            }
        }
        Ok(())
    }

    /// Says what the top entry turned out to be.
    pub(super) fn set_top(&mut self, top: Top) {
        self.report.top = top;
    }

    /// Notes something that was left out.
    pub(super) fn warn(&mut self, path: &Path, why: &str) {
        if self.report.warnings.len() < MAX_WARNINGS {
            self.report.warnings.push(format!("{}: {why}", path.display()));
        } else {
            self.unlisted_warnings += 1;
        }
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
        self.count_bytes(path.as_os_str().as_encoded_bytes(), size)?;
        self.free_place(path)?;
        let mut file = self.root.create(path).map_err(|error| failed(path, error))?;
        let copied = io::copy(&mut content.take(size), &mut file).and_then(|copied| file.flush().map(|()| copied));
        let copied = copied.map_err(|error| failed(path, error))?;
        if copied != size {
            let text = format!("{path:?}: the source ends after {copied} of {size} bytes");
            return Err(Error::new(Reason::SourceUnreadable, path.display().to_string(), text));
        }
        self.report.files += 1;
        Ok(())
    }

    /// A symbolic link, copied at the end if it leads to a file inside.
    pub(super) fn symlink(&mut self, path: &Path, target: &Path) -> Result<()> {
        self.link_bytes += path.as_os_str().len() + target.as_os_str().len();
        if self.link_bytes > MAX_LINK_BYTES || target.as_os_str().len() > self.limits.max_path_bytes {
            return Err(refused(path.as_os_str().as_encoded_bytes(), "too many symbolic links, or too long a one"));
        }
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
            self.warn(path, "left out: a hard link to what was not taken before");
            return Ok(());
        }
        self.free_place(path)?;
        self.root.hard_link(existing, &self.root, path).map_err(|error| failed(path, error))?;
        self.report.files += 1;
        Ok(())
    }

    /// Lays the links. `base` is the directory that they may not leave, `image_path` where it was in the image.
    pub(super) fn finish(mut self, base: &Path, image_path: Option<&Path>) -> Result<Unpacked> {
        for (path, target) in std::mem::take(&mut self.links) {
            let Some(leads_to) = end_of(&path, &target, base, image_path) else {
                self.warn(&path, "left out: a link to a place outside");
                continue;
            };
            let Ok(found) = self.root.symlink_metadata(&leads_to) else {
                self.warn(&path, "left out: a link that leads nowhere");
                continue;
            };
            if !found.is_file() {
                self.warn(&path, "left out: a link to what is no file");
                continue;
            }
            self.count_bytes(path.as_os_str().as_encoded_bytes(), found.len())?;
            self.root.copy(&leads_to, &self.root, &path).map_err(|error| failed(&path, error))?;
            self.report.files += 1;
        }
        if self.unlisted_warnings > 0 {
            self.report.warnings.push(format!("and {} more", self.unlisted_warnings));
        }
        Ok(self.report)
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

/// The source could not be read.
pub(super) fn unreadable(subject: &str, error: impl Into<io::Error>) -> Error {
    let error = error.into();
    let text = if subject.is_empty() { error.to_string() } else { format!("{subject}: {error}") };
    Error::new(Reason::SourceUnreadable, subject, format!("cannot read the source: {text}")).caused_by(error)
}

/// The destination could not be written.
pub(super) fn failed(path: &Path, error: impl Into<io::Error>) -> Error {
    let error = error.into();
    let shown = path.display().to_string();
    Error::new(Reason::FileFailed, shown.clone(), format!("cannot write {shown:?}: {error}")).caused_by(error)
}
