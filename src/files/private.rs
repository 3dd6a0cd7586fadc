//! Files and directories that are nobody else's.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
    path::Path,
};

use rustix::{
    fs::{CWD, OFlags, RenameFlags, renameat_with},
    process::geteuid,
};

use super::layout::failed;
use crate::{
    model::error::{Error, Reason, Result},
    user::access::Access,
};

/// The process that holds a data directory, as the kernel lists locks; asks for none.
pub fn holder_of(data: &Path) -> Option<i32> {
    let inode = fs::metadata(data.join("lock")).ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().filter_map(|line| flock_of(line, inode)).find(|pid| {
        // Inodes of other disks have the same numbers.
        let of = format!("/proc/{pid}/comm");
        fs::read_to_string(of).is_ok_and(|name| name.trim_end() == "longshore")
    })
}

/// The process of a line such as `1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF`, where it is about that inode.
pub(super) fn flock_of(line: &str, inode: u64) -> Option<i32> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, _, pid, place, ..] = fields[..] else { return None };
    let (_, found) = place.rsplit_once(':')?;
    (found.parse() == Ok(inode)).then(|| pid.parse().ok())?
}

/// Whether a file is a program that this user may run.
pub fn is_program(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
}

/// Makes one directory.
///
/// # Errors
/// What the system says.
pub fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)
}

/// Makes a directory that only its owner may look into; one that is there stays as it is.
pub(super) fn make_private(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed("create", path, error))
}

/// Whether a directory may hold the broker's data.
///
/// # Errors
/// `CONFIG_INVALID` for one of another user or one that others may write to; `FILE_FAILED`.
pub fn check_owner(path: &Path) -> Result<()> {
    let found = fs::metadata(path).map_err(|error| failed("open", path, error))?;
    let (shown, own) = (path.display().to_string(), geteuid().as_raw());
    let refused = |why: String| Err(Error::new(Reason::ConfigInvalid, shown.clone(), why));
    if !found.is_dir() {
        return refused(format!("data directory {shown:?} is not a directory"));
    }
    if found.uid() != own {
        let why = format!("data directory {shown:?} belongs to uid {}, the broker runs as uid {own}", found.uid());
        return refused(format!("{why}; name another with --data-dir"));
    }
    if found.mode() & 0o022 != 0 {
        let mode = found.mode() & 0o777;
        return refused(format!("data directory {shown:?} can be written by others (mode {mode:o}); chmod it to 700"));
    }
    Ok(())
}

/// Takes from others what rights they have.
pub(super) fn close_to_others(path: &Path) -> Result<()> {
    let mode = fs::metadata(path).map_err(|error| failed("open", path, error))?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o700))
            .map_err(|error| failed("set the mode of", path, error))?;
    }
    Ok(())
}

/// Opens a file for writing, without following a link; it is emptied, and made 0600 if it is new.
pub(super) fn private_file(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).custom_flags(flags).open(path)
}

/// By descriptor, so that a link in the way is refused instead of followed.
pub(super) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::DIRECTORY).bits()).unwrap_or_default();
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .and_then(|dir| dir.set_permissions(fs::Permissions::from_mode(mode)))
        .map_err(|error| failed("set the mode of", path, error))
}

/// Gives something another name, under which there is nothing.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

/// Makes a link.
pub(super) fn link(to: &Path, at: &Path) -> io::Result<()> {
    symlink(to, at)
}

/// Lets one user pass through a directory that is closed to others.
pub(super) fn admit(directory: &Path, uid: u32) -> io::Result<()> {
    Access { owner: 7, users: vec![(uid, 1)], ..Access::default() }.set(directory)
}

/// Gives group and others what the owner may, but for writing. Nobody else has the tree yet.
pub(super) fn open_tree_to_user(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if found.is_symlink() {
        return Ok(());
    }
    let own = found.permissions().mode() & 0o700;
    let shared = own & 0o500;
    fs::set_permissions(path, fs::Permissions::from_mode(own | shared >> 3 | shared >> 6))?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            open_tree_to_user(&entry?.path())?;
        }
    }
    Ok(())
}

/// Makes something a user's.
///
/// # Errors
/// What the system says.
pub fn hand_over(path: &Path, uid: u32) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), None)
}

/// How a file is opened that anybody named: opening a pipe would wait for its writer, a device may never end, and a
/// terminal would become the broker's.
pub fn readable() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options
}
