//! Looks at an extension without installing it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use tracing::Instrument;

use super::{
    Broker, Report, Source, UiView,
    fetched::Fetched,
    package::Package,
    stage::{BackendDraft, Staged},
};
use crate::model::{
    error::{Error, Reason, Result},
    grant::{Decisions, Need},
    manifest::{self, HostOs, labels},
    problem::Problem,
    reference::Reference,
};

/// What to check.
#[derive(Debug, Clone)]
pub enum Subject {
    /// An extension.
    Source(Source),
    /// The text of a `metadata.json`.
    Manifest(Bytes),
}

/// An extension that need not be installed.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// What it would be installed as.
    pub reference: Reference,
    /// Content id of its image.
    pub image_id: Option<String>,
    /// Text of its manifest.
    pub manifest_json: String,
    /// Labels of its image. Untrusted.
    pub labels: BTreeMap<String, String>,
    /// Title.
    pub title: String,
    /// Description label. Untrusted.
    pub description: String,
    /// Vendor label. Untrusted.
    pub vendor: String,
    /// Its UI; the paths are those inside the image.
    pub ui: Option<UiView>,
    /// Services in the author's order.
    pub services: Vec<String>,
    /// Host programs for this operating system.
    pub host_binaries: Vec<String>,
    /// What Install will ask for.
    pub needs: Vec<Need>,
    /// What is wrong or worth knowing.
    pub problems: Vec<Problem>,
}

impl Broker {
    /// Describes an extension. What had to be fetched for it is removed again.
    pub async fn inspect(self: &Arc<Self>, source: Source) -> Result<Inspected> {
        self.examine(source, |package, staged| {
            let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
            let manifest = staged.manifest.as_ref();
            Ok(Inspected {
                reference: package.reference.clone(),
                image_id: package.image.as_ref().map(|image| image.id.clone()),
                title: staged.title(package.id()),
                description: text(labels::description(&staged.labels)),
                vendor: text(labels::vendor(&staged.labels)),
                ui: manifest.and_then(|manifest| {
                    let ui = manifest.ui.as_ref()?;
                    Some(UiView {
                        title: ui.title.clone(),
                        root_dir: ui.root.to_string(),
                        entry: ui.entry.clone(),
                        icon_path: manifest.icon.as_ref().map(ToString::to_string).unwrap_or_default(),
                    })
                }),
                services: match &staged.backend {
                    None | Some(BackendDraft::Image(_)) => vec![],
                    Some(BackendDraft::Compose(prepass)) => prepass.services.clone(),
                },
                host_binaries: manifest
                    .map(|manifest| manifest.binaries.as_slice())
                    .unwrap_or_default()
                    .iter()
                    .filter(|binary| !binary.directory)
                    .map(|binary| binary.name.clone())
                    .collect(),
                needs: staged.needs.clone(),
                labels: staged.labels.clone(),
                manifest_json: staged.manifest_json.clone(),
                problems: staged.all_problems(),
            })
        })
        .await
    }

    /// Everything that is wrong or worth knowing.
    pub async fn validate(self: &Arc<Self>, subject: Subject) -> Result<Vec<Problem>> {
        match subject {
            Subject::Manifest(text) => Ok(manifest::parse(&text, HostOs::CURRENT).problems),
            Subject::Source(source) => self.examine(source, |_, staged| Ok(staged.all_problems())).await,
        }
    }

    /// Reads a source and cleans up behind it, also when the caller goes away meanwhile.
    async fn examine<T: Send + 'static>(
        self: &Arc<Self>,
        source: Source,
        look: impl FnOnce(&Package, Staged) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let broker = self.clone();
        let work = async move {
            let mut fetched = Fetched::default();
            let silent = Report::silent();
            let result = match broker.open_package(&source, &mut fetched, &silent).await {
                Err(error) => Err(error),
                Ok(package) => {
                    let staged = broker.stage(&package, &Decisions::default(), &silent).await;
                    let result = staged.and_then(|staged| look(&package, staged));
                    package.close().await;
                    result
                }
            };
            broker.discard(fetched).await;
            result
        };
        let stopped = Error::new(Reason::ShuttingDown, "", "the broker stops");
        self.tasks.spawn(work.in_current_span()).await.map_err(|e| stopped.caused_by(e))?
    }
}
