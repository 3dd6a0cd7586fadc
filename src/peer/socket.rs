//! A socket in a directory that containers have mounted: its name must lead to a new broker as it did to the one before.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, chmodat, open, renameat, statat, unlinkat},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};
use tokio::net::{UnixListener, UnixStream};

use super::{Place, is_alive, place_of};
use crate::{
    local::next_client,
    model::{
        error::{Error, Reason, Result},
        platform::MAX_SOCKET_PATH_BYTES,
    },
};

pub use super::caller::Caller;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A socket, listening.
#[derive(Debug)]
pub struct Socket {
    dir: OwnedFd,
    name: &'static str,
    path: PathBuf,
    /// Device and inode of what was bound.
    file: (u64, u64),
    /// Whose it is.
    user: u32,
    listener: UnixListener,
}

impl Socket {
    /// Binds it in `dir`, which only one broker uses, and puts it in the place of one that was there, in one step. Any user
    /// of a container may connect: who is let in follows from where a process lives, and where that is the broker's own place
    /// from its user, which has to be `user`. Errors call it `what`.
    ///
    /// # Errors
    ///
    /// `FILE_FAILED`, `LIMIT_REACHED`.
    pub fn open(dir: &Path, name: &'static str, what: &str, user: u32) -> Result<Socket> {
        Socket::bind(dir, name, user).map_err(|error| {
            let path = dir.join(name).display().to_string();
            let why = match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => Reason::LimitReached,
                _ => Reason::FileFailed,
            };
            Error::new(why, &path, format!("cannot open {what} at {path}: {error}")).caused_by(error)
        })
    }

    fn bind(dir: &Path, name: &'static str, user: u32) -> io::Result<Socket> {
        // Its name until it listens.
        let new = format!(".{name}.new");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = open(dir, flags, Mode::empty())?;
        let _ = unlinkat(&opened, &*new, AtFlags::empty());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // Through the descriptor: the directory's own path may be longer than an address can be.
        bind(&socket, &SocketAddrUnix::new(format!("/proc/self/fd/{}/{new}", opened.as_raw_fd()))?)?;
        chmodat(&opened, &*new, Mode::from_raw_mode(0o666), AtFlags::empty())?;
        listen(&socket, BACKLOG)?;
        let found = statat(&opened, &*new, AtFlags::SYMLINK_NOFOLLOW)?;
        renameat(&opened, &*new, &opened, name)?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(Socket { dir: opened, name, path: dir.join(name), file: (found.st_dev, found.st_ino), user, listener })
    }

    /// The next client.
    pub async fn accept(&self) -> UnixStream {
        next_client(self.path.display(), || self.listener.accept()).await.0
    }

    /// Who has just connected. On the host, processes that are `barred` by their number are never let in.
    ///
    /// # Errors
    ///
    /// Why that cannot be told, or who is never let in.
    pub fn caller(&self, stream: &UnixStream, barred: impl Fn(i32) -> bool) -> Result<Caller, &'static str> {
        let credentials = stream.peer_cred().map_err(|_| "the system does not say who is calling")?;
        let pid = credentials.pid().filter(|pid| *pid > 0).ok_or("the caller's process cannot be told")?;
        let caller = match place_of(pid).ok_or("the calling process is gone or cannot be looked at")? {
            Place::Container(id) => Caller::Container(id),
            Place::Unclear => return Err("the caller's container cannot be told"),
            Place::Host if barred(pid) => return Err("the caller is a program of an extension"),
            Place::Host if [0, self.user].contains(&credentials.uid()) => Caller::Host,
            Place::Host => return Err("this socket belongs to another user"),
        };
        // What was found out about that number is about the caller only if the caller still has it.
        if is_alive(stream.as_fd()) { Ok(caller) } else { Err("the calling process is gone") }
    }

    /// Its address as DOCKER_HOST spells it. Where its path is too long for one, a path through this process leads to it,
    /// which whoever runs as the same user can follow for as long as the process lives.
    pub fn address(&self) -> String {
        match self.path.to_str().filter(|path| path.len() <= MAX_SOCKET_PATH_BYTES) {
            Some(path) => format!("unix://{path}"),
            None => format!("unix:///proc/{}/fd/{}/{}", std::process::id(), self.dir.as_raw_fd(), self.name),
        }
    }

    /// Removes its name, unless another socket has that by now.
    pub fn remove(&self) {
        if statat(&self.dir, self.name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| (found.st_dev, found.st_ino) == self.file)
        {
            let _ = unlinkat(&self.dir, self.name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "x.sock";

    #[tokio::test]
    async fn a_name_leads_to_whoever_bound_it_last() {
        let temp = tempfile::tempdir().unwrap();
        let own = rustix::process::geteuid().as_raw();
        // Deeper than an address is long.
        let deep = temp.path().join("d".repeat(60)).join("e".repeat(60));
        for dir in [temp.path(), &deep] {
            std::fs::create_dir_all(dir).unwrap();
            let first = Socket::bind(dir, NAME, own).unwrap();
            let second = Socket::bind(dir, NAME, own).unwrap();
            let address = second.address();
            let path = address.strip_prefix("unix://").unwrap();
            assert!(path.len() <= MAX_SOCKET_PATH_BYTES, "{path}");
            let connected = UnixStream::connect(path).await.unwrap();
            assert_eq!(second.caller(&second.accept().await, |_| false), Ok(Caller::Host));
            drop(connected);
            first.remove();
            assert!(dir.join(NAME).exists(), "not one that is another's by now");
            second.remove();
            assert!(!dir.join(NAME).exists());
        }
    }
}
