//! What the broker makes in the engine for itself and for a moment: containers to read images, to remove files and to fill
//! volumes, and the empty image that some of them are of. All are marked, so that the next start finds those of a run that
//! was killed, and only those.

use std::{collections::HashMap, sync::Arc};

use bollard::query_parameters::ListImagesOptionsBuilder;
use bytes::Bytes;
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::Engine;
use crate::model::error::{Error, Result};

/// Label with the broker that made it.
const BROKER_LABEL: &str = "dev.longshore.broker";
/// Label with the run of that broker.
pub(super) const RUN_LABEL: &str = "dev.longshore.run";
/// The image with nothing in it, there only while it is needed.
const EMPTY_IMAGE: &str = "longshore/empty";
/// An archive without entries.
const EMPTY_ARCHIVE: [u8; 1024] = [0; 1024];

/// Who makes it.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    broker: Arc<str>,
    run: Arc<str>,
}

impl Origin {
    pub(super) fn new(broker: &str, run: &str) -> Self {
        Origin { broker: broker.into(), run: run.into() }
    }

    /// Its name.
    pub(super) fn broker(&self) -> &str {
        &self.broker
    }

    /// The labels of a container for `purpose`, such as `reader`.
    pub(super) fn labels(&self, purpose: &str) -> HashMap<String, String> {
        HashMap::from([
            (format!("dev.longshore.{purpose}"), "true".to_owned()),
            (BROKER_LABEL.to_owned(), self.broker.to_string()),
            (RUN_LABEL.to_owned(), self.run.to_string()),
        ])
    }
}

impl Engine {
    /// Has an image with nothing in it, for one `use_of` it that is marked with `purpose`: its name.
    pub(super) async fn import_empty(&self, use_of: &str, purpose: &str) -> Result<String> {
        let hash = Sha256::digest(use_of.as_bytes());
        let image = format!("{EMPTY_IMAGE}:{}", hex::encode(&hash[..8]));
        // bollard would join the labels into one change and give the tag by itself, which only Docker takes apart again.
        let labels = self.origin.labels(purpose).into_iter().map(|(name, value)| format!("LABEL {name}={value}"));
        let changes: String = labels.map(|label| format!("&changes={}", encoded(&label))).collect();
        let import = http::Request::post(format!("/images/create?fromSrc=-&repo={}{changes}", encoded(&image)))
            .body(Full::new(Bytes::from_static(&EMPTY_ARCHIVE)))
            .map_err(|e| Error::bug(format!("no request can import {image}")).caused_by(e))?;
        self.dockerd.whole(&image, import).await?;
        Ok(image)
    }

    /// Removes what earlier runs of this broker made for themselves and left; true when there was any.
    pub async fn remove_earlier_temporaries(&self) -> Result<bool> {
        let mine = format!("{BROKER_LABEL}={}", self.origin.broker);
        let is_left =
            |labels: &HashMap<String, String>| labels.get(RUN_LABEL).is_none_or(|run| **run != *self.origin.run);
        let mut any = false;
        let containers = self.containers(std::slice::from_ref(&mine)).await?;
        for container in containers.into_iter().filter(|container| is_left(&container.labels)) {
            any = true;
            self.remove_container(&container.id).await?;
        }
        let filters = HashMap::from([("label", vec![mine])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let images = self.list_images(options).await?;
        for image in images.into_iter().filter(|image| is_left(&image.labels)) {
            any = true;
            self.remove_image(&image.id).await?;
        }
        Ok(any)
    }

    /// Whether this run has a container of its own just now: it may be what keeps an image in use.
    pub async fn has_temporaries(&self) -> Result<bool> {
        let mine = [format!("{BROKER_LABEL}={}", self.origin.broker), format!("{RUN_LABEL}={}", self.origin.run)];
        Ok(!self.containers(&mine).await?.is_empty())
    }
}

/// A value in a query.
fn encoded(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}
