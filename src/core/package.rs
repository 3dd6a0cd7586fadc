//! The package of an extension: the image or directory that it is installed from, read without being run.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use cap_std::{ambient_authority, fs::Dir};
use futures_util::TryStreamExt;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::blocking::blocking;
use crate::{
    engine::{Image, ImageReader},
    files::unpack::{Limits, Placement, Top, Unpacked, Unpacker},
    model::{
        error::{Error, Reason, Result},
        reference::{ExtensionId, Reference},
    },
    user::User,
};

/// Links that are followed from one path to the file it means.
const MAX_LINKS: usize = 16;

/// An extension's files and labels, open for reading.
pub(super) struct Package {
    /// What it is installed as.
    pub(super) reference: Reference,
    /// Its image; a directory may have none.
    pub(super) image: Option<Image>,
    /// Where its files are read.
    pub(super) files: Files,
}

/// Where the files of a package are read.
pub(super) enum Files {
    /// In a container that never runs.
    Image(Box<ImageReader>),
    /// Read with the rights of that user, where they are not the broker's own.
    Directory(PathBuf, Option<Arc<User>>),
}

impl Package {
    /// The extension's id.
    pub(super) fn id(&self) -> &ExtensionId {
        &self.reference.id
    }

    /// The image's labels; a directory's image may lend them.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        self.image.iter().flat_map(|image| image.labels.clone()).collect()
    }

    /// Takes one path out of it, a file or a directory, and tells what was left out. Links in the package are followed
    /// inside it. `None` where there is no such path.
    ///
    /// # Errors
    ///
    /// `UNSAFE_FILE`, `SOURCE_UNREADABLE`, `FILE_FAILED`, `ENGINE_UNAVAILABLE`.
    pub(super) async fn extract(
        &self,
        path: &str,
        placement: Placement,
        destination: &Path,
        limits: Limits,
    ) -> Result<Option<Extracted>> {
        let mut path = normal(Path::new("/"), Path::new(path));
        let placement = match placement {
            // A link's target has another name than the link.
            Placement::AsIs => Placement::Into(
                path.file_name().map_or_else(|| "root".to_owned(), |name| name.to_string_lossy().into_owned()),
            ),
            other => other,
        };
        for _ in 0..MAX_LINKS {
            let Some(report) = self.extract_once(&path, placement.clone(), destination, limits.clone()).await? else {
                return Ok(None);
            };
            match report.top {
                Top::Symlink(target) => path = normal(path.parent().unwrap_or(Path::new("/")), &target),
                Top::File => return Ok(Some(Extracted { is_dir: false, warnings: report.warnings })),
                Top::Dir => return Ok(Some(Extracted { is_dir: true, warnings: report.warnings })),
            }
        }
        let subject = path.display().to_string();
        Err(Error::new(Reason::UnsafeFile, &subject, format!("{subject}: more than {MAX_LINKS} links in a row")))
    }

    async fn extract_once(
        &self,
        path: &Path,
        placement: Placement,
        destination: &Path,
        limits: Limits,
    ) -> Result<Option<Unpacked>> {
        let unpacker = Unpacker::new(placement).limits(limits).image_path(path);
        let destination = destination.to_owned();
        let inner = path.strip_prefix("/").unwrap_or(path).to_owned();
        match &self.files {
            Files::Directory(root, reader) => {
                let (root, reader) = (root.clone(), reader.clone());
                blocking(move || {
                    let inner = if inner.as_os_str().is_empty() { PathBuf::from(".") } else { inner };
                    let Some(source) = as_reader(reader.as_deref(), || {
                        let source = open_dir(&root)?;
                        match source.symlink_metadata(&inner) {
                            Ok(_) => Ok(Some(source)),
                            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                                let subject = root.join(&inner).display().to_string();
                                let message = format!("{subject}: {error}");
                                Err(Error::new(Reason::SourceUnreadable, subject, message).caused_by(error))
                            }
                            Err(_) => Ok(None),
                        }
                    })?
                    else {
                        return Ok(None);
                    };
                    unpacker.read_by(reader).copy_tree(&source, &inner, &open_dir(&destination)?).map(Some)
                })
                .await
            }
            Files::Image(reader) => {
                let read = async {
                    let archive = match reader.archive(&in_image(path)).await {
                        Err(error) if error.reason() == Reason::ResourceNotFound => return Ok(None),
                        other => other?,
                    };
                    let archive = SyncIoBridge::new(StreamReader::new(archive.map_err(std::io::Error::other)));
                    blocking(move || unpacker.unpack(archive, &open_dir(&destination)?).map(Some)).await
                };
                let read = read.await;
                // Whatever came of it: it may be only what was left of an image on its way out.
                reader.is_whole().await?;
                read
            }
        }
    }

    /// Reads one file of at most `limit` bytes. `None` where there is no such file.
    pub(super) async fn read(&self, path: &str, scratch: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        // Errors name it.
        let name = path.rsplit('/').next().unwrap_or(path);
        let limits = Limits { max_bytes: limit, ..Limits::default() };
        let Some(extracted) = self.extract(path, Placement::Into(name.into()), scratch, limits).await? else {
            return Ok(None);
        };
        let file = scratch.join(name);
        if extracted.is_dir {
            return Ok(None);
        }
        let size = tokio::fs::metadata(&file).await.map(|found| found.len()).unwrap_or(0);
        if size > limit {
            let message = format!("{path} has {size} bytes; at most {limit} are read");
            return Err(Error::new(Reason::SourceUnreadable, path, message));
        }
        let bytes = tokio::fs::read(&file).await;
        let bytes = bytes.map_err(|e| Error::new(Reason::FileFailed, path, format!("{path}: {e}")).caused_by(e))?;
        let _ = tokio::fs::remove_file(&file).await;
        Ok(Some(bytes))
    }

    /// Gives back what it holds in the engine.
    pub(super) async fn close(self) {
        if let Files::Image(reader) = self.files
            && let Err(error) = reader.close().await
        {
            tracing::warn!(%error, "a container for reading an image was left behind");
        }
    }
}

/// What was taken out of a package.
#[derive(Debug, Clone)]
pub(super) struct Extracted {
    /// Whether the path was a directory.
    pub(super) is_dir: bool,
    /// What was left out.
    pub(super) warnings: Vec<String>,
}

/// A path as an image has it, whatever this system puts between names.
fn in_image(path: &Path) -> String {
    let names = path.iter().map(|name| name.to_string_lossy()).filter(|name| !name.starts_with(['/', '\\']));
    format!("/{}", names.collect::<Vec<_>>().join("/"))
}

/// `path` seen from `base`, without `.` and `..`, never above the root.
fn normal(base: &Path, path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::from("/");
    for part in base.join(path).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// Does something with a reader's rights.
fn as_reader<T>(reader: Option<&User>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    match reader {
        None => work(),
        Some(user) => user.act(work).map_err(|e| Error::bug("cannot act as the user").caused_by(e))?,
    }
}

fn open_dir(path: &Path) -> Result<Dir> {
    Dir::open_ambient_dir(path, ambient_authority()).map_err(|e| {
        let path = path.display().to_string();
        Error::new(Reason::FileFailed, &path, format!("{path}: {e}")).caused_by(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_never_lead_above_the_root() {
        for (base, path, expected) in [
            ("/", "/ui", "/ui"),
            ("/bin", "../usr/x", "/usr/x"),
            ("/", "../../etc/passwd", "/etc/passwd"),
            ("/a/b", "/c/./d/", "/c/d"),
        ] {
            assert_eq!(normal(Path::new(base), Path::new(path)), Path::new(expected));
        }
    }
}
