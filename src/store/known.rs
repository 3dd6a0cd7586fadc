//! What nearly every call asks about its extension, kept in memory until anything is written.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Store, extensions, grants};
use crate::model::{error::Result, extension::Installed, grant::Decisions, reference::ExtensionId};

/// An extension as the store has it.
#[derive(Debug, PartialEq)]
pub struct Known {
    /// What is installed, in whatever change.
    pub installed: Installed,
    /// What was decided about it.
    pub decisions: Decisions,
}

/// Filled and emptied by the store's thread alone, between two transactions: what is in it is what the database says.
#[derive(Debug, Default)]
pub(super) struct Memory {
    known: Mutex<HashMap<ExtensionId, Arc<Known>>>,
}

impl Memory {
    /// Forgets all, because something was written.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExtensionId, Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// An extension and what was decided about it.
    pub async fn known(&self, id: &ExtensionId) -> Result<Option<Arc<Known>>> {
        if let Some(known) = self.memory.lock().get(id) {
            return Ok(Some(known.clone()));
        }
        let (id, memory) = (id.clone(), self.memory.clone());
        self.transaction(move |t| {
            let Some(installed) = extensions::current(t, &id)? else { return Ok(None) };
            let known = Arc::new(Known { installed, decisions: grants::decisions(t, &id)? });
            memory.lock().insert(id, known.clone());
            Ok(Some(known))
        })
        .await
    }
}
