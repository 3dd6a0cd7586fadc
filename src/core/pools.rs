//! Connections to backends that are open for the next call, by extension.
//!
//! Whatever changes where an extension's calls go closes its connections: then the next call looks anew, and what is under
//! way on an old connection is its last.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    model::reference::ExtensionId,
    proxy::{Lanes, Pool},
};

/// The open connections of all extensions.
#[derive(Debug, Clone, Default)]
pub(super) struct Pools(Arc<Mutex<HashMap<ExtensionId, Arc<Ways>>>>);

/// The open connections of one extension's backend.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// For HTTP/1.1.
    pub(super) http: Arc<Pool>,
    /// For gRPC.
    pub(super) grpc: Lanes,
}

impl Ways {
    fn is_empty(&self) -> bool {
        self.http.idle() == 0 && self.grpc.open() == 0
    }
}

impl Pools {
    /// Those of an extension; taken before it is looked where its calls go.
    pub(super) fn of(&self, id: &ExtensionId) -> Arc<Ways> {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match pools.get(id) {
            Some(ways) => Arc::clone(ways),
            None => {
                // Calls can name what is not there: nothing is kept for those.
                pools.retain(|_, ways| Arc::strong_count(ways) > 1 || !ways.is_empty());
                Arc::clone(pools.entry(id.clone()).or_default())
            }
        }
    }

    /// Calls go elsewhere from now on, or nowhere.
    pub(super) fn close(&self, id: &ExtensionId) {
        if let Some(ways) = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id) {
            ways.http.close();
            ways.grpc.close();
        }
    }
}
