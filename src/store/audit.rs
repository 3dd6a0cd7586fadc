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
    /// Writes one line of the audit. It survives the broker, but not the machine's power: no call waits for the disk to
    /// say that somebody ran a program.
    pub async fn audit(&self, entry: AuditEntry) -> Result<()> {
        self.on_its_thread(move |connection| {
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            let written = connection
                .prepare_cached(
                    "INSERT INTO audit (at_ms, extension, uid, act, subject, decision) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )
                .and_then(|mut insert| {
                    insert.execute(params![
                        now_ms(),
                        entry.extension,
                        entry.uid,
                        entry.act,
                        entry.subject,
                        entry.decision
                    ])
                });
            connection.pragma_update(None, "synchronous", "FULL")?;
            written.map(drop)
        })
        .await
    }
}
