//! Local processes that stand in for a backend: an author's program under a debugger, behind the same route.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Broker, pools::Pools};
use crate::model::{
    error::{Error, Reason, Result},
    reference::ExtensionId,
};

/// The number of the next place that is taken.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Which extensions have a stand-in.
#[derive(Debug, Clone, Default)]
pub(super) struct Attached(Arc<Mutex<HashMap<ExtensionId, Held>>>);

/// A place that is taken, known by a number so that only whoever took it gives it back.
#[derive(Debug)]
struct Held {
    number: u64,
    stand_in: StandIn,
}

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
    pools: Pools,
    id: ExtensionId,
    number: u64,
}

impl Attached {
    /// The stand-in of an extension, if it has one.
    pub(super) fn get(&self, id: &ExtensionId) -> Option<StandIn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).map(|held| held.stand_in.clone())
    }

    /// Ends the stand-in of an extension, whoever holds its place.
    pub(super) fn end(&self, id: &ExtensionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
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
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        attached.insert(id.clone(), Held { number, stand_in: StandIn { socket, directory } });
        drop(attached);
        self.pools.close(id);
        Ok(Attachment { attached: self.attached.clone(), pools: self.pools.clone(), id: id.clone(), number })
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut attached = self.attached.0.lock().unwrap_or_else(PoisonError::into_inner);
        if attached.get(&self.id).is_some_and(|held| held.number == self.number) {
            attached.remove(&self.id);
            self.pools.close(&self.id);
        }
    }
}
