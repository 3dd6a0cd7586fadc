//! Volumes in the place of directories that broker and containers cannot share: made, and filled through a container that
//! never runs.

use std::{collections::HashMap, io::Cursor, path::Path};

use bollard::{
    body_try_stream,
    models::{ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest},
    query_parameters::{
        CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
    },
};
use futures_util::TryStreamExt;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::{ReaderStream, StreamReader};

use super::Engine;
use crate::model::error::{Error, Reason, Result};

/// Where a volume is mounted while it is filled.
const FILLED_AT: &str = "/filled";
/// What an archive's entries are filled up to, in bytes.
const BLOCK_BYTES: u64 = 512;
/// The file beside a program that says what it is.
const DIGEST_NAME: &str = "digest";
/// What an archive ends with.
const END: [u8; 2 * BLOCK_BYTES as usize] = [0; 2 * BLOCK_BYTES as usize];
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
    /// # Errors
    ///
    /// `ENGINE_REFUSED`, `ENGINE_UNAVAILABLE`.
    pub async fn create_volume(&self, name: &str, labels: HashMap<String, String>) -> Result<()> {
        let request = VolumeCreateRequest { name: Some(name.to_owned()), labels: Some(labels), ..Default::default() };
        self.client()?.create_volume(request).await.map(drop).map_err(|e| self.refused(name, e))
    }

    /// The labels of what this run makes for `purpose`.
    pub fn own_labels(&self, purpose: &str) -> HashMap<String, String> {
        self.origin.labels(purpose)
    }

    /// Whether labels are those of what this broker made for `purpose`.
    pub fn is_own(&self, labels: &HashMap<String, String>, purpose: &str) -> bool {
        let own = self.origin.labels(purpose);
        own.iter().all(|(name, value)| name == super::temporary::RUN_LABEL || labels.get(name) == Some(value))
    }

    /// Has everybody in a container be allowed to write in a volume.
    ///
    /// # Errors
    ///
    /// `ENGINE_REFUSED`, `ENGINE_UNAVAILABLE`.
    pub async fn open_volume(&self, volume: &str) -> Result<()> {
        let archive = [entry("./", tar::EntryType::Directory, 0o777, 0)?, END.to_vec()].concat();
        let (engine, volume) = (self.clone(), volume.to_owned());
        self.to_the_end(async move {
            engine.through_filler(&volume, async |filler| engine.put(filler, &volume, Cursor::new(archive)).await).await
        })
        .await
    }

    /// Completes when no volume is being filled.
    pub async fn filled(&self) {
        drop(self.filling.write().await);
    }

    /// Does what fills a volume whether or not somebody waits for it: broken off it would leave a container, and that holds
    /// the volume.
    async fn to_the_end(&self, work: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
        let filling = self.filling.clone().read_owned().await;
        let ends = tokio::spawn(async move {
            let done = work.await;
            drop(filling);
            done
        });
        ends.await.map_err(|error| Error::bug("filling a volume broke off").caused_by(error))?
    }

    /// Has a volume hold a program, executable for everybody, in the place of another one. What has this `digest` there
    /// already, in whole, is not put there again.
    ///
    /// # Errors
    ///
    /// `ENGINE_REFUSED`, `ENGINE_UNAVAILABLE`, `FILE_FAILED`.
    pub async fn have_program(&self, volume: &str, name: &str, program: &Path, digest: &str) -> Result<()> {
        let failed = |error: std::io::Error| {
            let shown = program.display().to_string();
            Error::new(Reason::FileFailed, &shown, format!("{shown} cannot be read: {error}")).caused_by(error)
        };
        let file = tokio::fs::File::open(program).await.map_err(failed)?;
        let len = file.metadata().await.map_err(failed)?.len();
        let rest = usize::try_from(len.next_multiple_of(BLOCK_BYTES) - len).unwrap_or_default();
        // What is broken off is nothing in whole.
        let head = [text(DIGEST_NAME, "")?, entry(name, tar::EntryType::Regular, 0o755, len)?].concat();
        let tail = [vec![0; rest], text(DIGEST_NAME, digest)?, END.to_vec()].concat();
        let archive = Cursor::new(head).chain(file.take(len)).chain(Cursor::new(tail));
        let (engine, volume, digest) = (self.clone(), volume.to_owned(), digest.to_owned());
        self.to_the_end(async move {
            let fill = async |filler: &str| match engine.holds(filler, &digest).await {
                true => Ok(()),
                false => engine.put(filler, &volume, archive).await,
            };
            engine.through_filler(&volume, fill).await
        })
        .await
    }

    /// Whether what was put into a filler's volume last, and in whole, has this digest.
    async fn holds(&self, filler: &str, digest: &str) -> bool {
        let options = DownloadFromContainerOptionsBuilder::default().path(&format!("{FILLED_AT}/{DIGEST_NAME}"));
        let (Ok(client), Ok(wanted)) = (self.client(), text(DIGEST_NAME, digest)) else { return false };
        let found = client.download_from_container(filler, Some(options.build()));
        let mut found = StreamReader::new(found.map_err(std::io::Error::other)).take(wanted.len() as u64);
        let mut archive = Vec::new();
        found.read_to_end(&mut archive).await.is_ok()
            && archive.len() == wanted.len()
            && archive[BLOCK_BYTES as usize..] == wanted[BLOCK_BYTES as usize..]
    }

    async fn through_filler(&self, volume: &str, work: impl AsyncFnOnce(&str) -> Result<()>) -> Result<()> {
        let image = self.import_empty(volume, "filler").await?;
        let done = match self.create_filler(&image, volume).await {
            Ok(filler) => {
                let done = work(&filler).await;
                self.remove_container(&filler).await?;
                done
            }
            Err(error) => Err(error),
        };
        self.remove_image(&image).await?;
        done
    }

    /// A container that never runs.
    async fn create_filler(&self, image: &str, volume: &str) -> Result<String> {
        let body = ContainerCreateBody {
            image: Some(image.into()),
            cmd: Some(vec!["never".into()]),
            labels: Some(self.origin.labels("filler")),
            network_disabled: Some(true),
            host_config: Some(HostConfig {
                mounts: Some(vec![volume_mount(volume, FILLED_AT, false)]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::default().build();
        let created = self.client()?.create_container(Some(options), body).await;
        created.map(|created| created.id).map_err(|e| self.refused(volume, e))
    }

    async fn put(&self, filler: &str, volume: &str, archive: impl AsyncRead + Send + 'static) -> Result<()> {
        let options = UploadToContainerOptionsBuilder::default().path(FILLED_AT).build();
        let body = body_try_stream(ReaderStream::with_capacity(archive, READ_BYTES));
        let put = self.client()?.upload_to_container(filler, Some(options), body).await;
        put.map_err(|e| self.refused(volume, e))
    }
}

/// An entry of an archive that holds a text.
fn text(name: &str, content: &str) -> Result<Vec<u8>> {
    let mut all = entry(name, tar::EntryType::Regular, 0o444, content.len() as u64)?;
    all.extend_from_slice(content.as_bytes());
    all.resize(all.len().next_multiple_of(BLOCK_BYTES as usize), 0);
    Ok(all)
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
