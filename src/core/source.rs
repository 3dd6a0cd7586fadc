//! Where an extension comes from, and how its package is had: found in the engine, pulled, loaded, or opened where it lies.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Broker, InstallPhase, Report,
    fetched::Fetched,
    package::{Files, Package},
};
use crate::{
    engine::{Image, Loaded, Transfer},
    files::layout::readable,
    model::{
        error::{Error, Reason, Result},
        reference::Reference,
    },
};

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
        Ok(Package { reference, image: Some(image), files: Files::Image(Box::new(reader)) })
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
        Ok(Package { reference, image: Some(image), files: Files::Image(Box::new(reader)) })
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
