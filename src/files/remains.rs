//! What stays of a tree that was to be removed.

use std::{error::Error as StdError, fmt, io, path::PathBuf};

use crate::model::error::{Error, Reason};

/// What could not be removed, mostly because a container's root owns it and the broker runs as a plain user.
#[derive(Debug, Default)]
pub struct Remains {
    /// Paths and why, the first hundred.
    pub listed: Vec<(PathBuf, io::Error)>,
    /// How many there are in all.
    pub total: u64,
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files could not be removed", self.total)?;
        match self.listed.first() {
            Some((path, error)) => write!(f, ", the first is {:?}: {error}", path.display().to_string()),
            None => Ok(()),
        }
    }
}

impl StdError for Remains {}

impl From<Remains> for Error {
    fn from(left: Remains) -> Self {
        let subject = left.listed.first().map(|(path, _)| path.display().to_string()).unwrap_or_default();
        Error::new(Reason::FileFailed, subject, left.to_string()).caused_by(left)
    }
}
