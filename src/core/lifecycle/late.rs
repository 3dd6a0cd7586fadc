//! What the engine was asked for when an install broke off may come into being after that: the engine does not ask
//! whether anybody still waits for it.

use std::{sync::Arc, time::Duration};

use super::super::{Broker, ownership::NONCE_LABEL};
use crate::model::error::Result;

/// How long something may be late.
const KEEP: Duration = Duration::from_secs(3600);
/// When it is looked after an install broke off.
const LOOK_AGAIN: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(25), Duration::from_secs(90)];

impl Broker {
    /// Looks a few times for what comes late.
    pub(super) fn spawn_late_sweeps(self: &Arc<Self>) {
        let broker = self.clone();
        self.tasks.spawn(async move {
            for pause in LOOK_AGAIN {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = broker.stopping.cancelled() => return,
                }
                let swept = match broker.sweep_late().await.and(broker.settle_creates(None).await) {
                    Ok(()) => broker.engine.remove_leftovers().await.map(|_| ()),
                    failed => failed,
                };
                if let Err(error) = swept {
                    tracing::debug!(%error, "cannot look for what came late");
                }
            }
        });
    }

    /// Removes containers and networks of installs that broke off.
    pub(in crate::core) async fn sweep_late(&self) -> Result<()> {
        let broken = self.store.broken(KEEP).await?;
        if broken.is_empty() {
            return Ok(());
        }
        for container in self.engine.containers(&[NONCE_LABEL.to_owned()]).await? {
            if container.labels.get(NONCE_LABEL).is_some_and(|nonce| broken.contains(nonce)) {
                self.engine.remove_container(&container.id).await?;
            }
        }
        for network in self.engine.networks().await? {
            if network.labels.get(NONCE_LABEL).is_some_and(|nonce| broken.contains(nonce)) {
                self.engine.remove_network(&network.id).await?;
            }
        }
        Ok(())
    }
}
