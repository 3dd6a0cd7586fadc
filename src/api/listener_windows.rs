//! The control socket: a named pipe of this user's own (design section 3).

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    local::{Listener, Stream},
    model::error::{Error, Reason, Result},
};

pub use super::admitted::Admitted;

/// The control socket, listening. It goes with the value.
#[derive(Debug)]
pub struct ControlSocket {
    listener: Listener,
    name: PathBuf,
}

impl ControlSocket {
    /// Makes the pipe: the first of its name, so that no other process answers in our place, and for this user alone, whoever
    /// is admitted: a broker works for its own user alone here.
    ///
    /// # Errors
    ///
    /// `ALREADY_RUNNING`, `CONFIG_INVALID`, `FILE_FAILED`.
    pub fn open(name: &Path, admitted: Option<&Admitted>) -> Result<Self> {
        Self::bind(name, "--socket", admitted)
    }

    /// The same for a pipe that another argument chooses.
    ///
    /// # Errors
    ///
    /// Those of [`ControlSocket::open`].
    pub fn bind(name: &Path, argument: &str, _admitted: Option<&Admitted>) -> Result<Self> {
        let shown = name.display().to_string();
        let listener = Listener::bind(name).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                let message = format!(
                    "a process listens on {shown} already, perhaps another user's broker; choose another pipe with \
                     {argument}"
                );
                Error::new(Reason::AlreadyRunning, shown.clone(), message)
            }
            _ => Error::new(Reason::FileFailed, shown.clone(), format!("{shown}: making the pipe: {error}"))
                .caused_by(error),
        })?;
        Ok(ControlSocket { listener, name: name.to_owned() })
    }

    /// The next client.
    pub async fn accept(&self) -> Stream {
        self.listener.accept().await
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.name
    }
}

/// Makes a directory for what the broker needs while it runs; its pipes do not lie there.
///
/// # Errors
///
/// `FILE_FAILED`.
pub fn make_directory(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(|error| {
        let shown = directory.display().to_string();
        let message = format!("{shown}: making the directory: {error}");
        Error::new(Reason::FileFailed, shown, message).caused_by(error)
    })
}
