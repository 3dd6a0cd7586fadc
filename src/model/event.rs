//! What happens to extensions, as those who watch are told.

use serde::{Deserialize, Serialize};

/// Something that happened to an extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Extension id.
    pub extension: String,
    /// The generation that it concerns.
    pub generation: i64,
    /// Version of that generation.
    pub version: String,
    /// What happened.
    pub what: What,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// It was not seen when it happened, but found afterwards.
    #[serde(skip)]
    pub observed_late: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// An install has begun.
    InstallBegan,
    /// It is installed.
    Installed,
    /// The install failed, and nothing of it is left.
    InstallUndone,
    /// An update to this generation has begun.
    UpdateBegan,
    /// This generation is the installed one now.
    Updated,
    /// The update failed; this generation is the installed one again.
    UpdateUndone,
    /// An uninstall has begun.
    UninstallBegan,
    /// It is gone.
    Uninstalled,
    /// The user wants it to run.
    Enabled,
    /// The user wants it not to run.
    Disabled,
    /// It was seen in another state than before. Never stored: it is observed anew.
    State {
        /// The state, as the API spells it without its prefix.
        state: String,
        /// Why, as a documented name; may be empty.
        reason: String,
        /// The same in words.
        message: String,
    },
}

/// An event that the store has written, with its place there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its number, which only grows.
    pub sequence: i64,
    /// The event.
    pub event: Event,
}
