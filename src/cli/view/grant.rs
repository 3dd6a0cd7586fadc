//! Grants: decisions and needs.

use serde::Serialize;

use crate::{cli::text::enum_name, pb};

/// One permission that an extension cannot work without.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct NeedView {
    pub(in crate::cli) name: String,
    pub(in crate::cli) summary: String,
    pub(in crate::cli) origin: String,
    pub(in crate::cli) held: bool,
}

/// One decision about a permission.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct GrantView {
    pub(in crate::cli) name: String,
    pub(in crate::cli) decision: String,
    pub(in crate::cli) decided_at: Option<String>,
}

/// What one extension holds and needs.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct GrantsView {
    pub(in crate::cli) extension: String,
    pub(in crate::cli) grants: Vec<GrantView>,
    pub(in crate::cli) needed: Vec<NeedView>,
}

impl NeedView {
    /// Where it is asked for, with the name of the file: a JSON pointer alone looks like the path of a file.
    pub(in crate::cli) fn place(&self) -> String {
        match self.origin.as_str() {
            pointer if pointer.starts_with('/') => format!("metadata.json: {pointer}"),
            path if path.starts_with("services.") => format!("the compose file: {path}"),
            other => other.to_owned(),
        }
    }
}

impl From<pb::NeededGrant> for NeedView {
    fn from(it: pb::NeededGrant) -> Self {
        NeedView { name: it.name, summary: it.summary, origin: it.origin, held: it.held }
    }
}

impl From<pb::Grant> for GrantView {
    fn from(it: pb::Grant) -> Self {
        GrantView {
            decision: enum_name(it.decision().as_str_name(), "GRANT_DECISION_"),
            name: it.name,
            decided_at: it.decided_at.map(|at| at.to_string()),
        }
    }
}

impl GrantsView {
    pub(in crate::cli) fn of(extension: &str, response: pb::GrantServiceGetResponse) -> Self {
        GrantsView {
            extension: extension.to_owned(),
            grants: response.grants.into_iter().map(GrantView::from).collect(),
            needed: response.needed.into_iter().map(NeedView::from).collect(),
        }
    }
}
