//! The directory that an extension's containers share with the broker. It is hostile: a container may put a link to the
//! engine's socket where its own should be, and change it between a check and a connect (docker-extensions W16). So the
//! directory is opened once, a socket in it is opened without following links, and what was opened and checked is what
//! is connected to.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, statat, unlinkat},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};

pub use super::dialled::{DialError, Found};
use crate::{
    beneath::mount_of,
    local::Stream,
    model::error::{Error, Reason, Result},
};

/// An open guest directory.
#[derive(Debug)]
pub struct GuestDir {
    fd: OwnedFd,
}

impl From<Errno> for DialError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT => DialError::Missing,
            Errno::CONNREFUSED => DialError::Refused,
            Errno::ACCESS | Errno::PERM => DialError::Denied,
            Errno::AGAIN => DialError::Busy,
            other => DialError::Other(other.into()),
        }
    }
}

impl GuestDir {
    /// Opens the directory, once; later it may be renamed or replaced without any effect on this value.
    ///
    /// # Errors
    /// `FILE_FAILED` if there is none, or it is a link.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
            let shown = path.display().to_string();
            Error::new(Reason::FileFailed, shown.clone(), format!("cannot open the directory {shown:?}: {error}"))
                .caused_by(error)
        })?;
        Ok(GuestDir { fd })
    }

    /// Connects to the socket `name` (one component). Never waits; the stream is nonblocking.
    ///
    /// # Errors
    /// See [`DialError`]; nothing was sent.
    pub fn dial(&self, name: &str) -> Result<UnixStream, DialError> {
        let opened = self.open_socket(name)?;
        let stream =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        // The path leads to the very file that was checked, whatever its name means by now. It is also short, while
        // a name in the directory could pass the 107 bytes of a socket address.
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
        match connect(&stream, &address) {
            Ok(()) => Ok(UnixStream::from(stream)),
            Err(Errno::NOENT) => Err(DialError::Other(io::Error::other("/proc is not mounted"))),
            Err(error) => Err(error.into()),
        }
    }

    /// The same, for the runtime that this runs in.
    ///
    /// # Errors
    /// See [`DialError`]; nothing was sent.
    pub fn connect(&self, name: &str) -> Result<Stream, DialError> {
        Stream::from_std(self.dial(name)?).map_err(DialError::Other)
    }

    /// Removes the socket `name` so that a backend that is about to start can bind it; anything but a socket stays.
    /// Returns whether something was removed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn clear_stale_socket(&self, name: &str) -> io::Result<bool> {
        component(name)?;
        let found = match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if found != FileType::Socket {
            return Ok(false);
        }
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the socket without connecting and makes sure that it is one, in this very directory. One with a second name is
    /// refused: the broker may what no container may, and dials for it. The shim need not ask (`shim/guest`).
    fn open_socket(&self, name: &str) -> Result<OwnedFd, DialError> {
        component(name).map_err(DialError::Other)?;
        let fd = openat(&self.fd, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let found = fstat(&fd)?;
        let not = |found| Err(DialError::NotASocket(found));
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Socket if mount_of(&fd)? != mount_of(&self.fd)? => not(Found::Foreign),
            FileType::Socket if found.st_nlink > 1 => not(Found::HardLinked),
            FileType::Socket => Ok(fd),
            FileType::Symlink => not(Found::Symlink),
            FileType::RegularFile => not(Found::File),
            FileType::Directory => not(Found::Directory),
            _ => not(Found::Special),
        }
    }
}

impl AsFd for GuestDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn component(name: &str) -> io::Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        let text = format!("{name:?} is not the name of a socket; a file name without `/` is");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{fs::symlink, net::UnixListener},
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    fn found(result: Result<UnixStream, DialError>) -> Found {
        match result {
            Err(DialError::NotASocket(found)) => found,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_socket_of_its_own_is_dialled() {
        let temp = tempfile::tempdir().unwrap();
        let guest = temp.path().join("guest");
        fs::create_dir(&guest).unwrap();
        let evil = UnixListener::bind(temp.path().join("evil")).unwrap();
        let _good = UnixListener::bind(guest.join("good")).unwrap();
        drop(UnixListener::bind(guest.join("dead")).unwrap());
        symlink("../evil", guest.join("link")).unwrap();
        symlink("good", guest.join("inner")).unwrap();
        fs::hard_link(temp.path().join("evil"), guest.join("hard")).unwrap();
        fs::write(guest.join("file"), "").unwrap();
        fs::create_dir(guest.join("dir")).unwrap();
        let dir = GuestDir::open(&guest).unwrap();

        dir.dial("good").unwrap();
        assert!(matches!(dir.dial("none"), Err(DialError::Missing)));
        assert!(matches!(dir.dial("dead"), Err(DialError::Refused)));
        for (name, what) in [
            ("link", Found::Symlink),
            ("inner", Found::Symlink),
            ("hard", Found::HardLinked),
            ("file", Found::File),
            ("dir", Found::Directory),
        ] {
            assert_eq!(found(dir.dial(name)), what, "{name}");
        }
        for name in ["", ".", "..", "../evil", "a/b", "a\0b"] {
            assert!(matches!(dir.dial(name), Err(DialError::Other(_))), "{name:?}");
        }
        evil.set_nonblocking(true).unwrap();
        assert!(evil.accept().is_err());
        symlink(&guest, temp.path().join("other")).unwrap();
        assert_eq!(GuestDir::open(&temp.path().join("other")).unwrap_err().reason(), Reason::FileFailed);
    }

    #[test]
    fn a_swap_between_check_and_connect_does_not_help() {
        let temp = tempfile::tempdir().unwrap();
        let guest = temp.path().join("guest");
        fs::create_dir(&guest).unwrap();
        let evil = UnixListener::bind(temp.path().join("evil")).unwrap();
        evil.set_nonblocking(true).unwrap();
        let good = UnixListener::bind(guest.join("kept")).unwrap();
        good.set_nonblocking(true).unwrap();
        fs::rename(guest.join("kept"), guest.join("name")).unwrap();
        symlink("../evil", guest.join("trap")).unwrap();
        let done = AtomicBool::new(false);
        let mut reached = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    let dir = fs::File::open(&guest).unwrap();
                    rustix::fs::renameat_with(&dir, "name", &dir, "trap", flags).unwrap();
                }
                done.store(true, Ordering::Release);
            });
            let dir = GuestDir::open(&guest).unwrap();
            while !done.load(Ordering::Acquire) {
                match dir.dial("name") {
                    Ok(_) => reached += 1,
                    Err(DialError::NotASocket(Found::Symlink) | DialError::Busy) => {}
                    Err(other) => panic!("{other:?}"),
                }
                while good.accept().is_ok() {}
            }
        });
        assert!(reached > 0);
        assert!(evil.accept().is_err(), "the trap was connected to");
    }

    #[test]
    fn a_full_queue_is_busy_and_a_long_path_no_obstacle() {
        let temp = tempfile::tempdir().unwrap();
        let guest = temp.path().join("x".repeat(200));
        fs::create_dir(&guest).unwrap();
        let name = "y".repeat(120);
        let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(temp.path().join("s")).unwrap()).unwrap();
        rustix::net::listen(&listener, 3).unwrap();
        fs::rename(temp.path().join("s"), guest.join(&name)).unwrap();
        let dir = GuestDir::open(&guest).unwrap();
        let mut held = Vec::new();
        loop {
            match dir.dial(&name) {
                Ok(stream) if held.len() < 100 => held.push(stream),
                Err(DialError::Busy) => break,
                other => panic!("{other:?} after {}", held.len()),
            }
        }
        assert!(!held.is_empty());
    }

    #[test]
    fn only_sockets_are_cleared() {
        let temp = tempfile::tempdir().unwrap();
        drop(UnixListener::bind(temp.path().join("s")).unwrap());
        fs::write(temp.path().join("f"), "").unwrap();
        symlink("s", temp.path().join("l")).unwrap();
        let dir = GuestDir::open(temp.path()).unwrap();
        assert!(!dir.clear_stale_socket("f").unwrap() && !dir.clear_stale_socket("l").unwrap());
        assert!(!dir.clear_stale_socket("none").unwrap());
        assert!(dir.clear_stale_socket("s").unwrap());
        assert!(dir.clear_stale_socket("../s").is_err());
        assert!(temp.path().join("f").exists() && temp.path().join("l").symlink_metadata().is_ok());
    }

    #[test]
    fn a_socket_without_the_right_to_write_is_denied() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let _listener = UnixListener::bind(temp.path().join("s")).unwrap();
        fs::set_permissions(temp.path().join("s"), fs::Permissions::from_mode(0o555)).unwrap();
        let dir = GuestDir::open(temp.path()).unwrap();
        let result = crate::files::as_plain_user(4_711, || dir.dial("s"));
        assert!(matches!(result, Err(DialError::Denied)), "{result:?}");
    }
}
