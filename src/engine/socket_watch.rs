//! Waits for an engine that is away. Whoever starts one makes its socket, and the kernel tells of that: nothing has to be
//! asked again and again.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::io::unix::AsyncFd;

/// What makes a socket come into being, in its directory or further up.
const COMING: WatchFlags = WatchFlags::CREATE.union(WatchFlags::MOVED_TO).union(WatchFlags::ATTRIB);
/// What takes the directory itself away.
const GOING: WatchFlags = WatchFlags::DELETE_SELF.union(WatchFlags::MOVE_SELF);
/// Several changes come as one: a socket is made, owned and opened to others within a moment.
const TOGETHER: Duration = Duration::from_millis(50);

/// Tells when something changes where a socket is, or would be.
#[derive(Debug)]
pub struct SocketWatch {
    socket: PathBuf,
    changes: Option<AsyncFd<OwnedFd>>,
}

impl SocketWatch {
    /// Begins to watch for `socket`: what happens from here on is told.
    pub(super) fn of(socket: &Path) -> SocketWatch {
        let changes = watch(socket).map_err(|error| {
            // Then it is only tried from time to time.
            tracing::debug!(%error, socket = %socket.display(), "its directory cannot be watched");
        });
        SocketWatch { socket: socket.to_owned(), changes: changes.ok() }
    }

    /// Completes when something has changed there, or after `pause`; true where something has.
    pub async fn changed(&mut self, pause: Duration) -> bool {
        let Some(changes) = &self.changes else {
            tokio::time::sleep(pause).await;
            return false;
        };
        if tokio::time::timeout(pause, touched(changes, &self.socket)).await.is_err() {
            return false;
        }
        tokio::time::sleep(TOGETHER).await;
        true
    }
}

/// Watches the directory that a socket is in, or the nearest above it that there is.
fn watch(socket: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let changes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    for directory in socket.ancestors().skip(1) {
        match inotify::add_watch(&changes, directory, COMING | GOING) {
            // SAFETY: an owned descriptor that nobody takes out or closes is open, and the same, as long as it is held.
            Ok(_) => return Ok(unsafe { AsyncFd::register(changes) }?),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::NOENT.into())
}

/// Completes when an event is about one of the names on the way to the socket, or about the directory itself.
async fn touched(changes: &AsyncFd<OwnedFd>, socket: &Path) {
    loop {
        let Ok(mut ready) = changes.readable().await else { return std::future::pending().await };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(changes.get_ref(), &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let is_gone = event.events().intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF);
                    let is_ours = event.file_name().is_some_and(|name| {
                        let name = name.to_bytes();
                        socket.iter().any(|part| part.as_encoded_bytes() == name)
                    });
                    if is_gone || is_ours {
                        return;
                    }
                }
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    break;
                }
                Err(Errno::INTR) => {}
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    const NOW: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_socket_that_appears_is_told_at_once() {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("run/engine.sock");
        let mut watched = SocketWatch::of(&socket);
        std::fs::write(place.path().join("other"), "").unwrap();
        assert!(!watched.changed(NOW).await, "nobody asked for that");
        std::fs::create_dir(place.path().join("run")).unwrap();
        assert!(watched.changed(SOON).await, "its directory");
        let mut watched = SocketWatch::of(&socket);
        assert!(!watched.changed(NOW).await);
        let listener = UnixListener::bind(&socket).unwrap();
        assert!(watched.changed(SOON).await, "itself");
        drop(listener);
        let mut watched = SocketWatch::of(&socket);
        std::fs::remove_dir_all(place.path().join("run")).unwrap();
        assert!(watched.changed(SOON).await, "its directory goes: another has to be watched");
    }
}
