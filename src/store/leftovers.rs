//! What a run that broke off may have left in the engine: images it was bringing, installs it was making.

use std::time::Duration;

use rusqlite::{Transaction, params};

use super::{Store, now_ms};
use crate::model::error::Result;

/// Forgets images that somebody else answers for now.
pub(super) fn settle(t: &Transaction<'_>, images: &[String]) -> rusqlite::Result<()> {
    for image in images {
        t.execute("DELETE FROM fetched_image WHERE image = ?1", [image])?;
    }
    Ok(())
}

impl Store {
    /// Remembers that `run` is about to bring images into the engine.
    pub async fn note_fetched(&self, images: Vec<String>, run: String) -> Result<()> {
        self.transaction(move |t| {
            for image in &images {
                t.execute("INSERT OR REPLACE INTO fetched_image VALUES (?1, ?2)", params![image, run])?;
            }
            Ok(())
        })
        .await
    }

    /// Forgets images that went again, or that an extension has on record.
    pub async fn settle_fetched(&self, images: Vec<String>) -> Result<()> {
        self.transaction(move |t| settle(t, &images)).await
    }

    /// The images that runs other than `run` brought and did not come to an end with.
    pub async fn left_fetched(&self, run: String) -> Result<Vec<String>> {
        self.transaction(move |t| {
            t.prepare_cached("SELECT image FROM fetched_image WHERE run != ?1 ORDER BY image")?
                .query_map([run], |row| row.get(0))?
                .collect()
        })
        .await
    }

    /// Remembers the nonce of an install that broke off.
    pub async fn note_broken(&self, nonce: String) -> Result<()> {
        self.transaction(move |t| {
            t.execute("INSERT OR REPLACE INTO broken_install VALUES (?1, ?2)", params![nonce, now_ms()])?;
            Ok(())
        })
        .await
    }

    /// The nonces of installs that broke off less than `keep` ago; older ones are forgotten.
    pub async fn broken(&self, keep: Duration) -> Result<Vec<String>> {
        let oldest = now_ms().saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
        self.transaction(move |t| {
            t.execute("DELETE FROM broken_install WHERE at_ms < ?1", [oldest])?;
            t.prepare_cached("SELECT nonce FROM broken_install")?.query_map([], |row| row.get(0))?.collect()
        })
        .await
    }
}
