//! Images that come into the engine for an install or a look, and go again when nothing comes of it.

use std::time::Duration;

use super::Broker;
use crate::model::{
    error::{Reason, Result},
    extension::Installed,
    reference::Reference,
};

/// How long a container of our own may keep an image in use.
const READER_CLOSES: Duration = Duration::from_secs(5);
/// How often it is tried meanwhile.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// What was brought into the engine on the way.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// Names and ids that were not there before, in order.
    pub(super) images: Vec<String>,
    replaced: Vec<Replaced>,
}

/// A name that stood for another image before.
#[derive(Debug)]
struct Replaced {
    name: Reference,
    before: String,
    /// What it stands for now; `None` where that image was there before under another name, or nameless.
    came: Option<String>,
}

impl Fetched {
    /// The names that stood for other images before, and which.
    pub(super) fn names(&self) -> Vec<(String, String)> {
        self.replaced.iter().map(|replaced| (replaced.name.to_string(), replaced.before.clone())).collect()
    }

    /// Notes that a name may stand for another image than it did; `is_new` where nobody had that image before.
    pub(super) fn replaced(&mut self, name: &Reference, before: &str, now: &str, is_new: bool) {
        if before != now {
            let came = is_new.then(|| now.to_owned());
            self.replaced.push(Replaced { name: name.clone(), before: before.to_owned(), came });
        }
    }
}

impl Broker {
    /// Notes images that are brought into the engine, so that they go again whatever happens. Before they come, where
    /// their names are known.
    pub(super) async fn note_fetched(&self, fetched: &mut Fetched, images: Vec<String>) -> Result<()> {
        self.store.note_fetched(images.clone(), self.run.clone()).await?;
        fetched.images.extend(images);
        Ok(())
    }

    /// Takes the images out of the engine again. What is in use stays.
    pub(super) async fn discard(&self, fetched: Fetched) {
        for replaced in &fetched.replaced {
            self.give_back(replaced).await;
        }
        for image in &fetched.images {
            if let Err(error) = self.take_out(image).await {
                tracing::warn!(%error, image, "an image that was fetched was left behind; the next start tries again");
                return;
            }
        }
        if let Err(error) = self.store.settle_fetched(fetched.images).await {
            tracing::warn!(%error, "cannot record that fetched images went again");
        }
    }

    /// Gives names back that an archive took and that are not what was installed: it named them, nobody asked for them.
    pub(super) async fn give_back_others(&self, fetched: &mut Fetched, installed: &str) {
        for replaced in std::mem::take(&mut fetched.replaced) {
            if replaced.name.to_string() != installed {
                self.give_back(&replaced).await;
            }
        }
    }

    /// Takes out again what was brought for an extension that turned out to be installed already, but for its own image:
    /// that goes with it, where it was not there any more.
    pub(super) async fn discard_others(&self, mut fetched: Fetched, existing: &mut Installed) {
        let record = &mut existing.record;
        let is_own = |image: &String| *image == record.reference || Some(image) == record.image_id.as_ref();
        let (own, others): (Vec<String>, Vec<String>) = fetched.images.into_iter().partition(is_own);
        fetched.images = others;
        fetched.replaced.retain(|replaced| replaced.name.to_string() != record.reference);
        if !own.is_empty() {
            let new: Vec<String> =
                own.iter().filter(|image| !record.fetched_images.contains(*image)).cloned().collect();
            record.fetched_images.extend(new);
            let kept = async {
                self.store.save(existing).await?;
                self.store.settle_fetched(own).await
            };
            if let Err(error) = kept.await {
                tracing::warn!(%error, "cannot record that an image stays");
            }
        }
        self.discard(fetched).await;
    }

    /// Has a name stand for what it stood for, and removes what it stood for meanwhile, unless that has other names.
    async fn give_back(&self, replaced: &Replaced) {
        let Replaced { name, before, came } = replaced;
        let restored = async {
            self.engine.tag(before, name).await?;
            let Some(came) = came else { return Ok(()) };
            match self.engine.image(came).await? {
                Some(image) if image.names.is_empty() => self.take_out(came).await,
                _ => Ok(()),
            }
        };
        if let Err(error) = restored.await {
            tracing::warn!(%error, image = %name, "an image's name was not put back to what it stood for");
        }
    }

    /// Removes an image, waiting for containers of our own that still read it.
    async fn take_out(&self, image: &str) -> Result<()> {
        let until = tokio::time::Instant::now() + READER_CLOSES;
        while !self.engine.remove_image(image).await?
            && self.engine.image(image).await?.is_some()
            && self.engine.has_temporaries().await?
            && tokio::time::Instant::now() < until
        {
            tokio::time::sleep(TRY_AGAIN).await;
        }
        Ok(())
    }

    /// Takes out what earlier runs fetched and did not come to an end with, once. Before anything is fetched: what comes
    /// now may have the same names.
    ///
    /// # Errors
    ///
    /// `ENGINE_UNAVAILABLE`.
    pub(super) async fn discard_left(&self) -> Result<()> {
        let mut is_done = self.left_is_discarded.lock().await;
        if *is_done {
            return Ok(());
        }
        for image in self.store.left_fetched(self.run.clone()).await? {
            let all = self.store.extensions("", usize::MAX).await?;
            if !all.iter().any(|installed| installed.record.fetched_images.contains(&image)) {
                match self.take_out(&image).await {
                    Err(error) if error.reason() == Reason::EngineUnavailable => return Err(error),
                    Err(error) => tracing::warn!(%error, image, "an image that was fetched stays"),
                    Ok(()) => tracing::info!(image, "took out an image that a crash left"),
                }
            }
            self.store.settle_fetched(vec![image]).await?;
        }
        *is_done = true;
        Ok(())
    }
}
