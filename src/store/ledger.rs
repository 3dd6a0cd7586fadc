//! The ledger: which extension owns which container, network and volume.

use rusqlite::{Row, Transaction, params};

use super::Store;
use crate::model::{
    error::Result,
    extension::{LedgerEntry, ResourceKind},
    reference::ExtensionId,
};

fn entry(row: &Row<'_>) -> rusqlite::Result<LedgerEntry> {
    let kind: String = row.get(0)?;
    Ok(LedgerEntry {
        kind: ResourceKind::from_name(&kind).ok_or_else(|| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, "no such kind".into())
        })?,
        id: row.get(1)?,
        name: row.get(2)?,
        extension: row.get(3)?,
        generation: row.get(4)?,
        service: row.get(5)?,
        keep: row.get(6)?,
        first_seen_ms: row.get(7)?,
    })
}

pub(super) fn record_entry(t: &Transaction<'_>, entry: &LedgerEntry) -> rusqlite::Result<()> {
    t.execute(
        "INSERT INTO ledger VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET
         name = excluded.name, extension = excluded.extension, generation = excluded.generation,
         service = excluded.service, keep = excluded.keep",
        params![
            entry.kind.as_str(),
            entry.id,
            entry.name,
            entry.extension,
            entry.generation,
            entry.service,
            entry.keep,
            entry.first_seen_ms
        ],
    )?;
    Ok(())
}

impl Store {
    /// Records objects of the engine.
    pub async fn record(&self, entries: Vec<LedgerEntry>) -> Result<()> {
        self.transaction(move |t| entries.iter().try_for_each(|entry| record_entry(t, entry))).await
    }

    /// Strikes objects off the ledger.
    pub async fn strike(&self, gone: Vec<(ResourceKind, String)>) -> Result<()> {
        self.transaction(move |t| {
            for (kind, id) in &gone {
                t.execute("DELETE FROM ledger WHERE kind = ?1 AND id = ?2", params![kind.as_str(), id])?;
            }
            Ok(())
        })
        .await
    }

    /// The ledger, of one extension or whole.
    pub async fn ledger(&self, extension: Option<&ExtensionId>) -> Result<Vec<LedgerEntry>> {
        let extension = extension.map(|id| id.as_str().to_owned());
        self.transaction(move |t| {
            t.prepare_cached("SELECT * FROM ledger WHERE ?1 IS NULL OR extension = ?1 ORDER BY kind, name")?
                .query_map([extension], entry)?
                .collect()
        })
        .await
    }
}
