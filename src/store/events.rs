//! Events of what the store itself holds, written in the very transaction that makes them true.

use std::time::Duration;

use rusqlite::{OptionalExtension, Transaction, params};

use super::{Store, damaged};
use crate::clock::now_ms;
use crate::model::{
    error::Result,
    event::{Event, Stored, What},
    extension::Installed,
};

/// Events that are kept.
const MAX_EVENTS: i64 = 10_000;
/// How long they are kept.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// What happened to one generation.
pub(super) fn of(generation: &Installed, what: What) -> Event {
    Event {
        extension: generation.id.to_string(),
        generation: generation.generation,
        version: generation.record.version.clone(),
        what,
        at_ms: now_ms(),
        observed_late: false,
    }
}

/// Writes an event, and forgets those that are too many or too old.
pub(super) fn write(t: &Transaction<'_>, event: Event) -> rusqlite::Result<Stored> {
    let text = serde_json::to_string(&event).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    t.execute(
        "INSERT INTO event (at_ms, extension, what) VALUES (?1, ?2, ?3)",
        params![event.at_ms, event.extension, text],
    )?;
    let sequence = t.last_insert_rowid();
    let oldest = event.at_ms.saturating_sub(i64::try_from(MAX_AGE.as_millis()).unwrap_or(i64::MAX));
    t.execute("DELETE FROM event WHERE sequence <= ?1 OR at_ms < ?2", params![sequence - MAX_EVENTS, oldest])?;
    Ok(Stored { sequence, event })
}

impl Store {
    /// The number of the newest event that was ever written; 0 where there was none.
    pub async fn newest_event(&self) -> Result<i64> {
        self.transaction(newest).await
    }

    /// The events behind one, or `None` where some of them are forgotten or it never was.
    pub async fn events_after(&self, sequence: i64) -> Result<Option<Vec<Stored>>> {
        self.transaction(move |t| {
            let newest = newest(t)?;
            let oldest: Option<i64> = t.query_row("SELECT min(sequence) FROM event", [], |row| row.get(0))?;
            // The next one must be there, or must never have been.
            if sequence < 0 || sequence > newest || sequence + 1 < oldest.unwrap_or(newest + 1) {
                return Ok(None);
            }
            let stored = |row: &rusqlite::Row<'_>| {
                let text: String = row.get(1)?;
                let event = serde_json::from_str(&text).map_err(|e| damaged(1, e.to_string()))?;
                Ok(Stored { sequence: row.get(0)?, event })
            };
            let mut query =
                t.prepare_cached("SELECT sequence, what FROM event WHERE sequence > ?1 ORDER BY sequence")?;
            query.query_map([sequence], stored)?.collect::<rusqlite::Result<Vec<_>>>().map(Some)
        })
        .await
    }
}

fn newest(t: &Transaction<'_>) -> rusqlite::Result<i64> {
    let newest = t.query_row("SELECT seq FROM sqlite_sequence WHERE name = 'event'", [], |row| row.get(0));
    Ok(newest.optional()?.unwrap_or(0))
}
