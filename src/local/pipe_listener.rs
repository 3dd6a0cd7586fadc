//! A named pipe that takes one client after the other.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    path::{Path, PathBuf},
};

use futures_util::future::select_all;
use tokio::{net::windows::named_pipe::NamedPipeServer, sync::Mutex};

use super::{Security, Stream, create, next_client, open, socket::is_busy};

/// Instances that wait for clients at a time. A client that finds none free is told that the pipe is busy.
const WAITING: usize = 8;

/// A pipe, listening. It is there as long as this value is, or a client's end.
#[derive(Debug)]
pub struct Listener {
    name: PathBuf,
    security: Security,
    waiting: Mutex<Vec<NamedPipeServer>>,
}

impl Listener {
    /// Makes the pipe of that name, for this user alone.
    ///
    /// # Errors
    ///
    /// What the system says: `PermissionDenied` where another process has a pipe of that name.
    pub fn bind(name: &Path) -> io::Result<Self> {
        // The flag that the first instance has says the same; Wine 8 knows nothing of it.
        if open(name).map_or_else(|error| is_busy(&error), |_| true) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let security = Security::of_this_user()?;
        let waiting = Mutex::new(vec![create(name, &security, true)?]);
        Ok(Listener { name: name.to_owned(), security, waiting })
    }

    /// The next client.
    pub async fn accept(&self) -> Stream {
        next_client(self.name.display(), || self.try_accept()).await
    }

    async fn try_accept(&self) -> io::Result<Stream> {
        let mut waiting = self.waiting.lock().await;
        let refilled = self.refill(&mut waiting);
        if waiting.is_empty() {
            refilled?;
        }
        let connecting = waiting.iter().map(|instance| Box::pin(instance.connect()));
        let (connected, which, others) = select_all(connecting).await;
        drop(others);
        let instance = waiting.swap_remove(which);
        // At once, and not when the next is asked for: clients may come meanwhile.
        let _ = self.refill(&mut waiting);
        connected.map(|()| Stream::Server(instance))
    }

    fn refill(&self, waiting: &mut Vec<NamedPipeServer>) -> io::Result<()> {
        while waiting.len() < WAITING {
            waiting.push(create(&self.name, &self.security, false)?);
        }
        Ok(())
    }
}

/// Makes a directory; pipes lie in none.
///
/// # Errors
///
/// What the system says.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    std::fs::create_dir(path)
}

/// The name of a pipe that belongs to a directory.
pub fn place(directory: &Path, name: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    directory.hash(&mut hasher);
    PathBuf::from(format!(r"\\.\pipe\longshore-{:016x}-{name}", hasher.finish()))
}

/// An address as DOCKER_HOST spells it.
pub fn url(name: &Path) -> String {
    format!("npipe://{}", name.display().to_string().replace('\\', "/"))
}
