//! One change of an extension at a time.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::model::{
    error::{Error, Reason, Result},
    reference::ExtensionId,
};

/// When to try again after another change was in the way.
pub(super) const BUSY_RETRY: Duration = Duration::from_secs(1);

/// The extensions that are being changed.
#[derive(Debug, Clone, Default)]
pub(in crate::core) struct Claims(Arc<Mutex<HashSet<ExtensionId>>>);

/// The right to change one extension; given back when dropped.
#[derive(Debug)]
pub(in crate::core) struct Claim {
    claims: Claims,
    id: ExtensionId,
}

impl Claims {
    /// Takes the right to change an extension. Errors: EXTENSION_BUSY.
    pub(in crate::core) fn take(&self, id: &ExtensionId) -> Result<Claim> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone()) {
            return Ok(Claim { claims: self.clone(), id: id.clone() });
        }
        let message = format!("{id} is being changed by another call; try again when that is done");
        Err(Error::new(Reason::ExtensionBusy, id.as_str(), message).retry_after(BUSY_RETRY))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_claim_is_refused_until_the_first_is_gone() {
        let claims = Claims::default();
        let id: ExtensionId = "a/b".parse().unwrap();
        let first = claims.take(&id).unwrap();
        assert_eq!(claims.take(&id).unwrap_err().reason(), Reason::ExtensionBusy);
        drop(first);
        claims.take(&id).unwrap();
    }
}
