//! Empties a directory as root where the broker is a plain user: a container that holds nothing but the broker's helper.

use std::path::Path;

use bollard::{
    models::{ContainerCreateBody, HostConfig, Mount, MountType},
    query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions},
};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::Engine;
use crate::model::{
    error::{Error, Reason, Result},
    mounts::{CONTAINER_DIR, GUEST_DIR},
};

/// The image with nothing in it, there only while it is needed.
const EMPTY_IMAGE: &str = "longshore/empty";
/// An archive without entries.
const EMPTY_ARCHIVE: [u8; 1024] = [0; 1024];

impl Engine {
    /// Empties `directory`, which is an extension's, as root. `broker_dir` holds the helper and goes with it.
    ///
    /// Errors: ENGINE_REFUSED, ENGINE_UNAVAILABLE, FILE_FAILED.
    pub async fn sweep(&self, directory: &Path, broker_dir: &Path) -> Result<()> {
        let hash = Sha256::digest(directory.as_os_str().as_encoded_bytes());
        let image = format!("{EMPTY_IMAGE}:{}", hex::encode(&hash[..8]));
        // bollard would join the labels into one change and give the tag by itself, which only Docker takes apart again.
        let labels = self.mark.labels("sweeper").into_iter().map(|(name, value)| format!("LABEL {name}={value}"));
        let changes: String = labels.map(|label| format!("&changes={}", encoded(&label))).collect();
        let import = http::Request::post(format!("/images/create?fromSrc=-&repo={}{changes}", encoded(&image)))
            .body(Full::new(Bytes::from_static(&EMPTY_ARCHIVE)))
            .map_err(|e| Error::bug(format!("no request can import {image}")).caused_by(e))?;
        self.raw(&image, import).await?;
        let swept = self.run_sweeper(&image, directory, broker_dir).await;
        self.remove_image(&image).await?;
        swept
    }

    async fn run_sweeper(&self, image: &str, directory: &Path, broker_dir: &Path) -> Result<()> {
        let bind = |source: &Path, target: &str, read_only| Mount {
            typ: Some(MountType::BIND),
            source: Some(source.display().to_string()),
            target: Some(target.into()),
            read_only: Some(read_only),
            ..Default::default()
        };
        let body = ContainerCreateBody {
            image: Some(image.into()),
            entrypoint: Some(vec![format!("{CONTAINER_DIR}/shim"), "shim".into(), "sweep".into()]),
            user: Some("0:0".into()),
            labels: Some(self.mark.labels("sweeper")),
            network_disabled: Some(true),
            host_config: Some(HostConfig {
                mounts: Some(vec![bind(directory, GUEST_DIR, false), bind(broker_dir, CONTAINER_DIR, true)]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::default().build();
        let created = self.client()?.create_container(Some(options), body).await.map_err(|e| self.refused(image, e))?;
        let ended = self.wait_sweeper(&created.id).await;
        self.remove_container(&created.id).await?;
        match ended? {
            0 => Ok(()),
            code => {
                let message = format!("{} could not be emptied as root: exit code {code}", directory.display());
                Err(Error::new(Reason::FileFailed, directory.display().to_string(), message))
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
            None => Err(Error::new(Reason::EngineUnavailable, id, "the engine broke off the wait for a container")),
        }
    }
}

/// A value in a query.
fn encoded(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}
