//! What is installed.

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{Store, leftovers, now_ms};
use crate::model::{
    error::{Error, Result},
    extension::{Installed, Phase, Record},
    reference::ExtensionId,
};

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Phase::Installing => "installing",
            Phase::Installed => "installed",
            Phase::Uninstalling => "uninstalling",
        }
    }
}

const INSTALLED_COLUMNS: &str = "id, generation, phase, enabled, installed_at_ms, record";

/// A row that cannot be read back is damage, not absence.
fn installed(row: &Row<'_>) -> rusqlite::Result<Installed> {
    let damaged = |column: usize, why: String| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, why.into())
    };
    let id: String = row.get(0)?;
    let phase: String = row.get(2)?;
    let record: String = row.get(5)?;
    Ok(Installed {
        id: id.parse().map_err(|e: Error| damaged(0, e.to_string()))?,
        generation: row.get(1)?,
        phase: match phase.as_str() {
            "installing" => Phase::Installing,
            "uninstalling" => Phase::Uninstalling,
            _ => Phase::Installed,
        },
        enabled: row.get(3)?,
        installed_at_ms: row.get(4)?,
        record: serde_json::from_str(&record).map_err(|e| damaged(5, e.to_string()))?,
    })
}

fn encode(record: &Record) -> rusqlite::Result<String> {
    serde_json::to_string(record).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}

fn update(t: &Transaction<'_>, installed: &Installed) -> rusqlite::Result<()> {
    let record = encode(&installed.record)?;
    t.execute(
        "UPDATE extension SET phase = ?2, enabled = ?3, record = ?4 WHERE id = ?1",
        params![installed.id.as_str(), installed.phase.as_str(), installed.enabled, record],
    )?;
    Ok(())
}

impl Store {
    /// Takes the next generation of an extension and records that its install has begun.
    pub async fn begin_install(&self, id: ExtensionId, record: Record) -> Result<Installed> {
        self.transaction(move |t| {
            let last: Option<i64> = t
                .query_row("SELECT generation FROM last_generation WHERE extension = ?1", [id.as_str()], |r| r.get(0))
                .optional()?;
            let generation = last.unwrap_or(0) + 1;
            t.execute(
                "INSERT INTO last_generation VALUES (?1, ?2) ON CONFLICT DO UPDATE SET generation = excluded.generation",
                params![id.as_str(), generation],
            )?;
            let phase = Phase::Installing;
            let installed = Installed { id, generation, phase, enabled: true, installed_at_ms: now_ms(), record };
            t.execute(
                "INSERT INTO extension VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    installed.id.as_str(),
                    installed.generation,
                    installed.phase.as_str(),
                    installed.enabled,
                    installed.installed_at_ms,
                    encode(&installed.record)?
                ],
            )?;
            Ok(installed)
        })
        .await
    }

    /// Replaces record, phase and the user's wish.
    pub async fn save(&self, installed: &Installed) -> Result<()> {
        let installed = installed.clone();
        self.transaction(move |t| update(t, &installed)).await
    }

    /// Saves an install that is done: the images that it brought are on its record now.
    pub async fn finish_install(&self, installed: &Installed) -> Result<()> {
        let installed = installed.clone();
        self.transaction(move |t| {
            leftovers::settle(t, &installed.record.fetched_images)?;
            update(t, &installed)
        })
        .await
    }

    /// Forgets an extension, its grants and its part of the ledger, except the volumes that stay.
    pub async fn forget(&self, id: &ExtensionId) -> Result<()> {
        let id = id.clone();
        self.transaction(move |t| {
            t.execute("DELETE FROM extension WHERE id = ?1", [id.as_str()])?;
            t.execute("DELETE FROM grants WHERE extension = ?1", [id.as_str()])?;
            t.execute("DELETE FROM ledger WHERE extension = ?1 AND keep = 0", [id.as_str()])?;
            Ok(())
        })
        .await
    }

    /// One extension, in whatever phase.
    pub async fn extension(&self, id: &ExtensionId) -> Result<Option<Installed>> {
        let id = id.clone();
        self.transaction(move |t| {
            let sql = format!("SELECT {INSTALLED_COLUMNS} FROM extension WHERE id = ?1");
            t.query_row(&sql, [id.as_str()], installed).optional()
        })
        .await
    }

    /// Up to `limit` extensions whose id comes after `after`, ordered by id.
    pub async fn extensions(&self, after: &str, limit: usize) -> Result<Vec<Installed>> {
        let after = after.to_owned();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.transaction(move |t| {
            let sql = format!("SELECT {INSTALLED_COLUMNS} FROM extension WHERE id > ?1 ORDER BY id LIMIT ?2");
            t.prepare_cached(&sql)?.query_map(params![after, limit], installed)?.collect()
        })
        .await
    }
}
