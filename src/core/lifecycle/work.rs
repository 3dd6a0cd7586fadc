//! An install or update under way: it goes on by itself, is watched by whoever asked for it, and can be called off.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{FutureExt, future::Shared};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument;

use super::super::Broker;
use crate::model::error::{Error, Reason, Result};

/// Work that goes on by itself and ends with a `T`.
#[derive(Debug)]
pub struct Work<T> {
    finished: Shared<oneshot::Receiver<Arc<std::result::Result<T, Failure>>>>,
    cancel: CancellationToken,
}

/// A failure that more than one may look at.
#[derive(Debug)]
struct Failure(Mutex<Option<Error>>);

impl<T> Clone for Work<T> {
    fn clone(&self) -> Self {
        Work { finished: self.finished.clone(), cancel: self.cancel.clone() }
    }
}

impl<T: Clone + Send + Sync + 'static> Work<T> {
    /// Begins it.
    pub(super) fn begin<F>(broker: &Broker, work: impl FnOnce(CancellationToken) -> F) -> Work<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let cancel = CancellationToken::new();
        let (done, finished) = oneshot::channel();
        let work = work(cancel.clone());
        let to_its_end = async move {
            let result = work.await;
            let _ = done.send(Arc::new(result.map_err(|error| Failure(Mutex::new(Some(error))))));
        };
        broker.tasks.spawn(to_its_end.in_current_span());
        Work { finished: finished.shared(), cancel }
    }

    /// How it ended. The failure goes to the first who asks.
    pub async fn finished(self) -> Result<T> {
        let gone = || Error::new(Reason::ShuttingDown, "", "the broker stopped and the work was undone");
        match &*self.finished.await.map_err(|_| gone())? {
            Ok(value) => Ok(value.clone()),
            Err(failure) => {
                let taken = failure.0.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(taken.unwrap_or_else(|| Error::bug("a failure was asked for twice")))
            }
        }
    }

    /// Undoes it, unless it is done, when the guard is dropped.
    pub fn cancel_on_drop(&self) -> DropGuard {
        self.cancel.clone().drop_guard()
    }
}

impl Broker {
    /// Runs the steps of a change until they end, the caller goes away or the broker stops.
    pub(super) async fn until_called_off<T>(
        &self,
        cancel: &CancellationToken,
        steps: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let off = |why: &str| Err(Error::new(Reason::ShuttingDown, "", format!("{why}; the work was undone")));
        tokio::select! {
            result = steps => result,
            () = cancel.cancelled() => off("the caller went away"),
            () = self.stopping.cancelled() => off("the broker stops"),
        }
    }
}
