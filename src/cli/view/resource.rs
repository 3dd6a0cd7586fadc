//! An object of the engine and its owner.

use serde::Serialize;

use crate::{cli::text::enum_name, pb};

/// A container, network, volume or program.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct ResourceView {
    pub(in crate::cli) kind: String,
    pub(in crate::cli) id: String,
    pub(in crate::cli) name: String,
    pub(in crate::cli) owner: Option<OwnerView>,
    pub(in crate::cli) state: String,
    pub(in crate::cli) image: String,
}

/// To whom it belongs, and how that is known.
#[derive(Debug, Default, Serialize)]
pub(in crate::cli) struct OwnerView {
    pub(in crate::cli) extension: String,
    pub(in crate::cli) generation: i64,
    pub(in crate::cli) source: String,
    pub(in crate::cli) service: String,
    pub(in crate::cli) first_seen: Option<String>,
}

impl ResourceView {
    /// The id as people read it: the first 12 digits, as the `docker` command shows them; a volume's name in full.
    pub(in crate::cli) fn short_id(&self) -> &str {
        shortened(&self.id).unwrap_or(&self.id)
    }

    /// The image: the first 12 digits where it is named by its id.
    pub(in crate::cli) fn short_image(&self) -> &str {
        self.image.strip_prefix("sha256:").and_then(shortened).unwrap_or(&self.image)
    }
}

/// The first digits of an id of the engine; `None` for what is none.
pub(in crate::cli) fn shortened(id: &str) -> Option<&str> {
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| &id[..12])
}

impl From<pb::Resource> for ResourceView {
    fn from(it: pb::Resource) -> Self {
        ResourceView {
            kind: enum_name(it.kind().as_str_name(), "RESOURCE_KIND_"),
            id: it.id,
            name: it.name,
            owner: it.owner.map(OwnerView::from),
            state: it.state,
            image: it.image,
        }
    }
}

impl From<pb::Owner> for OwnerView {
    fn from(it: pb::Owner) -> Self {
        OwnerView {
            source: enum_name(it.source().as_str_name(), "OWNERSHIP_SOURCE_"),
            extension: it.extension,
            generation: it.generation,
            service: it.service,
            first_seen: it.first_seen.map(|at| at.to_string()),
        }
    }
}
