//! A step of an install.

use serde::Serialize;

use crate::{cli::text::enum_name, pb};

/// How far one part of an install is.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct ProgressView {
    pub(in crate::cli) phase: String,
    pub(in crate::cli) item: String,
    pub(in crate::cli) message: String,
    pub(in crate::cli) current_bytes: u64,
    pub(in crate::cli) total_bytes: u64,
}

impl ProgressView {
    /// Phase, item and message on one line, without the numbers.
    pub(in crate::cli) fn text(&self) -> String {
        let mut text = self.phase.replace('_', " ");
        for part in [&self.item, &self.message] {
            if !part.is_empty() {
                text = format!("{text}: {part}");
            }
        }
        text
    }
}

impl From<pb::Progress> for ProgressView {
    fn from(it: pb::Progress) -> Self {
        ProgressView {
            phase: enum_name(it.phase().as_str_name(), "INSTALL_PHASE_"),
            item: it.item,
            message: it.message,
            current_bytes: it.current_bytes.try_into().unwrap_or(0),
            total_bytes: it.total_bytes.try_into().unwrap_or(0),
        }
    }
}
