//! The socket at which a shim in a container reports, and who is let in.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, chmodat, unlinkat},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with},
};
use tokio::{
    io::AsyncReadExt,
    net::{UnixListener, UnixStream},
    time::timeout,
};

use crate::{
    beneath::open_dir,
    peer::{self, Place},
    random,
    shim::NONCE_BYTES,
};

/// How the name of one begins.
const PREFIX: &str = "shim-";
/// How long a caller may take to say its nonce. The shim says it at once.
const NONCE_BOUND: Duration = Duration::from_secs(1);
/// How many callers may wait.
const BACKLOG: i32 = 16;

/// A socket for one shim to come through. Its name is new each time; it goes when this is dropped.
#[derive(Debug)]
pub(super) struct DialIn {
    dir: OwnedFd,
    name: String,
    nonce: String,
    listener: UnixListener,
}

impl DialIn {
    /// Opens one in `dir`, for any user in the container to dial. Those that a broker left when it died are removed.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let dir = open_dir(CWD, dir)?;
        remove_dead(&dir);
        let name = format!("{PREFIX}{:016x}", random::number());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        bind(&socket, &address(&dir, &name)?)?;
        // The socket is there from here on: `DialIn` removes it, whatever follows.
        let made = || {
            chmodat(&dir, &name, Mode::from_raw_mode(0o666), AtFlags::empty())?;
            listen(&socket, BACKLOG)
        };
        if let Err(error) = made() {
            let _ = unlinkat(&dir, &name, AtFlags::empty());
            return Err(error.into());
        }
        let listener = UnixListener::from_std(socket.into())?;
        Ok(DialIn { dir, name, nonce: random::nonce(), listener })
    }

    /// What the shim must read on its standard input: nonce and name, one line.
    pub(super) fn order(&self) -> String {
        format!("{}{}\n", self.nonce, self.name)
    }

    /// The shim's connection: it knows the nonce and runs in that container. Others are turned away.
    pub(super) async fn admit(&self, container: &str) -> io::Result<OwnedFd> {
        loop {
            let (mut stream, _) = self.listener.accept().await?;
            let mut said = [0; NONCE_BYTES];
            let read = timeout(NONCE_BOUND, stream.read_exact(&mut said)).await;
            if matches!(read, Ok(Ok(_))) && said == *self.nonce.as_bytes() && runs_in(&stream, container) {
                return Ok(stream.into_std()?.into());
            }
            tracing::warn!(container, "somebody else than the shim dialled its socket: turned away");
        }
    }
}

impl Drop for DialIn {
    fn drop(&mut self) {
        let _ = unlinkat(&self.dir, &self.name, AtFlags::empty());
    }
}

/// Through the descriptor: the directory's own path may be longer than an address can be.
fn address(dir: &OwnedFd, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))?)
}

fn remove_dead(dir: &OwnedFd) {
    let Ok(entries) = fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd())) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if name.starts_with(PREFIX) && is_dead(dir, &name) {
            let _ = unlinkat(dir, &name, AtFlags::empty());
        }
    }
}

/// Whether nobody listens. One between bind and listen looks dead too, but then its shim was not told of it yet.
fn is_dead(dir: &OwnedFd, name: &str) -> bool {
    let probe = || -> io::Result<()> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        Ok(connect(&socket, &address(dir, name)?)?)
    };
    probe().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Whether the peer lives in that container, and still does. A peer that has no number here is in no container of a local
/// engine.
fn runs_in(stream: &UnixStream, container: &str) -> bool {
    let Some(pid) = stream.peer_cred().ok().and_then(|peer| peer.pid()).filter(|pid| *pid > 0) else { return false };
    let lives_there = matches!(peer::place_of(pid), Some(Place::Container(id)) if id == container);
    lives_there && peer::is_alive(stream.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[tokio::test]
    async fn one_goes_and_a_dead_one_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let names = || fs::read_dir(temp.path()).unwrap().count();
        drop(std::os::unix::net::UnixListener::bind(temp.path().join("shim-dead")).unwrap());
        let first = DialIn::open(temp.path()).unwrap();
        let second = DialIn::open(temp.path()).unwrap();
        assert_eq!(names(), 2);
        assert_ne!(first.order(), second.order());
        drop((first, second));
        assert_eq!(names(), 0);
    }

    #[tokio::test]
    async fn a_peer_of_no_container_is_turned_away() {
        let temp = tempfile::tempdir().unwrap();
        let dial_in = DialIn::open(temp.path()).unwrap();
        let path = temp.path().join(&dial_in.name);
        let nonce = dial_in.nonce.clone();
        let dial = async move {
            let mut stream = UnixStream::connect(path).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, nonce.as_bytes()).await.unwrap();
            stream.read(&mut [0]).await.unwrap()
        };
        tokio::select! {
            _ = dial_in.admit(ID) => panic!("let in"),
            read = dial => assert_eq!(read, 0),
        }
    }
}
