//! Containers whose process limit is squeezed for a moment.

use rusqlite::params;

use super::Store;
use crate::model::error::Result;

impl Store {
    /// Remembers that `run` is about to squeeze a container, and what its limit is. What was noted of it before and is not
    /// settled stays, because then the limit that is found now is the squeezed one. Returns what is on record.
    pub async fn note_squeezed(&self, container: String, pids_limit: i64, run: String) -> Result<i64> {
        self.transaction(move |t| {
            t.execute("INSERT OR IGNORE INTO squeezed VALUES (?1, ?2, ?3)", params![container, pids_limit, run])?;
            t.query_row("SELECT pids_limit FROM squeezed WHERE container = ?1", [container], |row| row.get(0))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_before_the_first_squeeze_stays_on_record() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("longshore.db")).unwrap();
        let note = async |limit, run: &str| store.note_squeezed("c".into(), limit, run.into()).await.unwrap();
        assert_eq!(note(500, "first").await, 500);
        assert_eq!(note(1, "second").await, 500);
        store.settle_squeezed("c".into()).await.unwrap();
        assert_eq!(note(7, "second").await, 7);
    }
}
