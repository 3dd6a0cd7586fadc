//! The ledger: which extension owns which container, network and volume.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{Store, damaged};
use crate::model::{
    error::Result,
    extension::{LedgerEntry, Maker, OwnerSource, ResourceKind},
    reference::ExtensionId,
};

const COLUMNS: &str = "kind, id, name, extension, generation, service, keep, first_seen_ms, source, maker";

/// Reads a name out of a closed list.
fn named<T>(row: &Row<'_>, column: usize, read: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let name: String = row.get(column)?;
    read(&name).ok_or_else(|| damaged(column, format!("{name:?} is not known")))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<LedgerEntry> {
    Ok(LedgerEntry {
        kind: named(row, 0, ResourceKind::from_name)?,
        id: row.get(1)?,
        name: row.get(2)?,
        extension: row.get(3)?,
        generation: row.get(4)?,
        service: row.get(5)?,
        keep: row.get(6)?,
        first_seen_ms: row.get(7)?,
        source: named(row, 8, OwnerSource::from_name)?,
        maker: named(row, 9, Maker::from_name)?,
    })
}

pub(super) fn record_entry(t: &Transaction<'_>, entry: &LedgerEntry) -> rusqlite::Result<()> {
    t.prepare_cached(&format!(
        "INSERT INTO ledger ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO UPDATE SET
         name = excluded.name, extension = excluded.extension, generation = excluded.generation,
         service = excluded.service, keep = excluded.keep, source = excluded.source, maker = excluded.maker"
    ))?
    .execute(params![
        entry.kind.as_str(),
        entry.id,
        entry.name,
        entry.extension,
        entry.generation,
        entry.service,
        entry.keep,
        entry.first_seen_ms,
        entry.source.as_str(),
        entry.maker.as_str()
    ])?;
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

    /// What the ledger says of one object.
    pub async fn entry(&self, kind: ResourceKind, id: &str) -> Result<Option<LedgerEntry>> {
        let id = id.to_owned();
        self.transaction(move |t| {
            let sql = format!("SELECT {COLUMNS} FROM ledger WHERE kind = ?1 AND id = ?2");
            t.prepare_cached(&sql)?.query_row(params![kind.as_str(), id], entry).optional()
        })
        .await
    }

    /// The ledger, of one extension or whole.
    pub async fn ledger(&self, extension: Option<&ExtensionId>) -> Result<Vec<LedgerEntry>> {
        let extension = extension.map(|id| id.as_str().to_owned());
        self.transaction(move |t| {
            let sql = format!("SELECT {COLUMNS} FROM ledger WHERE ?1 IS NULL OR extension = ?1 ORDER BY kind, name");
            t.prepare_cached(&sql)?.query_map([extension], entry)?.collect()
        })
        .await
    }
}
