//! Why something that was asked was not done.

use std::fmt;

use crate::model::error::{Error, Reason};

/// Why something that was asked was not done.
#[derive(Debug)]
pub enum Failure {
    /// The engine refuses.
    Refused(Refusal),
    /// It does not answer, or its answer is none.
    Failed(Error),
}

/// What the engine says of what it refuses.
#[derive(Debug)]
pub struct Refusal {
    /// What it was asked about.
    pub subject: String,
    /// Which kind of refusal, in HTTP's numbers.
    pub status: u16,
    /// In its words.
    pub message: String,
}

impl Refusal {
    /// One about `subject`.
    pub fn new(subject: &str, status: u16, message: &str) -> Self {
        Refusal { subject: subject.to_owned(), status, message: message.trim().to_owned() }
    }

    /// Whether there is no such thing as was asked about.
    pub fn is_missing(&self) -> bool {
        self.status == 404
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the engine refused: {}", self.message)
    }
}

/// As most who ask mean it: `RESOURCE_NOT_FOUND` for what is not there, `ENGINE_REFUSED` for all else.
impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let reason = if refusal.is_missing() { Reason::ResourceNotFound } else { Reason::EngineRefused };
        let message = refusal.to_string();
        Error::new(reason, refusal.subject, message)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Failed(error) => error,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refused(refusal)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Failed(error)
    }
}
