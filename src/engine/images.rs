//! Images: found, pulled, loaded, read without being run.

use std::{collections::HashMap, time::Duration};

use bollard::{
    body_try_stream,
    models::{ContainerCreateBody, CreateImageInfo, ImageSummary, ProgressDetail},
    query_parameters::{
        CreateContainerOptionsBuilder, CreateImageOptionsBuilder, DownloadFromContainerOptionsBuilder,
        ImportImageOptionsBuilder, ListImagesOptions, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
        TagImageOptionsBuilder,
    },
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use tokio::fs::File;
use tokio_util::io::ReaderStream;
use tracing::Instrument;

use super::{Engine, credentials, found};
use crate::model::{
    error::{Error, Reason, Result},
    reference::Reference,
};

/// How often a list is asked for that the engine cannot make: Podman's fails where one of the images goes meanwhile.
const LIST_TRIES: u32 = 10;
/// How long until it is asked for again.
const LIST_PAUSE: Duration = Duration::from_millis(50);

/// An image in the engine.
#[derive(Debug, Clone)]
pub struct Image {
    /// Content id, `sha256:…`.
    pub id: String,
    /// The names that stand for it.
    pub names: Vec<String>,
    /// Labels.
    pub labels: HashMap<String, String>,
    /// Operating system it is built for.
    pub os: String,
    /// Processor it is built for.
    pub arch: String,
}

/// How far a pull or load is, as the engine tells it.
#[derive(Debug, Clone, Default)]
pub struct Transfer {
    /// Layer or image.
    pub item: String,
    /// What is going on.
    pub message: String,
    /// Bytes done; 0 where unknown.
    pub current_bytes: i64,
    /// Bytes in all; 0 where unknown.
    pub total_bytes: i64,
}

/// What a saved archive held.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Images with a name.
    pub references: Vec<Reference>,
    /// Ids of images without one.
    pub nameless: Vec<String>,
}

impl Loaded {
    /// Reads a line of the engine's: it tells in no other way.
    fn read(&mut self, line: &str) {
        if let Some(id) = line.strip_prefix("Loaded image ID: ") {
            self.nameless.push(id.trim().to_owned());
        } else if let Some(names) = line.strip_prefix("Loaded image: ") {
            // Podman tells all images in one line, and those without a name by their ids.
            for name in names.split(',').map(str::trim) {
                match name.starts_with("sha256:") {
                    true => self.nameless.push(name.to_owned()),
                    false => self.references.extend(name.parse::<Reference>().ok()),
                }
            }
        }
    }
}

impl Transfer {
    fn new(item: Option<String>, message: Option<String>, detail: Option<ProgressDetail>) -> Self {
        let (current, total) = detail.map_or((None, None), |detail| (detail.current, detail.total));
        Transfer {
            item: item.unwrap_or_default(),
            message: message.unwrap_or_default(),
            current_bytes: current.unwrap_or(0),
            total_bytes: total.unwrap_or(0),
        }
    }
}

impl Engine {
    /// The image of that name or id, if the engine has it.
    pub async fn image(&self, name: &str) -> Result<Option<Image>> {
        let inspected = self.client()?.inspect_image(name).await.map_err(|e| self.refused(name, e));
        Ok(found(inspected)?.map(|image| Image {
            id: image.id.unwrap_or_default(),
            names: image.repo_tags.unwrap_or_default(),
            labels: image.config.and_then(|config| config.labels).unwrap_or_default(),
            os: image.os.unwrap_or_default(),
            arch: image.architecture.unwrap_or_default(),
        }))
    }

    /// The images that are asked for.
    pub(super) async fn list_images(&self, options: ListImagesOptions) -> Result<Vec<ImageSummary>> {
        let client = self.client()?;
        for _ in 1..LIST_TRIES {
            match client.list_images(Some(options.clone())).await {
                Err(bollard::errors::Error::DockerResponseServerError { message, .. })
                    if message.contains("image not known") => {}
                listed => return listed.map_err(|e| self.refused("", e)),
            }
            tokio::time::sleep(LIST_PAUSE).await;
        }
        client.list_images(Some(options)).await.map_err(|e| self.refused("", e))
    }

    /// The tags that the engine has of a repository.
    pub async fn tags(&self, reference: &Reference) -> Result<Vec<String>> {
        let filters = HashMap::from([("reference", vec![reference.id.as_str()])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let images = self.list_images(options).await?;
        let names = images.into_iter().flat_map(|image| image.repo_tags);
        let same = |name: String| name.parse::<Reference>().ok().filter(|found| found.id == reference.id)?.tag;
        Ok(names.filter_map(same).collect())
    }

    /// All images: ids, and names with the ids they stand for.
    pub async fn all_images(&self) -> Result<HashMap<String, String>> {
        let options = ListImagesOptionsBuilder::default().build();
        let images = self.list_images(options).await?;
        let mut all = HashMap::new();
        for image in images {
            let names = image.repo_tags.iter().filter_map(|name| name.parse::<Reference>().ok());
            all.extend(names.map(|name| (name.to_string(), image.id.clone())));
            all.insert(image.id.clone(), image.id);
        }
        Ok(all)
    }

    /// Pulls an image with the credentials of the broker's user, telling how far it is.
    ///
    /// # Errors
    ///
    /// `IMAGE_NOT_FOUND`, `PULL_FAILED`, `ENGINE_UNAVAILABLE`.
    pub async fn pull(&self, reference: &Reference, mut progress: impl FnMut(Transfer)) -> Result<()> {
        let login = match self.uses_logins {
            true => credentials::lookup(reference).await?,
            false => credentials::Login::default(),
        };
        let name = reference.to_string();
        // The engine would pull every tag of a bare repository.
        let wanted = if reference.is_bare() { reference.with_tag("latest").to_string() } else { name.clone() };
        let options = CreateImageOptionsBuilder::default().from_image(&wanted).build();
        let mut updates = std::pin::pin!(self.client()?.create_image(Some(options), None, login.credentials));
        while let Some(update) = updates.next().await {
            let CreateImageInfo { id, status, progress_detail, .. } =
                update.map_err(|e| self.pull_failed(reference, login.complaint.as_deref(), e))?;
            progress(Transfer::new(id, status, progress_detail));
        }
        Ok(())
    }

    /// Tells an image that no registry has from a registry that failed. The engine's text is the only signal for some.
    fn pull_failed(&self, reference: &Reference, complaint: Option<&str>, error: bollard::errors::Error) -> Error {
        let name = reference.to_string();
        let error = self.refused(&name, error);
        let text = error.message();
        let absent = ["not found", "manifest unknown", "does not exist", "name unknown", "no such image"];
        let barred = ["unauthorized", "no basic auth", "denied", "authentication required"];
        let barred = barred.iter().any(|sign| text.contains(sign));
        let absent = error.reason() == Reason::ResourceNotFound || absent.iter().any(|sign| text.contains(sign));
        if error.reason() == Reason::EngineUnavailable {
            return error;
        }
        let mut message = format!("cannot pull {name}: {text}");
        if let Some(complaint) = complaint {
            message.push_str(&format!("; {complaint}"));
        } else if barred {
            let server = credentials::registry(reference);
            message.push_str(&format!("; if it is there, log in first: docker login {server}"));
        }
        let reason = if absent && complaint.is_none() { Reason::ImageNotFound } else { Reason::PullFailed };
        Error::new(reason, name, message)
    }

    /// Loads a saved archive and returns what was in it.
    ///
    /// # Errors
    ///
    /// `SOURCE_UNREADABLE`, `ENGINE_UNAVAILABLE`.
    pub async fn load(&self, subject: &str, file: File, mut progress: impl FnMut(Transfer)) -> Result<Loaded> {
        let unreadable = |why: String| Error::new(Reason::SourceUnreadable, subject, format!("{subject}: {why}"));
        if !file.metadata().await.is_ok_and(|found| found.is_file()) {
            return Err(unreadable("is not a regular file".into()));
        }
        let body = body_try_stream(ReaderStream::with_capacity(file, 256 * 1024));
        let options = ImportImageOptionsBuilder::default().build();
        let mut updates = std::pin::pin!(self.client()?.import_image(options, body, None));
        let mut loaded = Loaded::default();
        while let Some(update) = updates.next().await {
            let update = update.map_err(|e| match self.refused(subject, e) {
                error if error.reason() == Reason::EngineUnavailable => error,
                error => unreadable(format!("not an image archive that the engine can load: {}", error.message())),
            })?;
            if let Some(text) = &update.stream {
                text.lines().for_each(|line| loaded.read(line));
            }
            let message = update.status.or(update.stream.map(|text| text.trim().to_owned()));
            progress(Transfer::new(update.id, message, update.progress_detail));
        }
        Ok(loaded)
    }

    /// Gives an image another name.
    pub async fn tag(&self, image: &str, reference: &Reference) -> Result<()> {
        let tag = reference.tag.as_deref().unwrap_or("latest");
        let options = TagImageOptionsBuilder::default().repo(reference.id.as_str()).tag(tag).build();
        self.client()?.tag_image(image, Some(options)).await.map_err(|e| self.refused(image, e))
    }

    /// Removes an image name, and the image with its last name, unless a container uses it. True when it went.
    pub async fn remove_image(&self, name: &str) -> Result<bool> {
        let options = RemoveImageOptionsBuilder::default().force(false).build();
        match self.client()?.remove_image(name, Some(options), None).await.map_err(|e| self.refused(name, e)) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.reason(), Reason::ResourceNotFound | Reason::EngineRefused) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens an image for reading, through a container that is never started: it needs no command of the image's.
    pub async fn read_image(&self, image_id: &str) -> Result<ImageReader> {
        let (engine, image_id) = (self.clone(), image_id.to_owned());
        // By itself: a caller who goes away in the middle would leave a container that nobody knows of.
        let make = async move { engine.make_reader(&image_id).await };
        let made = tokio::spawn(make.in_current_span()).await;
        made.map_err(|e| Error::bug("opening an image broke off").caused_by(e))?
    }

    /// What the engine refused to do with an image, or with a container of it, it refused because somebody removed the image
    /// meanwhile, where that is so: each engine says something else then, and Podman's containers go with their image.
    ///
    /// # Errors
    ///
    /// As they were, or `IMAGE_NOT_FOUND`.
    pub async fn with_image<T>(&self, image: &str, result: Result<T>) -> Result<T> {
        match result {
            Err(error)
                if matches!(error.reason(), Reason::ResourceNotFound | Reason::EngineRefused)
                    && self.image(image).await?.is_none() =>
            {
                Err(removed_meanwhile(image).caused_by(error))
            }
            other => other,
        }
    }

    async fn make_reader(&self, image_id: &str) -> Result<ImageReader> {
        let options = CreateContainerOptionsBuilder::default().build();
        let body = ContainerCreateBody {
            image: Some(image_id.to_owned()),
            cmd: Some(vec!["/never-started".into()]),
            labels: Some(self.origin.labels("reader")),
            network_disabled: Some(true),
            ..Default::default()
        };
        let created = self.client()?.create_container(Some(options), body).await;
        let created = self.with_image(image_id, created.map_err(|e| self.refused(image_id, e))).await?;
        let container = created.id;
        Ok(ImageReader { engine: self.clone(), image_id: image_id.to_owned(), container })
    }
}

/// An image that was there is not any more.
fn removed_meanwhile(image: &str) -> Error {
    Error::new(Reason::ImageNotFound, image, format!("the image {image} is not there: it was removed meanwhile"))
}

/// An image open for reading. Close it; one that is dropped is closed in the background.
#[derive(Debug)]
pub struct ImageReader {
    engine: Engine,
    image_id: String,
    container: String,
}

impl ImageReader {
    /// A path of the image as a tar stream whose first entry is the path itself; a link is not followed.
    ///
    /// # Errors
    ///
    /// `RESOURCE_NOT_FOUND` where the image has no such path.
    pub async fn archive(&self, path: &str) -> Result<impl Stream<Item = Result<Bytes>> + Send + Unpin + use<>> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let engine = self.engine.clone();
        let subject = path.to_owned();
        let chunks = self.engine.client()?.download_from_container(&self.container, Some(options));
        let mut chunks = chunks.map_err(move |e| engine.refused(&subject, e)).boxed().peekable();
        // The first piece tells whether the path exists.
        match std::pin::Pin::new(&mut chunks).peek().await {
            Some(Err(_)) | None => match chunks.next().await {
                Some(Err(error)) => Err(error),
                _ => {
                    Err(Error::new(Reason::ResourceNotFound, path, format!("the image's {path} came without content")))
                }
            },
            Some(Ok(_)) => Ok(chunks),
        }
    }

    /// Whether the image can still be read. With Podman its container goes when somebody removes the image by force: then
    /// nothing is found in it, and what was being read ends short.
    ///
    /// # Errors
    ///
    /// `IMAGE_NOT_FOUND`, `ENGINE_UNAVAILABLE`.
    pub async fn is_whole(&self) -> Result<()> {
        match self.engine.container(&self.container).await? {
            Some(container) if container.state != "removing" => Ok(()),
            _ => Err(removed_meanwhile(&self.image_id)),
        }
    }

    /// Removes the container behind it.
    pub async fn close(mut self) -> Result<()> {
        let container = std::mem::take(&mut self.container);
        self.engine.remove_container(&container).await
    }
}

impl Drop for ImageReader {
    fn drop(&mut self) {
        let (engine, container) = (self.engine.clone(), std::mem::take(&mut self.container));
        if container.is_empty() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = engine.remove_container(&container).await {
                    tracing::warn!(%error, container, "a container for reading an image was left behind");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_engine_is_understood_when_it_has_loaded() {
        let loaded = |lines: &[&str]| {
            let mut loaded = Loaded::default();
            lines.iter().for_each(|line| loaded.read(line));
            (loaded.references.iter().map(ToString::to_string).collect::<Vec<_>>(), loaded.nameless)
        };
        let docker = loaded(&["Loaded image: a/b:1", "Loaded image ID: sha256:12", "Loaded image: c/d:2"]);
        assert_eq!(docker, loaded(&["Loaded image: docker.io/a/b:1,sha256:12,docker.io/c/d:2"]));
        assert_eq!(docker, (vec!["a/b:1".into(), "c/d:2".into()], vec!["sha256:12".into()]));
    }
}
