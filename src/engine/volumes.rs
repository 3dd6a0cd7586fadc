//! Volumes in the place of directories that broker and containers cannot share: made, and filled through a container that
//! never runs.

use std::{collections::HashMap, path::Path};

use bollard::{
    body_try_stream,
    models::{ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest},
    query_parameters::{CreateContainerOptionsBuilder, UploadToContainerOptionsBuilder},
};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::Engine;
use crate::model::error::{Error, Reason, Result};

/// Where a volume is mounted while it is filled.
const FILLED_AT: &str = "/filled";
/// What an archive's entries are filled up to, in bytes.
const BLOCK_BYTES: u64 = 512;
/// What is read at once, in bytes.
const READ_BYTES: usize = 256 << 10;

/// A volume as a mount. What an image has at its place is not copied into it.
pub(super) fn volume_mount(volume: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..Default::default() }),
        ..Default::default()
    }
}

impl Engine {
    /// Makes a volume; one of this name that is there already stays as it is.
    ///
    /// Errors: ENGINE_REFUSED, ENGINE_UNAVAILABLE.
    pub async fn create_volume(&self, name: &str, labels: HashMap<String, String>) -> Result<()> {
        let request = VolumeCreateRequest { name: Some(name.to_owned()), labels: Some(labels), ..Default::default() };
        self.client()?.create_volume(request).await.map(drop).map_err(|e| self.refused(name, e))
    }

    /// The labels of what this run makes for `purpose`.
    pub fn own_labels(&self, purpose: &str) -> HashMap<String, String> {
        self.mark.labels(purpose)
    }

    /// Whether labels are those of what this broker made for `purpose`.
    pub fn is_own(&self, labels: &HashMap<String, String>, purpose: &str) -> bool {
        let own = self.mark.labels(purpose);
        own.iter().all(|(name, value)| name == super::temporary::RUN_LABEL || labels.get(name) == Some(value))
    }

    /// Has everybody in a container be allowed to write in a volume.
    ///
    /// Errors: ENGINE_REFUSED, ENGINE_UNAVAILABLE.
    pub async fn open_volume(&self, volume: &str) -> Result<()> {
        self.fill(volume, entry("./", tar::EntryType::Directory, 0o777, 0)?, None).await
    }

    /// Puts a program into a volume, executable for everybody, in the place of one that is there.
    ///
    /// Errors: ENGINE_REFUSED, ENGINE_UNAVAILABLE, FILE_FAILED.
    pub async fn put_program(&self, volume: &str, name: &str, program: &Path) -> Result<()> {
        let failed = |error: std::io::Error| {
            let shown = program.display().to_string();
            Error::new(Reason::FileFailed, &shown, format!("{shown} cannot be read: {error}")).caused_by(error)
        };
        let file = tokio::fs::File::open(program).await.map_err(failed)?;
        let len = file.metadata().await.map_err(failed)?.len();
        let header = entry(name, tar::EntryType::Regular, 0o755, len)?;
        self.fill(volume, header, Some((file, len))).await
    }

    async fn fill(&self, volume: &str, header: Vec<u8>, content: Option<(tokio::fs::File, u64)>) -> Result<()> {
        let image = self.import_empty(volume, "filler").await?;
        let filled = self.fill_through(&image, volume, header, content).await;
        self.remove_image(&image).await?;
        filled
    }

    async fn fill_through(
        &self,
        image: &str,
        volume: &str,
        header: Vec<u8>,
        content: Option<(tokio::fs::File, u64)>,
    ) -> Result<()> {
        let body = ContainerCreateBody {
            image: Some(image.into()),
            cmd: Some(vec!["never".into()]),
            labels: Some(self.mark.labels("filler")),
            network_disabled: Some(true),
            host_config: Some(HostConfig {
                mounts: Some(vec![volume_mount(volume, FILLED_AT, false)]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::default().build();
        let created =
            self.client()?.create_container(Some(options), body).await.map_err(|e| self.refused(volume, e))?;
        let options = UploadToContainerOptionsBuilder::default().path(FILLED_AT).build();
        let end = vec![0; 2 * BLOCK_BYTES as usize];
        let archive = match content {
            None => {
                let all = std::io::Cursor::new([header, end].concat());
                body_try_stream(ReaderStream::with_capacity(all, READ_BYTES))
            }
            Some((file, len)) => {
                let rest = usize::try_from(len.next_multiple_of(BLOCK_BYTES) - len).unwrap_or_default();
                let (head, tail) = (std::io::Cursor::new(header), std::io::Cursor::new([vec![0; rest], end].concat()));
                body_try_stream(ReaderStream::with_capacity(head.chain(file.take(len)).chain(tail), READ_BYTES))
            }
        };
        let filled = self.client()?.upload_to_container(&created.id, Some(options), archive).await;
        let filled = filled.map_err(|e| self.refused(volume, e));
        self.remove_container(&created.id).await?;
        filled
    }
}

/// The header of an archive's entry, which is root's.
fn entry(name: &str, kind: tar::EntryType, mode: u32, len: u64) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).map_err(|e| Error::bug(format!("no archive can hold {name:?}")).caused_by(e))?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(len);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(header.as_bytes().to_vec())
}
