//! Uninstall: it is recorded first, and then finished whatever happens, now or when the engine answers again.

use std::sync::Arc;

use tracing::Instrument;

use super::{super::Broker, broken_off, failpoint};
use crate::model::{
    error::{Error, Reason, Result},
    journal::{ChangeKind, ChangeNotes, Step},
    reference::Reference,
};

/// What an uninstall left and took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Named volumes that stayed.
    pub kept_volumes: Vec<String>,
    /// Named volumes that were removed.
    pub removed_volumes: Vec<String>,
    /// Whether the image was removed.
    pub image_removed: bool,
    /// The engine does not answer: it is finished when it does.
    pub pending: bool,
}

impl Broker {
    /// Removes an extension. Goes on when the caller goes away: half an uninstall helps nobody.
    ///
    /// # Errors
    ///
    /// `EXTENSION_NOT_FOUND`, `EXTENSION_BUSY`.
    pub async fn uninstall(self: Arc<Self>, reference: Reference, volumes: bool, uid: Option<u32>) -> Result<Removed> {
        let broker = self.clone();
        let work = async move { broker.uninstall_now(&reference, volumes, uid).await };
        let work = self.tasks.spawn(work.in_current_span());
        work.await.map_err(broken_off)?
    }

    async fn uninstall_now(&self, reference: &Reference, volumes: bool, uid: Option<u32>) -> Result<Removed> {
        let id = &reference.id;
        let _claim = self.claims.take(id).await?;
        let installed = self.installed(id).await?;
        if !reference.is_bare() && installed.record.reference != reference.to_string() {
            let message = format!("{reference} is not installed; {} is", installed.record.reference);
            return Err(Error::new(Reason::ExtensionNotFound, id.as_str(), message));
        }
        let was_unfinished = installed.change.as_ref().is_some_and(|change| change.notes.unfinished);
        let unfinished = was_unfinished || installed.changing() == Some(ChangeKind::Install);
        let notes = ChangeNotes { remove_volumes: volumes, unfinished, ..ChangeNotes::default() };
        let mut installed = self.store.begin_uninstall(&installed, notes).await?;
        failpoint::begun(Step::UninstallObjects);
        let removed = self.remove_all(&mut installed).await;
        let subject = format!("{}{}", installed.record.reference, if volumes { " with volumes" } else { "" });
        self.audit_change(uid, "uninstall", id, subject, removed.as_ref().err()).await;
        match removed {
            Ok(removed) => {
                tracing::info!(extension = %id, "uninstalled");
                Ok(removed)
            }
            Err(error) => {
                self.mender.wake();
                if error.reason() != Reason::EngineUnavailable {
                    return Err(error);
                }
                tracing::warn!(%error, extension = %id, "an uninstall waits for the engine");
                Ok(Removed { pending: true, ..Removed::default() })
            }
        }
    }
}
