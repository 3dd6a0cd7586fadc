//! Removes a tree that somebody hostile may have made, and may still be changing: no link is followed, no other mount
//! entered, depth does not matter, and what cannot be removed is listed instead of stopping the rest.

use std::{
    ffi::{CString, OsStr, OsString},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, renameat, unlinkat},
    io::Errno,
};

pub use super::remains::Remains;
use crate::beneath::{mount_of, open_dir};

/// Directories open at a time; what lies deeper is moved up first.
const MAX_OPEN: usize = 64;
/// Paths that are listed; beyond them they are only counted.
const MAX_LISTED: usize = 100;
/// Times a directory is read anew if something appears in it while it is removed.
const MAX_ROUNDS: usize = 3;

impl Remains {
    fn add(&mut self, path: PathBuf, error: Errno) {
        self.total += 1;
        if self.listed.len() < MAX_LISTED {
            self.listed.push((path, error.into()));
        }
    }
}

/// Removes what lies at `path`, if anything: a file, a link (not what it leads to) or a whole directory. The directory
/// above is opened as it is; below it no link is followed.
///
/// # Errors
/// What could not be removed; the rest is gone.
pub fn remove(path: &Path) -> Result<(), Remains> {
    let failed = |error: Errno| {
        let mut left = Remains::default();
        left.add(path.to_owned(), error);
        left
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(failed(Errno::INVAL)) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(parent, flags, Mode::empty()) {
        Ok(parent) => remove_entry(parent.as_fd(), name, path),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// As [`remove`], in an open directory. `shown` is its path for the report.
pub(super) fn remove_entry(parent: BorrowedFd<'_>, name: &OsStr, shown: &Path) -> Result<(), Remains> {
    let mut removal = Removal { left: Remains::default(), mount: None, moved: 0 };
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(_) => removal.tree(parent, name, shown),
    }
    if removal.left.total == 0 { Ok(()) } else { Err(removal.left) }
}

/// One removal under way.
struct Removal {
    left: Remains,
    /// The mount it began on; others are not entered.
    mount: Option<u64>,
    /// Directories moved up so far, for their names.
    moved: u64,
}

/// A directory that is being emptied.
struct Level {
    fd: OwnedFd,
    name: OsString,
    shown: PathBuf,
    /// Directories in it that are still to be emptied.
    pending: Vec<OsString>,
    /// Whether something in it stays.
    blocked: bool,
    rounds: usize,
}

impl Removal {
    fn tree(&mut self, parent: BorrowedFd<'_>, name: &OsStr, shown: &Path) {
        let mut levels = match self.enter(parent, name, shown.to_owned()) {
            Some(level) => vec![level],
            None => return,
        };
        while let Some(mut level) = levels.pop() {
            if let Some(next) = level.pending.pop() {
                let shown = level.shown.join(&next);
                levels.push(level);
                self.descend(&mut levels, &next, shown);
                continue;
            }
            let above = levels.last().map_or(parent, |above| above.fd.as_fd());
            match unlinkat(above, &level.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                // Its contents are on the list already.
                Err(_) if level.blocked => block(&mut levels),
                Err(Errno::NOTEMPTY | Errno::EXIST) if level.rounds < MAX_ROUNDS => {
                    level.rounds += 1;
                    self.read(&mut level);
                    levels.push(level);
                }
                Err(error) => {
                    self.left.add(level.shown, error);
                    block(&mut levels);
                }
            }
        }
    }

    /// Goes into a directory of the last level; where too many are open, moves it to the first level instead.
    fn descend(&mut self, levels: &mut Vec<Level>, name: &OsStr, shown: PathBuf) {
        if levels.len() >= MAX_OPEN {
            match self.move_up(levels, name) {
                Ok(()) => {}
                Err(error) => {
                    self.left.add(shown, error);
                    block(levels);
                }
            }
            return;
        }
        let Some(level) = levels.last() else { return };
        match self.enter(level.fd.as_fd(), name, shown) {
            Some(next) => levels.push(next),
            None => block(levels),
        }
    }

    fn move_up(&mut self, levels: &mut [Level], name: &OsStr) -> Result<(), Errno> {
        let [first, .., last] = levels else { return Err(Errno::INVAL) };
        loop {
            self.moved += 1;
            let fresh = OsString::from(format!(".longshore-removal-{}", self.moved));
            // Onto a name that is taken the rename fails, or replaces an empty directory, which was to go anyway.
            match renameat(&last.fd, name, &first.fd, &fresh) {
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                Ok(()) => {
                    first.pending.push(fresh);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens and reads one directory; on failure notes it and returns nothing.
    fn enter(&mut self, parent: BorrowedFd<'_>, name: &OsStr, shown: PathBuf) -> Option<Level> {
        match self.open(parent, name) {
            Ok(fd) => {
                let mut level =
                    Level { fd, name: name.to_owned(), shown, pending: Vec::new(), blocked: false, rounds: 0 };
                self.read(&mut level);
                Some(level)
            }
            Err(error) => {
                self.left.add(shown, error);
                None
            }
        }
    }

    fn open(&mut self, parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
        let fd = match open_dir(parent, name) {
            Err(Errno::ACCESS) => {
                allow_owner(parent, name)?;
                open_dir(parent, name)?
            }
            other => other?,
        };
        let mount = mount_of(&fd)?;
        if *self.mount.get_or_insert(mount) != mount {
            return Err(Errno::XDEV);
        }
        if fstat(&fd)?.st_mode & 0o700 != 0o700 {
            // Fails where it is not ours; then so does what follows, and that is reported.
            let _ = rustix::fs::fchmod(&fd, Mode::RWXU);
        }
        Ok(fd)
    }

    /// Unlinks all that is no directory and notes the directories.
    fn read(&mut self, level: &mut Level) {
        let entries = match rustix::fs::Dir::read_from(&level.fd) {
            Ok(entries) => entries,
            Err(error) => return self.note(level, None, error),
        };
        for entry in entries {
            let name: CString = match entry {
                Ok(entry) => entry.file_name().to_owned(),
                Err(error) => return self.note(level, None, error),
            };
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match unlinkat(&level.fd, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                // Without rights to remove it there may still be something in it that can be removed.
                Err(_) if is_dir(level, &name) => {
                    level.pending.push(OsString::from_vec(name.into_bytes()));
                }
                Err(error) => self.note(level, Some(OsStr::from_bytes(name.to_bytes())), error),
            }
        }
    }

    fn note(&mut self, level: &mut Level, name: Option<&OsStr>, error: Errno) {
        level.blocked = true;
        self.left.add(name.map_or_else(|| level.shown.clone(), |name| level.shown.join(name)), error);
    }
}

fn is_dir(level: &Level, name: &CString) -> bool {
    rustix::fs::statat(&level.fd, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn block(levels: &mut [Level]) {
    if let Some(level) = levels.last_mut() {
        level.blocked = true;
    }
}

/// Gives the owner back the rights to a directory. By way of a descriptor: `chmod` by name would follow a link that
/// was put there meanwhile.
fn allow_owner(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(parent, name, flags, Mode::empty())?;
    rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::RWXU)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use rustix::{
        mount::{MountPropagationFlags, mount_bind, mount_change},
        thread::{UnshareFlags, unshare_unsafe},
    };

    use super::*;
    use crate::model::error::{Error, Reason};

    #[test]
    fn links_are_removed_and_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        fs::create_dir_all(outside.join("kept")).unwrap();
        fs::write(outside.join("kept/file"), "x").unwrap();
        let tree = temp.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        symlink(&outside, tree.join("a/out")).unwrap();
        symlink("/", tree.join("root")).unwrap();
        fs::write(tree.join("a/b/file"), "x").unwrap();
        std::os::unix::net::UnixListener::bind(tree.join("sock")).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists() && outside.join("kept/file").exists());
        remove(&tree).unwrap();

        symlink(&outside, &tree).unwrap();
        remove(&tree).unwrap();
        assert!(tree.symlink_metadata().is_err() && outside.join("kept/file").exists());
    }

    #[test]
    fn depth_does_not_matter() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut here: OwnedFd = fs::File::open(&tree).unwrap().into();
        for depth in 0..3_000 {
            for name in ["d", "e"] {
                rustix::fs::mkdirat(&here, name, Mode::RWXU).unwrap();
            }
            if depth % 100 == 0 {
                rustix::fs::symlinkat("..", &here, "l").unwrap();
            }
            here = open_dir(here.as_fd(), "d").unwrap();
        }
        drop(here);
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn rights_that_the_owner_took_away_do_not_matter() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        for dir in ["a/b", "a"] {
            fs::set_permissions(tree.join(dir), fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }

    /// What is mounted below stays, also where it lies on the same disk.
    #[test]
    fn no_mount_is_entered() {
        let temp = tempfile::tempdir().unwrap();
        let (tree, outside) = (temp.path().join("tree"), temp.path().join("outside"));
        fs::create_dir_all(tree.join("a/in")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        if !rustix::process::geteuid().is_root() {
            // Nobody else can mount anything; then everything must go.
            return remove(&tree).unwrap();
        }
        let remove_beside = || {
            // SAFETY: this thread is the test's own, and what it shares no more is its mounts.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            mount_bind(&outside, tree.join("a/in")).unwrap();
            remove(&tree).unwrap_err()
        };
        let left = std::thread::scope(|scope| scope.spawn(remove_beside).join().unwrap());
        let found: Vec<_> = left.listed.iter().map(|(path, error)| (path.clone(), error.raw_os_error())).collect();
        assert_eq!(found, [(tree.join("a/in"), Some(Errno::XDEV.raw_os_error()))]);
        assert!(outside.join("kept").exists());
        remove(&tree).unwrap();
    }

    /// A plain user meets what a container's root left behind: the rest goes, and what stays is named.
    #[test]
    fn what_stays_is_listed() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        fs::create_dir_all(tree.join("theirs/deep")).unwrap();
        fs::create_dir_all(tree.join("ours/deep")).unwrap();
        for name in ["theirs/deep/a", "theirs/b", "ours/deep/a", "c"] {
            fs::write(tree.join(name), "x").unwrap();
        }
        if !rustix::process::geteuid().is_root() {
            // Nobody else's files can be made; then everything must go.
            return remove(&tree).unwrap();
        }
        for ours in ["", "tree", "tree/ours", "tree/ours/deep"] {
            std::os::unix::fs::chown(temp.path().join(ours), Some(4_711), None).unwrap();
        }
        let left = crate::files::as_plain_user(4_711, || remove(&tree).unwrap_err());
        let mut paths: Vec<_> = left.listed.iter().map(|(path, _)| path.strip_prefix(&tree).unwrap()).collect();
        paths.sort();
        assert_eq!(paths, [Path::new("theirs/b"), Path::new("theirs/deep/a")]);
        assert!(!tree.join("ours").exists() && !tree.join("c").exists());
        assert!(left.to_string().starts_with("2 files"), "{left}");
        assert_eq!(Error::from(left).reason(), Reason::FileFailed);
        remove(&tree).unwrap();
    }

    #[test]
    fn a_tree_that_grows_meanwhile_ends_somehow() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        fs::create_dir_all(tree.join("a")).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0_u32.. {
                    if done.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    let _ = fs::create_dir_all(tree.join(format!("a/{}/x", n % 7)));
                    let _ = symlink("/", tree.join(format!("a/l{}", n % 5)));
                }
            });
            for _ in 0..50 {
                let _ = remove(&tree);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        remove(&tree).unwrap();
    }
}
