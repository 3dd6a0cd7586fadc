//! A line of the audit.

use serde::Serialize;

use crate::pb;

/// A privileged act.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct AuditView {
    pub(in crate::cli) id: i64,
    pub(in crate::cli) at: Option<String>,
    pub(in crate::cli) extension: String,
    pub(in crate::cli) session_id: String,
    pub(in crate::cli) uid: Option<i64>,
    pub(in crate::cli) act: String,
    pub(in crate::cli) subject: String,
    pub(in crate::cli) decision: String,
    pub(in crate::cli) result: String,
}

impl From<pb::AuditEntry> for AuditView {
    fn from(it: pb::AuditEntry) -> Self {
        AuditView {
            id: it.id,
            at: it.at.map(|at| at.to_string()),
            extension: it.extension,
            session_id: it.session_id,
            uid: it.uid,
            act: it.act,
            subject: it.subject,
            decision: it.decision,
            result: it.result,
        }
    }
}
