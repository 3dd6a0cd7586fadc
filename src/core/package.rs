//! An extension that is not installed: found, pulled or loaded, and read without being run.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cap_std::{ambient_authority, fs::Dir};
use futures_util::TryStreamExt;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::{Broker, InstallPhase, Report, fetched::Fetched};
use crate::{
    engine::{Image, ImageReader, Loaded, Transfer},
    files::{
        layout::readable,
        unpack::{Limits, Placement, Top, Unpacker},
    },
    model::{
        error::{Error, Reason, Result},
        reference::{ExtensionId, Reference},
    },
    user::User,
};

/// Links that are followed from one path to the file it means.
const MAX_LINKS: usize = 16;
/// How long a directory's image may be looked for before it counts as not there.
const ENGINE_PATIENCE: Duration = Duration::from_secs(5);

/// Where an extension comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An image in the engine or a registry.
    Image {
        /// Its name.
        reference: Reference,
        /// Whether to ask a registry.
        pull: PullPolicy,
    },
    /// A saved image.
    Archive {
        /// The file.
        path: PathBuf,
        /// What to install it as; by default the one tag in it.
        reference: Option<Reference>,
    },
    /// A directory laid out like the root of an image.
    Directory {
        /// The directory.
        path: PathBuf,
        /// What to install it as; by default `local/<its name>:dev`.
        reference: Option<Reference>,
    },
}

/// Whether a registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// When the engine does not have the image.
    Missing,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Image { reference, .. } => write!(f, "{reference}"),
            Source::Archive { path, .. } | Source::Directory { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

/// An extension's files and labels, open for reading.
pub(super) struct Package {
    /// What it is installed as.
    pub(super) reference: Reference,
    /// Its image; a directory may have none.
    pub(super) image: Option<Image>,
    files: Files,
}

enum Files {
    Image(ImageReader),
    /// Read with the rights of that user, where they are not the broker's own.
    Directory(PathBuf, Option<Arc<User>>),
}

impl Broker {
    /// Finds a source and opens it.
    pub(super) async fn open_package(
        &self,
        source: &Source,
        fetched: &mut Fetched,
        report: &Report,
    ) -> Result<Package> {
        match source {
            Source::Image { reference, pull } => self.open_image(reference.clone(), *pull, fetched, report).await,
            Source::Archive { path, reference } => self.open_archive(path, reference.clone(), fetched, report).await,
            Source::Directory { path, reference } => self.open_directory(path, reference.clone()).await,
        }
    }

    async fn open_image(
        &self,
        reference: Reference,
        pull: PullPolicy,
        fetched: &mut Fetched,
        report: &Report,
    ) -> Result<Package> {
        let reference = self.with_tag(reference).await?;
        let name = reference.to_string();
        let present = self.engine.image(&name).await?;
        let image = match (present, pull) {
            (Some(image), PullPolicy::Missing | PullPolicy::Never) => image,
            (None, PullPolicy::Never) => {
                let message = format!("the engine has no image {name}, and pulling was ruled out");
                return Err(Error::new(Reason::ImageNotFound, name, message));
            }
            (before, _) => {
                let known = self.engine.all_images().await?;
                let now = self.pull(&reference, before.is_none(), fetched, report).await?;
                if let Some(before) = before {
                    fetched.replaced(&reference, &before.id, &now.id, !known.contains_key(&now.id));
                }
                now
            }
        };
        let reader = self.engine.read_image(&image.id).await?;
        Ok(Package { reference, image: Some(image), files: Files::Image(reader) })
    }

    /// Pulls an image; one that was not there before is noted.
    pub(super) async fn pull(
        &self,
        reference: &Reference,
        is_new: bool,
        fetched: &mut Fetched,
        report: &Report,
    ) -> Result<Image> {
        let name = reference.to_string();
        report.phase(InstallPhase::FetchingImage, &name);
        self.discard_left().await?;
        if is_new {
            // Noted before: a pull that is broken off may have brought it already.
            self.note_fetched(fetched, vec![name.clone()]).await?;
        }
        self.engine.pull(reference, |transfer| report.transfer(transfer)).await?;
        self.engine.image(&name).await?.ok_or_else(|| {
            Error::new(Reason::PullFailed, &name, format!("{name} was pulled and the engine does not have it"))
        })
    }

    /// Chooses a tag where none was given: `latest`, or the greatest version that the engine has.
    async fn with_tag(&self, reference: Reference) -> Result<Reference> {
        if !reference.is_bare() {
            return Ok(reference);
        }
        let tags = self.engine.tags(&reference).await?;
        if tags.iter().any(|tag| tag == "latest") {
            return Ok(reference.with_tag("latest"));
        }
        let greatest = tags.iter().filter_map(|tag| Some((version_in(tag)?, tag))).max();
        Ok(reference.with_tag(greatest.map_or("latest", |(_, tag)| tag)))
    }

    async fn open_archive(
        &self,
        path: &Path,
        reference: Option<Reference>,
        fetched: &mut Fetched,
        report: &Report,
    ) -> Result<Package> {
        let subject = path.display().to_string();
        self.behalf.check_archive(&subject)?;
        report.phase(InstallPhase::FetchingImage, &subject);
        self.discard_left().await?;
        // What is there already belongs to somebody; it is not taken away again.
        let before = self.engine.all_images().await?;
        let unreadable = |e: std::io::Error| Error::new(Reason::SourceUnreadable, &subject, format!("{subject}: {e}"));
        let file = self.behalf.act(|| readable().open(path)).map_err(unreadable)?.into();
        let loaded = self.engine.load(&subject, file, |transfer| report.transfer(transfer)).await?;
        let came = loaded.references.iter().map(Reference::to_string).chain(loaded.nameless.clone());
        self.note_fetched(fetched, came.filter(|name| !before.contains_key(name)).collect()).await?;
        for name in &loaded.references {
            if let (Some(before_id), Some(now)) =
                (before.get(&name.to_string()), self.engine.image(&name.to_string()).await?)
            {
                fetched.replaced(name, before_id, &now.id, !before.contains_key(&now.id));
            }
        }
        let (found, reference) = chosen(&loaded, reference, &subject)?;
        let image = self.engine.image(&found).await?;
        let wrong =
            || Error::new(Reason::SourceUnreadable, &subject, format!("{subject}: was loaded and is not there"));
        let image = image.ok_or_else(wrong)?;
        let name = reference.to_string();
        if name != found {
            match before.get(&name) {
                Some(id) => fetched.replaced(&reference, id, &image.id, !before.contains_key(&image.id)),
                None => self.note_fetched(fetched, vec![name]).await?,
            }
            self.engine.tag(&image.id, &reference).await?;
        }
        let reader = self.engine.read_image(&image.id).await?;
        Ok(Package { reference, image: Some(image), files: Files::Image(reader) })
    }

    async fn open_directory(&self, path: &Path, reference: Option<Reference>) -> Result<Package> {
        let subject = path.display().to_string();
        let unreadable = |why: String| Error::new(Reason::SourceUnreadable, &subject, format!("{subject}: {why}"));
        let found = self.behalf.act(|| Ok((std::fs::metadata(path)?, path.canonicalize()?)));
        let (found, canonical) = found.map_err(|e| unreadable(e.to_string()))?;
        if !found.is_dir() {
            return Err(unreadable("is not a directory".into()));
        }
        let reference = match reference {
            Some(reference) if reference.is_bare() => reference.with_tag("dev"),
            Some(reference) => reference,
            None => default_reference(&canonical)
                .ok_or_else(|| unreadable("its name cannot be part of an extension's id; give a reference".into()))?,
        };
        // An author may work without an engine; then there is no image either.
        let looked = tokio::time::timeout(ENGINE_PATIENCE, self.engine.image(&reference.to_string())).await;
        let image = looked.ok().and_then(Result::ok).flatten();
        Ok(Package { reference, image, files: Files::Directory(path.to_owned(), self.behalf.reader()) })
    }
}

/// The image of an archive that is meant, and what to install it as.
fn chosen(loaded: &Loaded, wanted: Option<Reference>, subject: &str) -> Result<(String, Reference)> {
    let wrong = |why: &str| Err(Error::new(Reason::SourceUnreadable, subject, format!("{subject}: {why}")));
    match (&loaded.references[..], &loaded.nameless[..], wanted) {
        ([], [], _) => wrong("holds no image"),
        ([], [only], Some(wanted)) => {
            let wanted = if wanted.is_bare() { wanted.with_tag("latest") } else { wanted };
            Ok((only.clone(), wanted))
        }
        ([], [_], None) => wrong("holds an image without a name; give a reference to install it as"),
        ([only], [], None) => Ok((only.to_string(), only.clone())),
        ([only], [], Some(wanted)) => {
            let wanted = if wanted.is_bare() { wanted.with_tag(only.version()) } else { wanted };
            Ok((only.to_string(), wanted))
        }
        (several, _, Some(wanted)) if several.contains(&wanted) => Ok((wanted.to_string(), wanted)),
        (several, _, wanted) => {
            // Without a tag it is still clear where one image only has that repository.
            let same = |found: &&Reference| wanted.as_ref().is_some_and(|w| w.is_bare() && w.id == found.id);
            let mut fitting = several.iter().filter(same);
            if let (Some(only), None) = (fitting.next(), fitting.next()) {
                return Ok((only.to_string(), only.clone()));
            }
            let names: Vec<String> = several.iter().map(Reference::to_string).collect();
            wrong(&format!("holds several images; say which one with a reference: {}", names.join(", ")))
        }
    }
}

/// `local/<name>:dev`, with what an id cannot hold left out of the name.
fn default_reference(path: &Path) -> Option<Reference> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = name.chars().map(fits).collect();
    let name = name.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    format!("local/{name}:dev").parse().ok()
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
    /// Errors: UNSAFE_FILE, SOURCE_UNREADABLE, FILE_FAILED, ENGINE_UNAVAILABLE.
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
    ) -> Result<Option<crate::files::unpack::Report>> {
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

/// Runs work on files away from the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::bug("work on files broke off").caused_by(e))?
}

impl Report {
    fn transfer(&self, transfer: Transfer) {
        self.send(super::Progress {
            phase: InstallPhase::FetchingImage,
            item: transfer.item,
            message: transfer.message,
            current_bytes: transfer.current_bytes,
            total_bytes: transfer.total_bytes,
        });
    }
}

/// The version that a tag stands for: `1.2.3`, with or without a leading `v`; `1` and `1.2` mean `1.0.0` and `1.2.0`.
fn version_in(tag: &str) -> Option<semver::Version> {
    let text = tag.strip_prefix('v').unwrap_or(tag);
    ["", ".0", ".0.0"].iter().find_map(|rest| semver::Version::parse(&format!("{text}{rest}")).ok())
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

    #[test]
    fn a_directory_lends_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("My Ext_1");
        std::fs::create_dir(&path).unwrap();
        assert_eq!(default_reference(&path).unwrap().to_string(), "local/my-ext-1:dev");
    }

    #[test]
    fn tags_are_compared_as_versions() {
        let greatest = |tags: &[&'static str]| tags.iter().copied().max_by_key(|tag| version_in(tag)).unwrap();
        assert_eq!(greatest(&["1.9.0", "v1.10.0", "1.2"]), "v1.10.0");
        assert_eq!(greatest(&["1", "0.9", "dev"]), "1");
        assert_eq!(version_in("main"), None);
    }
}
