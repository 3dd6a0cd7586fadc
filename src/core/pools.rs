//! Connections to backends that wait for the next call, by extension.
//!
//! Whatever changes where an extension's calls go closes its pool: then the next call looks anew, and what is under way
//! on an old connection is its last.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{model::reference::ExtensionId, proxy::Pool};

/// The pools of all extensions.
#[derive(Debug, Clone, Default)]
pub(super) struct Pools(Arc<Mutex<HashMap<ExtensionId, Arc<Pool>>>>);

impl Pools {
    /// The pool of an extension; taken before it is looked where its calls go.
    pub(super) fn of(&self, id: &ExtensionId) -> Arc<Pool> {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match pools.get(id) {
            Some(pool) => Arc::clone(pool),
            None => Arc::clone(pools.entry(id.clone()).or_default()),
        }
    }

    /// Calls go elsewhere from now on, or nowhere.
    pub(super) fn close(&self, id: &ExtensionId) {
        if let Some(pool) = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id) {
            pool.close();
        }
    }
}
