//! The directory that an extension's containers would share with the broker: from Windows none is reached.

use std::{io, path::Path};

pub use super::dialled::{DialError, Found};
use crate::{local::Stream, model::error::Result};

/// What stands for a guest directory.
#[derive(Debug)]
pub struct GuestDir;

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
