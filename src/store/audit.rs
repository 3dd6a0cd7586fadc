//! The audit.

use rusqlite::params;

use super::{Store, now_ms};
use crate::model::error::Result;

/// One line of the audit: a privileged act and what was decided about it.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// Extension that acted or was acted on.
    pub extension: String,
    /// User id of the caller, where known.
    pub uid: Option<u32>,
    /// What was done, such as `host.exec`.
    pub act: &'static str,
    /// To what: a program's name, never its arguments.
    pub subject: String,
    /// `allowed` or the reason of the refusal.
    pub decision: String,
}

impl Store {
    /// Writes one line of the audit.
    pub async fn audit(&self, entry: AuditEntry) -> Result<()> {
        self.transaction(move |t| {
            t.execute(
                "INSERT INTO audit (at_ms, extension, uid, act, subject, decision) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![now_ms(), entry.extension, entry.uid, entry.act, entry.subject, entry.decision],
            )?;
            Ok(())
        })
        .await
    }
}
