//! Work that may block on the disk.

use crate::model::error::{Error, Result};

/// Runs work on files away from the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::bug("work on files broke off").caused_by(e))?
}
