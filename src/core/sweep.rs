//! Removes an extension's files, also those that a container's root left where a plain user may not remove them.

use super::{Broker, blocking::blocking};
use crate::{
    files::extension::ExtensionDir,
    model::{error::Result, reference::ExtensionId},
};

impl Broker {
    /// Removes everything that lies in an extension's directory.
    ///
    /// # Errors
    ///
    /// `FILE_FAILED` with the first path that stays, `ENGINE_UNAVAILABLE` where its help was needed.
    pub(super) async fn remove_files(&self, id: &ExtensionId) -> Result<()> {
        let directory = self.layout.extension(id);
        let Err(left) = remove(directory.clone()).await else { return Ok(()) };
        tracing::debug!(extension = %id, %left, "a container's root left files; removing them as root of a container");
        // The helper lies in the broker's directory, which may be gone by now.
        directory.create()?;
        self.hub.place_copy(&directory.broker()).await?;
        self.engine.sweep(directory.path(), &directory.broker()).await?;
        remove(directory).await
    }
}

async fn remove(directory: ExtensionDir) -> Result<()> {
    blocking(move || directory.remove().map_err(Into::into)).await
}
