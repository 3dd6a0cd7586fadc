//! Sockets in directories that containers have mounted: from Windows there are none.

use std::{convert::Infallible, path::Path};

use crate::{
    local::Stream,
    model::error::{Error, Reason, Result},
};

pub use super::caller::Caller;

/// None.
#[derive(Debug)]
pub struct Socket(Infallible);

impl Socket {
    /// Opens none.
    ///
    /// # Errors
    ///
    /// `FILE_FAILED`, always.
    pub fn open(dir: &Path, name: &'static str, what: &str, _user: u32) -> Result<Socket> {
        let path = dir.join(name).display().to_string();
        let message = format!("cannot open {what} at {path}: containers share no directory with Windows");
        Err(Error::new(Reason::FileFailed, &path, message))
    }

    /// The next client.
    #[expect(clippy::unused_async, reason = "as where there is one")]
    pub async fn accept(&self) -> Stream {
        match self.0 {}
    }

    /// Who has just connected.
    ///
    /// # Errors
    ///
    /// None here.
    pub fn caller(&self, _stream: &Stream, _barred: impl Fn(i32) -> bool) -> Result<Caller, &'static str> {
        match self.0 {}
    }

    /// Its address as DOCKER_HOST spells it.
    pub fn address(&self) -> String {
        match self.0 {}
    }

    /// Removes its name.
    pub fn remove(&self) {
        match self.0 {}
    }
}
