//! What a crash left behind is finished at the next start: installs are undone, uninstalls are completed.

use std::{sync::Arc, time::Duration};

use super::Broker;
use crate::{
    exec::restore_pids_limit,
    model::{
        error::{Reason, Result},
        extension::Phase,
    },
};

/// How often it is tried while the engine is away.
const TRY_AGAIN: Duration = Duration::from_secs(2);

impl Broker {
    /// Begins to finish what was left; it goes on until it is done or the broker stops.
    pub fn spawn_recovery(self: &Arc<Self>) {
        let broker = self.clone();
        self.tasks.spawn(async move {
            let stopping = broker.stopping.clone();
            while !broker.recover().await {
                tokio::select! {
                    () = tokio::time::sleep(TRY_AGAIN) => {}
                    () = stopping.cancelled() => return,
                }
            }
            broker.spawn_late_sweeps();
        });
    }

    /// Tries once; true when nothing is left to do.
    async fn recover(&self) -> bool {
        let all = match self.store.extensions("", usize::MAX).await {
            Ok(all) => all,
            Err(error) => {
                tracing::error!(%error, "cannot read what a crash may have left");
                return true;
            }
        };
        let mut done = true;
        let mut note = |swept: Result<()>| {
            if let Err(error) = swept {
                done &= error.reason() != Reason::EngineUnavailable;
                tracing::warn!(%error, "cannot remove what a crash left in the engine");
            }
        };
        // First what keeps images in use.
        note(self.engine.remove_leftovers().await.map(|_| ()));
        note(self.discard_left().await);
        note(self.settle_creates(None).await);
        note(self.restore_squeezed().await);
        for left in all.iter().filter(|installed| installed.phase != Phase::Installed) {
            // A call of this very process that is at it holds the claim.
            let Ok(_claim) = self.claims.take(&left.id) else { continue };
            match self.remove_all(left).await {
                Ok(_) => tracing::info!(extension = %left.id, phase = ?left.phase, "finished what a crash left"),
                Err(error) => {
                    done &= error.reason() != Reason::EngineUnavailable;
                    tracing::warn!(%error, extension = %left.id, "cannot finish what a crash left");
                }
            }
        }
        done
    }

    /// Gives containers back the process limits that a killed broker had squeezed.
    async fn restore_squeezed(&self) -> Result<()> {
        for (container, limit) in self.store.left_squeezed(self.run.clone()).await? {
            restore_pids_limit(&self.engine.client()?, &container, limit).await?;
            self.store.settle_squeezed(container).await?;
        }
        Ok(())
    }
}
