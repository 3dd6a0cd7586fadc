//! An extension that need not be installed.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{extension::UiView, grant::NeedView, problem::ProblemView};
use crate::pb;

/// What an image, archive or directory holds, and what it would be granted.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct InspectionView {
    pub(in crate::cli) id: String,
    pub(in crate::cli) reference: String,
    pub(in crate::cli) version: String,
    pub(in crate::cli) image_id: String,
    pub(in crate::cli) title: String,
    pub(in crate::cli) description: String,
    pub(in crate::cli) vendor: String,
    pub(in crate::cli) ui: Option<UiView>,
    pub(in crate::cli) services: Vec<String>,
    pub(in crate::cli) host_binaries: Vec<String>,
    pub(in crate::cli) needed_grants: Vec<NeedView>,
    pub(in crate::cli) problems: Vec<ProblemView>,
    pub(in crate::cli) labels: BTreeMap<String, String>,
    /// `metadata.json`; a string where it is not JSON.
    pub(in crate::cli) manifest: Value,
}

impl From<pb::InspectResponse> for InspectionView {
    fn from(it: pb::InspectResponse) -> Self {
        InspectionView {
            id: it.id,
            reference: it.reference,
            version: it.version,
            image_id: it.image_id,
            title: it.title,
            description: it.description,
            vendor: it.vendor,
            ui: it.ui.map(UiView::from),
            services: it.services,
            host_binaries: it.host_binaries,
            needed_grants: it.needed_grants.into_iter().map(NeedView::from).collect(),
            problems: it.problems.into_iter().map(ProblemView::from).collect(),
            labels: it.labels.into_iter().collect(),
            manifest: serde_json::from_str(&it.manifest_json).unwrap_or(Value::String(it.manifest_json)),
        }
    }
}
