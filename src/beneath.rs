//! Going down from an open directory: one component at a time, through no symbolic link, and knowing which mount one is on.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Component, Path},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, StatxFlags, openat, statx},
    io::Errno,
};

/// Opens the directory `name` in `parent`; a symbolic link there is refused (`ENOTDIR` or `ELOOP`).
///
/// # Errors
///
/// What the system says.
pub(crate) fn open_dir(parent: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens the directory `path` below `root`, following no link. An empty path is `root` itself.
///
/// # Errors
///
/// What the system says; `InvalidInput` for a path that leaves `root`.
pub(crate) fn walk(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let mut here = root.as_fd().try_clone_to_owned()?;
    for component in path.components() {
        let Component::Normal(name) = component else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path may not leave its directory"));
        };
        here = open_dir(&here, name)?;
    }
    Ok(here)
}

/// The mount that a file lies on. It says more than the device: one file system can be mounted twice, and on overlayfs files
/// and directories may have different devices.
///
/// # Errors
///
/// What the system says.
pub(crate) fn mount_of(file: impl AsFd) -> Result<u64, Errno> {
    let file = file.as_fd();
    match statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(found) if StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID) => Ok(found.stx_mnt_id),
        // Before Linux 5.8, or where a container may not ask that way.
        _ => told_mount(file.as_raw_fd()).ok_or(Errno::IO),
    }
}

fn told_mount(file: i32) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{file}")).ok()?;
    info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_asking_tell_the_same_mount() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("below")).unwrap();
        let (here, proc) = (fs::File::open(temp.path()).unwrap(), fs::File::open("/proc").unwrap());
        assert_eq!(told_mount(here.as_raw_fd()), mount_of(&here).ok());
        assert_eq!(mount_of(&here), mount_of(walk(&here, Path::new("below")).unwrap()));
        assert_ne!(mount_of(&here), mount_of(&proc));
    }

    #[test]
    fn no_link_is_followed_and_no_way_up_taken() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("a", temp.path().join("link")).unwrap();
        let here = fs::File::open(temp.path()).unwrap();
        for path in ["", "a", "a/b"] {
            assert!(walk(&here, Path::new(path)).is_ok(), "{path}");
        }
        for path in ["link", "link/b", "..", "a/../a", "/", "none"] {
            assert!(walk(&here, Path::new(path)).is_err(), "{path}");
        }
    }
}
