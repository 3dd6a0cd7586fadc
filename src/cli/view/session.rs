//! An open session of a view.

use std::time::SystemTime;

use serde::Serialize;

use crate::pb;

/// A session. Its token is known to who opened it, and to nobody else.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct SessionView {
    pub(in crate::cli) session_id: String,
    pub(in crate::cli) extension: String,
    pub(in crate::cli) generation: i64,
    pub(in crate::cli) opened_at: Option<String>,
    pub(in crate::cli) execs: i32,
    /// When it was opened.
    #[serde(skip)]
    pub(in crate::cli) since: Option<SystemTime>,
}

impl From<pb::Session> for SessionView {
    fn from(it: pb::Session) -> Self {
        SessionView {
            session_id: it.session_id,
            extension: it.extension,
            generation: it.generation,
            since: it.opened_at.and_then(|at| at.try_into().ok()),
            opened_at: it.opened_at.map(|at| at.to_string()),
            execs: it.execs,
        }
    }
}
