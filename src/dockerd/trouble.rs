//! What is wrong on the way to an engine that is not at a socket of this machine.

use std::sync::{Arc, Mutex, PoisonError};

/// Why the engine was not reached the last time, in words; nothing once it was. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// What it is.
    pub fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes it, or that there is none any more.
    pub fn set(&self, why: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}
