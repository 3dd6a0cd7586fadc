//! What speaks at the engine's socket: Docker's daemon, or what speaks as it does. Here is how it is reached and told of,
//! how a request is put, and what its answers are to us. What requests mean is for those who put them: `engine` puts those
//! about objects, `exec` those about programs.
//!
//! Paths name no version of the API, which each engine takes for its own: the oldest and the newest have none in common.

mod ask;
mod failure;
mod frames;
mod kept;
#[cfg(test)]
#[cfg(unix)]
mod tests;
mod trouble;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

pub use failure::{Failure, Refusal};
pub use frames::{Frames, OutputStream, Torn};
pub use kept::Kept;
pub use trouble::Trouble;

use crate::{
    local,
    model::error::{Error, Reason},
};

/// A stream that a request was answered with: both ways, and either can be closed.
pub type Stream = hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>;

/// How long an answer is waited for. Creating a container on a busy disk takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where it is. Cheap to clone; nothing connects before the first request.
#[derive(Debug, Clone)]
pub struct Dockerd {
    socket: PathBuf,
    /// Its address, as it is told.
    url: String,
    kept: Kept,
    patience: Duration,
}

impl Dockerd {
    /// The one that listens on `socket`.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        let socket = socket.into();
        let kept = Kept::new(&socket, Trouble::default());
        Dockerd { url: local::url(&socket), socket, kept, patience: PATIENCE }
    }

    /// The same, told of by another address than that of the socket that leads to it.
    pub fn known_as(self, url: String) -> Self {
        Dockerd { url, ..self }
    }

    /// The same, behind what notes why it does not reach it.
    pub fn behind(self, trouble: Trouble) -> Self {
        let kept = Kept::new(&self.socket, trouble);
        Dockerd { kept, ..self }
    }

    /// The same for requests whose answers are waited for no longer than this.
    pub fn within(&self, patience: Duration) -> Self {
        Dockerd { patience, ..self.clone() }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its address, as DOCKER_HOST spells it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Why it was not reached the last time, where something stands between its socket and it.
    pub fn trouble(&self) -> Option<String> {
        self.kept.trouble()
    }

    /// The connections to it.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// How long an answer is waited for.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// That it does not answer what was asked about `subject`, and why: what is wrong on the way to it, where that is known.
    pub fn away(&self, subject: &str, why: &dyn fmt::Display) -> Error {
        let why = self.trouble().unwrap_or_else(|| why.to_string());
        let message = format!("the engine at {} does not answer: {why}", self.url);
        Error::new(Reason::EngineUnavailable, subject, message)
    }

    /// What comes in time about `subject`; that it does not answer, where nothing does.
    ///
    /// # Errors
    ///
    /// `ENGINE_UNAVAILABLE`.
    pub async fn in_time<T>(&self, subject: &str, work: impl Future<Output = T>) -> Result<T, Error> {
        let late = |_| self.away(subject, &format!("nothing came within {:?}", self.patience));
        tokio::time::timeout(self.patience, work).await.map_err(late)
    }
}
