//! Tasks of one tunnel: they end with it.

use std::future::Future;

use tokio_util::task::AbortOnDropHandle;

/// Runs something beside, until the handle is dropped.
pub(super) fn beside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(work))
}
