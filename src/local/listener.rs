//! A socket of this user's own.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

use super::{Stream, next_client};

/// A socket, listening, for this user alone.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    listener: UnixListener,
}

impl Listener {
    /// Binds it at `path`, in a directory that is private and nobody else's; what a broker left there is replaced.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Listener { path: path.to_owned(), listener })
    }

    /// The next client.
    pub async fn accept(&self) -> Stream {
        next_client(self.path.display(), || self.listener.accept()).await.0
    }
}

/// Makes a directory for sockets of this user's own.
///
/// # Errors
///
/// What the system says.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// Where a socket called `name` lies that belongs to a directory.
pub fn place(directory: &Path, name: &str) -> PathBuf {
    directory.join(name)
}

/// An address as DOCKER_HOST spells it.
pub fn url(path: &Path) -> String {
    format!("unix://{}", path.display())
}
