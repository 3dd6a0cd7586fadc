//! Stops what an extension runs.

use futures_util::future::join_all;

use super::Broker;
use crate::model::{error::Result, extension::ResourceKind, reference::ExtensionId, registration::StopCause};

impl Broker {
    /// Ends an extension's programs and stops its containers.
    pub(super) async fn stop_containers(&self, id: &ExtensionId) -> Result<()> {
        self.registrations.stop_coming(id, StopCause::Disabled);
        self.pools.close(id);
        self.gateways.end_connections(id.as_str());
        self.hub.end_all_of(id.as_str()).await;
        if let Some(installed) = self.store.extension(id).await? {
            self.record_unknown(&installed).await?;
        }
        let ledger = self.store.ledger(Some(id)).await?;
        let containers = ledger.iter().filter(|entry| entry.kind == ResourceKind::Container);
        let stops = join_all(containers.map(|entry| self.engine.stop(&entry.id))).await;
        stops.into_iter().collect::<Result<Vec<()>>>()?;
        Ok(())
    }
}
