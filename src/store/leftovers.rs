//! What a run that broke off may have left in the engine: images it was bringing, installs it was making.

use std::time::Duration;

use rusqlite::{Transaction, params};

use super::{Store, damaged};
use crate::clock::now_ms;
use crate::model::{
    error::{Error, Result},
    reference::ExtensionId,
};

/// Something that was being made when it broke off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The label's value of what was made for it.
    pub nonce: String,
    /// For whom; `None` in records of older brokers.
    pub extension: Option<ExtensionId>,
    /// Volumes that were not there before and were to come, by name.
    pub volumes: Vec<String>,
}

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

    /// Remembers what broke off.
    pub async fn note_broken(&self, broken: Broken) -> Result<()> {
        let volumes =
            serde_json::to_string(&broken.volumes).map_err(|e| Error::bug("names are no JSON").caused_by(e))?;
        self.transaction(move |t| {
            let extension = broken.extension.as_ref().map_or("", ExtensionId::as_str);
            t.execute(
                "INSERT OR REPLACE INTO broken_install (nonce, at_ms, extension, volumes) VALUES (?1, ?2, ?3, ?4)",
                params![broken.nonce, now_ms(), extension, volumes],
            )?;
            Ok(())
        })
        .await
    }

    /// What broke off less than `keep` ago; what is older is forgotten.
    pub async fn broken(&self, keep: Duration) -> Result<Vec<Broken>> {
        let oldest = now_ms().saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
        self.transaction(move |t| {
            t.execute("DELETE FROM broken_install WHERE at_ms < ?1", [oldest])?;
            t.prepare_cached("SELECT nonce, extension, volumes FROM broken_install")?
                .query_map([], |row| {
                    let (extension, volumes): (String, String) = (row.get(1)?, row.get(2)?);
                    Ok(Broken {
                        nonce: row.get(0)?,
                        extension: extension.parse().ok(),
                        volumes: serde_json::from_str(&volumes).map_err(|e| damaged(2, e.to_string()))?,
                    })
                })?
                .collect()
        })
        .await
    }
}
