//! Local processes that stand in for a backend: an author's program under a debugger, behind the same route.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use super::Broker;
use crate::model::{
    error::{Error, Reason, Result},
    reference::ExtensionId,
};

/// Which extensions have a stand-in.
#[derive(Debug, Clone, Default)]
pub(super) struct Attached(Arc<Mutex<HashMap<ExtensionId, StandIn>>>);

/// A local process that stands in for a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StandIn {
    /// The socket it serves HTTP on.
    pub(super) socket: PathBuf,
    /// Where programs of the backend run meanwhile.
    pub(super) directory: Option<PathBuf>,
}

/// A stand-in's place; the containers take over again when it is dropped.
#[derive(Debug)]
pub struct Attachment {
    attached: Attached,
    id: ExtensionId,
}

impl Attached {
    /// The stand-in of an extension, if it has one.
    pub(super) fn get(&self, id: &ExtensionId) -> Option<StandIn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

impl Broker {
    /// Lets a local process stand in for an extension's backend.
    ///
    /// Errors: EXTENSION_NOT_FOUND, ALREADY_ATTACHED.
    pub async fn attach(&self, id: &ExtensionId, socket: PathBuf, directory: Option<PathBuf>) -> Result<Attachment> {
        self.installed(id).await?;
        let mut attached = self.attached.0.lock().unwrap_or_else(PoisonError::into_inner);
        if attached.contains_key(id) {
            let message = format!("a local process stands in for the backend of {id} already");
            return Err(Error::new(Reason::AlreadyAttached, id.as_str(), message));
        }
        attached.insert(id.clone(), StandIn { socket, directory });
        Ok(Attachment { attached: self.attached.clone(), id: id.clone() })
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.attached.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
