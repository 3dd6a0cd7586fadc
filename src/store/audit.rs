//! The audit.

use rusqlite::{Connection, params};

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
    /// To what: a program's name, or its command line without secrets where that is wanted.
    pub subject: String,
    /// `allowed` or the reason of the refusal.
    pub decision: String,
}

/// How many lines are kept: the newest.
const KEPT: i64 = 100_000;

impl Store {
    /// Writes one line of the audit. It survives the broker, but not the machine's power: no call waits for the disk to
    /// say that somebody ran a program.
    pub async fn audit(&self, entry: AuditEntry) -> Result<()> {
        self.on_its_thread(move |connection| {
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            let written = write(connection, &entry);
            connection.pragma_update(None, "synchronous", "FULL")?;
            written
        })
        .await
    }
}

fn write(connection: &mut Connection, entry: &AuditEntry) -> rusqlite::Result<()> {
    let AuditEntry { extension, uid, act, subject, decision } = entry;
    let transaction = connection.transaction()?;
    transaction
        .prepare_cached(
            "INSERT INTO audit (at_ms, extension, uid, act, subject, decision) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![now_ms(), extension, uid, act, subject, decision])?;
    let oldest = transaction.last_insert_rowid() - KEPT;
    transaction.prepare_cached("DELETE FROM audit WHERE id <= ?1")?.execute([oldest])?;
    transaction.commit()
}
