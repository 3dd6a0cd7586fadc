//! A tree of files as it is being written: whatever the source says, nothing lands outside the destination.
//!
//! Symbolic links are only noted while entries arrive and laid at the end, so nothing can ever be written through one.

use std::{
    collections::BTreeMap,
    io::Read,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, fchmod, linkat, mkdirat, openat, unlinkat},
    io::Errno,
};

use super::{
    account::{Account, copy, cut_short, failed},
    links,
    name::refused,
    remove::remove_entry,
    unpack::{Limits, Unpacked},
};
use crate::{
    beneath::{open_dir, walk},
    model::error::{Error, Reason, Result},
};

/// The tree.
pub(super) struct Tree<'a> {
    root: OwnedFd,
    /// What is taken, and what is left out.
    pub(super) account: Account<'a>,
    /// The directory that was written to last; entries come in order, so the next one is mostly in it or below.
    last_parent: Option<(PathBuf, Rc<OwnedFd>)>,
    links: BTreeMap<PathBuf, PathBuf>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(destination: &impl AsFd, limits: &'a Limits) -> Result<Self> {
        let root = destination.as_fd().try_clone_to_owned().map_err(|error| failed(Path::new(""), error))?;
        Ok(Tree { root, account: Account::new(limits), last_parent: None, links: BTreeMap::new() })
    }

    /// A directory; what was there under the name is replaced unless it is a directory. The owner can always use it.
    pub(super) fn dir(&mut self, path: &Path, mode: u32) -> Result<()> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let dir = self.open_dirs(path)?;
        fchmod(&*dir, Mode::from_raw_mode(mode & 0o777 | 0o700)).map_err(|error| failed(path, error))
    }

    /// A file of `size` bytes; it replaces what was there. The owner can always read it; setuid and setgid are dropped.
    pub(super) fn file(&mut self, path: &Path, mode: u32, size: u64, content: &mut dyn Read) -> Result<()> {
        self.account.count_bytes(path.as_os_str().as_bytes(), size)?;
        let (parent, name) = self.free_place(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&*parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(|error| failed(path, error))?;
        let mut file = std::fs::File::from(fd);
        let copied = copy(path, size, content, &mut file)?;
        if copied != size {
            return Err(cut_short(path, copied, size));
        }
        fchmod(&file, Mode::from_raw_mode(mode & 0o777 | 0o400)).map_err(|error| failed(path, error))?;
        Ok(())
    }

    /// A symbolic link, laid at the end if it leads to something inside.
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
        // Two names of one file are made by a link, so the file is opened nowhere and no link is followed.
        let Some((from, from_name)) = self.existing_file(existing) else {
            self.account.warn(path, "left out: a hard link to what was not taken before");
            return Ok(());
        };
        let (parent, name) = self.free_place(path)?;
        match linkat(&from, from_name, &*parent, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => self.account.warn(path, "left out: a hard link to a file that it replaced"),
            Err(error) => return Err(failed(path, error)),
        }
        Ok(())
    }

    /// Lays the links. `base` is the directory that they may not leave, `image_path` where it was in the image.
    pub(super) fn finish(mut self, base: &Path, image_path: Option<&Path>) -> Result<Unpacked> {
        let noted = std::mem::take(&mut self.links);
        let mut resolver = links::Resolver::new(&self.root, &noted, base, image_path);
        let verdicts: Vec<_> = noted.keys().map(|path| (path, resolver.verdict(path))).collect();
        for (path, verdict) in verdicts {
            match verdict {
                Ok(target) => self.lay(path, &target)?,
                Err(why) => self.account.warn(path, why),
            }
        }
        Ok(self.account.close())
    }

    fn lay(&mut self, path: &Path, target: &Path) -> Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        // A directory above that became a file or a link has taken the link with it.
        let Ok(dir) = walk(self.root.as_fd(), parent) else { return Ok(()) };
        rustix::fs::symlinkat(target, &dir, name).map_err(|error| failed(path, error))
    }

    fn existing_file<'p>(&self, path: &'p Path) -> Option<(OwnedFd, &'p std::ffi::OsStr)> {
        let (parent, name) = (path.parent()?, path.file_name()?);
        let dir = walk(self.root.as_fd(), parent).ok()?;
        let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        (rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile).then_some((dir, name))
    }

    /// Makes the name free: the directory above exists, and nothing lies under the name.
    fn free_place<'p>(&mut self, path: &'p Path) -> Result<(Rc<OwnedFd>, &'p std::ffi::OsStr)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(refused(b".", "the top of the archive must be a directory"));
        };
        self.links.remove(path);
        let dir = self.open_dirs(parent)?;
        match unlinkat(&*dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => {
                self.last_parent = None;
                remove_entry(dir.as_fd(), name, path)
                    .map_err(|left| Error::new(Reason::FileFailed, path.display().to_string(), left.to_string()))?;
            }
            Err(error) => return Err(failed(path, error)),
        }
        Ok((dir, name))
    }

    /// Opens a directory, making it and those above as needed; what stands in the way is replaced.
    fn open_dirs(&mut self, path: &Path) -> Result<Rc<OwnedFd>> {
        let (mut here, mut at, rest) = match &self.last_parent {
            Some((last, dir)) if path.starts_with(last) => {
                (Rc::clone(dir), last.clone(), path.strip_prefix(last).unwrap_or(path))
            }
            _ => {
                let root = self.root.try_clone().map_err(|error| failed(path, error))?;
                (Rc::new(root), PathBuf::new(), path)
            }
        };
        for name in rest {
            at.push(name);
            self.links.remove(&at);
            let dir = open_or_make(&here, name).map_err(|error| failed(&at, error))?;
            here = Rc::new(dir);
        }
        self.last_parent = Some((at, Rc::clone(&here)));
        Ok(here)
    }
}

fn open_or_make(parent: &OwnedFd, name: &std::ffi::OsStr) -> Result<OwnedFd, Errno> {
    match open_dir(parent.as_fd(), name) {
        Err(Errno::NOENT) => {}
        Err(Errno::NOTDIR | Errno::LOOP) => unlinkat(parent, name, AtFlags::empty())?,
        other => return other,
    }
    mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    open_dir(parent.as_fd(), name)
}
