//! What is installed: extensions and their generations.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{Store, damaged, events, journal, ledger};
use crate::model::{
    error::{Error, Result},
    event::What,
    extension::{Installed, LedgerEntry, Record},
    journal::ChangeKind,
    reference::ExtensionId,
};

/// Extensions, each with one of its generations, and what is under way with them.
const SELECT: &str = "SELECT e.id, g.number, e.enabled, e.installed_at_ms, g.record,
                             c.step, c.next, c.begun_at_ms, c.notes
                      FROM extension e LEFT JOIN generation g ON g.extension = e.id
                      LEFT JOIN change c ON c.extension = e.id";

/// A row that cannot be read back is damage, not absence.
fn installed(row: &Row<'_>) -> rusqlite::Result<Installed> {
    let id: String = row.get(0)?;
    let record: String = row.get(4)?;
    Ok(Installed {
        id: id.parse().map_err(|e: Error| damaged(0, e.to_string()))?,
        generation: row.get(1)?,
        enabled: row.get(2)?,
        installed_at_ms: row.get(3)?,
        record: serde_json::from_str(&record).map_err(|e| damaged(4, e.to_string()))?,
        change: journal::change(row, 5)?,
    })
}

/// One extension with the generation that is installed.
pub(super) fn current(t: &Transaction<'_>, id: &ExtensionId) -> rusqlite::Result<Option<Installed>> {
    let sql = format!("{SELECT} WHERE e.id = ?1 AND (g.number = e.generation OR g.number IS NULL)");
    t.prepare_cached(&sql)?.query_row([id.as_str()], installed).optional()
}

/// Takes the next number for a generation of an extension, and records what the generation is made of.
pub(super) fn add_generation(t: &Transaction<'_>, id: &ExtensionId, record: &Record) -> rusqlite::Result<i64> {
    let last: Option<i64> = t
        .query_row("SELECT generation FROM last_generation WHERE extension = ?1", [id.as_str()], |row| row.get(0))
        .optional()?;
    let number = last.unwrap_or(0) + 1;
    t.execute(
        "INSERT INTO last_generation VALUES (?1, ?2) ON CONFLICT DO UPDATE SET generation = excluded.generation",
        params![id.as_str(), number],
    )?;
    t.execute("INSERT INTO generation VALUES (?1, ?2, ?3)", params![id.as_str(), number, encode(record)?])?;
    Ok(number)
}

/// Replaces what a generation is made of.
pub(super) fn save_record(t: &Transaction<'_>, installed: &Installed) -> rusqlite::Result<()> {
    t.execute(
        "UPDATE generation SET record = ?3 WHERE extension = ?1 AND number = ?2",
        params![installed.id.as_str(), installed.generation, encode(&installed.record)?],
    )?;
    Ok(())
}

fn encode(record: &Record) -> rusqlite::Result<String> {
    serde_json::to_string(record).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}

impl Store {
    /// Replaces what a generation is made of.
    pub async fn save(&self, installed: &Installed) -> Result<()> {
        let installed = installed.clone();
        self.transaction(move |t| save_record(t, &installed)).await
    }

    /// Forgets an extension, its generations, its grants and its part of the ledger, except the volumes that stay.
    pub async fn forget(&self, id: &ExtensionId) -> Result<()> {
        let id = id.clone();
        self.telling(move |t| {
            let event = current(t, &id)?.map(|gone| match gone.changing() {
                Some(ChangeKind::Install) => events::of(&gone, What::InstallUndone),
                _ => events::of(&gone, What::Uninstalled),
            });
            t.execute("DELETE FROM extension WHERE id = ?1", [id.as_str()])?;
            t.execute("DELETE FROM generation WHERE extension = ?1", [id.as_str()])?;
            t.execute("DELETE FROM change WHERE extension = ?1", [id.as_str()])?;
            t.execute("DELETE FROM grants WHERE extension = ?1", [id.as_str()])?;
            t.execute("DELETE FROM ledger WHERE extension = ?1 AND keep = 0", [id.as_str()])?;
            Ok(((), event))
        })
        .await
    }

    /// Takes what was found again into a new store: extensions at rest, and the ledger.
    pub async fn adopt(&self, extensions: Vec<Installed>, ledger: Vec<LedgerEntry>) -> Result<()> {
        self.transaction(move |t| {
            for Installed { id, generation, enabled, installed_at_ms, record, .. } in &extensions {
                t.execute(
                    "INSERT INTO extension VALUES (?1, ?2, ?3, ?4)",
                    params![id.as_str(), generation, enabled, installed_at_ms],
                )?;
                t.execute(
                    "INSERT INTO generation VALUES (?1, ?2, ?3)",
                    params![id.as_str(), generation, encode(record)?],
                )?;
            }
            let of_extensions = extensions.iter().map(|one| (one.id.as_str(), one.generation));
            let of_ledger = ledger.iter().map(|entry| (entry.extension.as_str(), entry.generation));
            for (id, generation) in of_extensions.chain(of_ledger) {
                t.execute(
                    "INSERT INTO last_generation VALUES (?1, ?2)
                     ON CONFLICT DO UPDATE SET generation = max(generation, excluded.generation)",
                    params![id, generation],
                )?;
            }
            ledger.iter().try_for_each(|entry| ledger::record_entry(t, entry))
        })
        .await
    }

    /// One extension, in whatever change.
    pub async fn extension(&self, id: &ExtensionId) -> Result<Option<Installed>> {
        Ok(self.known(id).await?.map(|known| known.installed.clone()))
    }

    /// All generations of an extension, the oldest first.
    pub async fn generations(&self, id: &ExtensionId) -> Result<Vec<Installed>> {
        let id = id.clone();
        self.transaction(move |t| {
            let sql = format!("{SELECT} WHERE e.id = ?1 ORDER BY g.number");
            t.prepare_cached(&sql)?.query_map([id.as_str()], installed)?.collect()
        })
        .await
    }

    /// Up to `limit` extensions whose id comes after `after`, ordered by id.
    pub async fn extensions(&self, after: &str, limit: usize) -> Result<Vec<Installed>> {
        let after = after.to_owned();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.transaction(move |t| {
            let sql = format!(
                "{SELECT} WHERE (g.number = e.generation OR g.number IS NULL) AND e.id > ?1 ORDER BY e.id LIMIT ?2"
            );
            t.prepare_cached(&sql)?.query_map(params![after, limit], installed)?.collect()
        })
        .await
    }
}
