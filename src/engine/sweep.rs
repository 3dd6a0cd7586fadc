//! Empties a directory as root where the broker is a plain user, and removes a socket from a volume: by a container that
//! holds nothing but the broker's helper.

use std::path::Path;

use bollard::{
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions},
};
use futures_util::StreamExt;

use super::Engine;
use crate::model::{
    error::{Error, Reason, Result},
    mounts::Mounts,
    platform::CONTAINER_ROOT,
};

impl Engine {
    /// Empties `directory`, which is an extension's, as root. `broker_dir` holds the helper and goes with it.
    ///
    /// # Errors
    ///
    /// `ENGINE_REFUSED`, `ENGINE_UNAVAILABLE`, `FILE_FAILED`.
    pub async fn sweep(&self, directory: &Path, broker_dir: &Path) -> Result<()> {
        let image = self.import_empty(&directory.to_string_lossy(), "sweeper").await?;
        let mounts = Mounts::Shared { guest_dir: directory.to_owned(), broker_dir: broker_dir.to_owned() };
        let swept = self.run_sweeper(&image, &mounts, &["sweep"]).await;
        self.remove_image(&image).await?;
        swept
    }

    /// Removes the socket `name` from a volume that stands for a guest directory, while no container of its extension
    /// runs.
    ///
    /// # Errors
    ///
    /// `ENGINE_REFUSED`, `ENGINE_UNAVAILABLE`, `FILE_FAILED`.
    pub async fn unlink_socket(&self, mounts: &Mounts, name: &str) -> Result<()> {
        let image = self.import_empty(&format!("{mounts:?}"), "sweeper").await?;
        let unlinked = self.run_sweeper(&image, mounts, &["unlink", name]).await;
        self.remove_image(&image).await?;
        unlinked
    }

    async fn run_sweeper(&self, image: &str, mounts: &Mounts, work: &[&str]) -> Result<()> {
        let program = [mounts.shim(), "shim"].into_iter().chain(work.iter().copied());
        let body = ContainerCreateBody {
            image: Some(image.into()),
            entrypoint: Some(program.map(ToOwned::to_owned).collect()),
            user: Some(CONTAINER_ROOT.into()),
            labels: Some(self.origin.labels("sweeper")),
            network_disabled: Some(true),
            host_config: Some(HostConfig { mounts: Some(mounts.list()), ..Default::default() }),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::default().build();
        let created = self.client()?.create_container(Some(options), body).await.map_err(|e| self.refused(image, e))?;
        let ended = self.wait_sweeper(&created.id).await;
        self.remove_container(&created.id).await?;
        match ended? {
            0 => Ok(()),
            code => {
                let message = format!("what is in {} could not be removed as root: exit code {code}", mounts.guest());
                Err(Error::new(Reason::FileFailed, mounts.guest(), message))
            }
        }
    }

    async fn wait_sweeper(&self, id: &str) -> Result<i64> {
        let client = self.client()?;
        client.start_container(id, None::<StartContainerOptions>).await.map_err(|e| self.refused(id, e))?;
        let mut ended = std::pin::pin!(client.wait_container(id, None::<WaitContainerOptions>));
        match ended.next().await {
            Some(Ok(ended)) => Ok(ended.status_code),
            // bollard turns any code but 0 into an error.
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(e)) => Err(self.refused(id, e)),
            None => Err(self.dockerd.away(id, &"it broke off the wait for a container")),
        }
    }
}
