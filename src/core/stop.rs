//! Stops what an extension runs.

use futures_util::future::join_all;

use super::Broker;
use crate::model::{error::Result, extension::ResourceKind, reference::ExtensionId, registration::StopCause};

impl Broker {
    /// Ends what goes on in an extension's containers before they stop: who is registered is told, and calls, programs and
    /// connections to the engine end.
    pub(super) async fn end_use(&self, id: &ExtensionId, cause: StopCause) {
        self.registrations.stop_coming(id, cause);
        self.pools.close(id);
        self.gateways.end_connections(id.as_str());
        self.hub.end_all_of(id.as_str()).await;
    }

    /// Ends an extension's programs and stops its containers.
    pub(super) async fn stop_containers(&self, id: &ExtensionId) -> Result<()> {
        self.end_use(id, StopCause::Disabled).await;
        if let Some(installed) = self.store.extension(id).await? {
            self.record_unknown(&installed).await?;
        }
        let ledger = self.store.ledger(Some(id)).await?;
        let containers = ledger.into_iter().filter(|entry| entry.kind == ResourceKind::Container);
        self.stop_all(containers.map(|entry| entry.id).collect()).await
    }

    /// Stops containers, all at once.
    pub(super) async fn stop_all(&self, containers: Vec<String>) -> Result<()> {
        join_all(containers.iter().map(|id| self.engine.stop(id))).await.into_iter().collect()
    }
}
