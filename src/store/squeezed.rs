//! Containers whose process limit is squeezed for a moment.

use rusqlite::params;

use super::Store;
use crate::model::error::Result;

impl Store {
    /// Remembers that `run` is about to squeeze a container, and what its limit is; what a run that was killed noted of it
    /// stays, because then the limit that is found now is the squeezed one.
    pub async fn note_squeezed(&self, container: String, pids_limit: i64, run: String) -> Result<()> {
        self.transaction(move |t| {
            t.execute("INSERT OR IGNORE INTO squeezed VALUES (?1, ?2, ?3)", params![container, pids_limit, run])?;
            Ok(())
        })
        .await
    }

    /// Forgets one that has its limit again.
    pub async fn settle_squeezed(&self, container: String) -> Result<()> {
        self.transaction(move |t| {
            t.execute("DELETE FROM squeezed WHERE container = ?1", [container])?;
            Ok(())
        })
        .await
    }

    /// The containers that runs other than `run` left squeezed, and their limits.
    pub async fn left_squeezed(&self, run: String) -> Result<Vec<(String, i64)>> {
        self.transaction(move |t| {
            t.prepare_cached("SELECT container, pids_limit FROM squeezed WHERE run != ?1 ORDER BY container")?
                .query_map([run], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
        .await
    }
}
