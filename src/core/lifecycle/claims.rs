//! One change of an extension at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::model::{
    error::{Error, Reason, Result},
    reference::ExtensionId,
};

/// When to try again after another change was in the way.
pub(super) const BUSY_RETRY: Duration = Duration::from_secs(1);

/// How long a call waits for the broker's own care for an extension, which takes a moment as a rule.
const CARE_LIMIT: Duration = Duration::from_secs(60);
/// How often it looks meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Who changes an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claimant {
    /// A call.
    Call,
    /// The broker by itself: calls wait for it.
    Care,
}

/// The extensions that are being changed.
#[derive(Debug, Clone, Default)]
pub(in crate::core) struct Claims(Arc<Mutex<HashMap<ExtensionId, Claimant>>>);

/// The right to change one extension; given back when dropped.
#[derive(Debug)]
pub(in crate::core) struct Claim {
    claims: Claims,
    id: ExtensionId,
}

impl Claims {
    /// Takes the right to change an extension for a call.
    ///
    /// # Errors
    ///
    /// `EXTENSION_BUSY`.
    pub(in crate::core) async fn take(&self, id: &ExtensionId) -> Result<Claim> {
        let until = tokio::time::Instant::now() + CARE_LIMIT;
        loop {
            match self.try_take(id, Claimant::Call) {
                Ok(claim) => return Ok(claim),
                Err(Claimant::Care) if tokio::time::Instant::now() < until => tokio::time::sleep(LOOK_AGAIN).await,
                Err(_) => return Err(busy(id)),
            }
        }
    }

    /// Takes it for the broker's own care.
    ///
    /// # Errors
    ///
    /// `EXTENSION_BUSY`.
    pub(in crate::core) fn take_aside(&self, id: &ExtensionId) -> Result<Claim> {
        self.try_take(id, Claimant::Care).map_err(|_| busy(id))
    }

    fn try_take(&self, id: &ExtensionId, holder: Claimant) -> Result<Claim, Claimant> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = held.get(id) {
            return Err(*other);
        }
        held.insert(id.clone(), holder);
        // From here on it is known whom the call is about, or the care.
        tracing::Span::current().record("extension", id.as_str());
        Ok(Claim { claims: self.clone(), id: id.clone() })
    }
}

fn busy(id: &ExtensionId) -> Error {
    let message = format!("{id} is being changed by another call; try again when that is done");
    Error::new(Reason::ExtensionBusy, id.as_str(), message).retry_after(BUSY_RETRY)
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_second_claim_is_refused_until_the_first_is_gone() {
        let claims = Claims::default();
        let id: ExtensionId = "a/b".parse().unwrap();
        let first = claims.take(&id).await.unwrap();
        assert_eq!(claims.take(&id).await.unwrap_err().reason(), Reason::ExtensionBusy);
        assert_eq!(claims.take_aside(&id).unwrap_err().reason(), Reason::ExtensionBusy);
        drop(first);
        let care = claims.take_aside(&id).unwrap();
        let (second, ()) = tokio::join!(claims.take(&id), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(care);
        });
        second.unwrap();
    }
}
