//! Connections to backends that are open for the next call, by extension.
//!
//! Whatever changes where an extension's calls go closes its connections: then the next call looks anew, and what is under
//! way on an old connection is its last.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    model::reference::ExtensionId,
    proxy::{GrpcLanes, HttpLanes, Pool, Traffic},
};

/// The open connections of all extensions.
#[derive(Debug, Clone, Default)]
pub(super) struct Pools {
    open: Arc<Mutex<HashMap<ExtensionId, Endpoints>>>,
    traffic: Arc<Traffic>,
}

/// The open connections of one extension, by the name of the endpoint that calls ask for; empty where they name none.
type Endpoints = HashMap<String, Arc<Connections>>;

/// The open connections to one endpoint.
#[derive(Debug)]
pub(super) struct Connections {
    /// For HTTP/1.1.
    pub(super) http: Arc<Pool>,
    /// For gRPC.
    pub(super) grpc: GrpcLanes,
    /// For HTTP/2 that is no gRPC.
    pub(super) h2c: HttpLanes,
}

impl Connections {
    /// How many connections are open: those for HTTP/1.1 that are idle, the others in any case.
    fn open(&self) -> usize {
        self.http.idle() + self.grpc.open() + self.h2c.open()
    }
}

impl Pools {
    /// Those of an extension's endpoint; taken before it is looked where its calls go.
    pub(super) fn of(&self, id: &ExtensionId, endpoint: &str) -> Arc<Connections> {
        let mut pools = self.lock();
        if let Some(connections) = pools.get(id).and_then(|endpoints| endpoints.get(endpoint)) {
            return Arc::clone(connections);
        }
        // Calls can name what is not there: nothing is kept for those.
        pools.retain(|_, endpoints| {
            endpoints.retain(|_, connections| Arc::strong_count(connections) > 1 || connections.open() > 0);
            !endpoints.is_empty()
        });
        let connections = Arc::new(Connections {
            http: Arc::new(Pool::counted(self.traffic.clone())),
            grpc: GrpcLanes::counted(self.traffic.clone()),
            h2c: HttpLanes::counted(self.traffic.clone()),
        });
        Arc::clone(pools.entry(id.clone()).or_default().entry(endpoint.to_owned()).or_insert(connections))
    }

    /// Calls go elsewhere from now on, or nowhere.
    pub(super) fn close(&self, id: &ExtensionId) {
        let closed = self.lock().remove(id);
        for connections in closed.into_iter().flat_map(HashMap::into_values) {
            connections.http.close();
            connections.grpc.close();
            connections.h2c.close();
        }
    }

    /// How many connections are open: over HTTP/1.1 those that wait for a call, over HTTP/2 all.
    pub(super) fn open(&self) -> usize {
        self.lock().values().flat_map(HashMap::values).map(|connections| connections.open()).sum()
    }

    /// The bytes on all connections, past ones included.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExtensionId, Endpoints>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
