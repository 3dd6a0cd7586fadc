//! Opening directories one component at a time, following no symbolic link.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path},
};

use rustix::{
    fs::{Mode, OFlags, openat},
    io::Errno,
};

/// Opens the directory `name`, one component, in `parent`; a symbolic link is refused (`ENOTDIR` or `ELOOP`).
pub(super) fn open_dir(parent: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens the directory `path` below `root`, following no link. An empty path is `root` itself.
pub(super) fn walk(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let mut here = root.try_clone_to_owned()?;
    for component in path.components() {
        let Component::Normal(name) = component else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path may not leave its directory"));
        };
        here = open_dir(here.as_fd(), name)?;
    }
    Ok(here)
}
