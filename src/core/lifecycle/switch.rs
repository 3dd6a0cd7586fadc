//! Enable and disable: what the user wants is recorded, and what follows from it is done.

use std::sync::Arc;

use tracing::Instrument;

use super::{
    super::{
        Broker,
        grants::grants_required,
        view::{View, backend_needs},
    },
    at_rest, broken_off, failpoint,
};
use crate::model::{error::Result, journal::Step, reference::ExtensionId};

impl Broker {
    /// Starts the containers of a disabled extension.
    ///
    /// # Errors
    ///
    /// `GRANTS_REQUIRED`, `PROJECT_NAME_TAKEN`, `EXTENSION_BUSY`, `ENGINE_UNAVAILABLE`.
    pub async fn enable(self: Arc<Self>, id: ExtensionId) -> Result<View> {
        let broker = self.clone();
        let work = async move {
            let _claim = broker.claims.take(&id).await?;
            let installed = broker.installed(&id).await?;
            at_rest(&installed)?;
            let missing = broker.decisions(&id).await?.missing(&backend_needs(&installed));
            if !missing.is_empty() {
                return Err(grants_required(id.as_str(), missing));
            }
            let installed = broker.store.begin_switch(&installed, Step::EnableStart, installed.enabled).await?;
            failpoint::begun(Step::EnableStart);
            let started = async {
                broker.start_built(&installed).await?;
                // Others stand in the place of what was removed meanwhile.
                broker.strike_gone(&id).await
            };
            if let Err(error) = started.await {
                broker.make_good(&id).await;
                return Err(error);
            }
            failpoint::done(Step::EnableStart);
            broker.store.finish_switch(&id, true).await?;
            broker.write_down(&id).await;
            broker.reconciler.some([id.clone()]);
            broker.view(&id).await
        };
        self.tasks.spawn(work.in_current_span()).await.map_err(broken_off)?
    }

    /// Stops the containers of an extension and ends its programs.
    ///
    /// # Errors
    ///
    /// `EXTENSION_BUSY`, `ENGINE_UNAVAILABLE`; then the wish is on record, and they stop when the engine answers.
    pub async fn disable(self: Arc<Self>, id: ExtensionId) -> Result<View> {
        let broker = self.clone();
        let work = async move {
            let _claim = broker.claims.take(&id).await?;
            let installed = broker.installed(&id).await?;
            at_rest(&installed)?;
            // What is wanted is recorded first: whatever happens now, it shall not run.
            broker.store.begin_switch(&installed, Step::DisableStop, false).await?;
            failpoint::begun(Step::DisableStop);
            if let Err(error) = broker.stop_containers(&id).await {
                broker.mender.wake();
                return Err(error);
            }
            failpoint::done(Step::DisableStop);
            broker.store.finish_switch(&id, false).await?;
            broker.write_down(&id).await;
            broker.reconciler.some([id.clone()]);
            broker.view(&id).await
        };
        self.tasks.spawn(work.in_current_span()).await.map_err(broken_off)?
    }
}
