//! The directory that an extension's containers would share with the broker: from Windows none is reached.

use std::{fmt, io, path::Path};

use crate::{local::Stream, model::error::Result};

/// What stands for a guest directory.
#[derive(Debug)]
pub struct GuestDir;

/// What lies where a socket should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {}

/// Why a socket could not be reached.
#[derive(Debug)]
pub enum DialError {
    /// There is nothing of that name.
    Missing,
    /// There is something, but no socket of the extension's own.
    NotASocket(Found),
    /// Nobody listens on it.
    Refused,
    /// The broker's user may not connect.
    Denied,
    /// Its queue is full; try again in a moment.
    Busy,
    /// Anything else.
    Other(io::Error),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::NotASocket(found) => match *found {},
            DialError::Missing => f.write_str("there is no socket of that name"),
            DialError::Refused => f.write_str("nobody listens on the socket"),
            DialError::Denied => f.write_str("the broker's user may not connect to the socket"),
            DialError::Busy => f.write_str("the socket's queue is full"),
            DialError::Other(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DialError {}

impl GuestDir {
    /// What stands for the directory at `path`.
    ///
    /// # Errors
    /// None here.
    pub fn open(_path: &Path) -> Result<Self> {
        Ok(GuestDir)
    }

    /// Does not connect.
    ///
    /// # Errors
    /// Always.
    pub fn dial(&self, _name: &str) -> Result<Stream, DialError> {
        Err(DialError::Other(io::Error::other("sockets in containers are not reached from Windows")))
    }

    /// Does not connect.
    ///
    /// # Errors
    /// Always.
    pub fn connect(&self, name: &str) -> Result<Stream, DialError> {
        self.dial(name)
    }

    /// Removes nothing.
    ///
    /// # Errors
    /// None here.
    pub fn clear_stale_socket(&self, _name: &str) -> io::Result<bool> {
        Ok(false)
    }
}
