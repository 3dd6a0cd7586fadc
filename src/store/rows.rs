//! The calls on the store, by table.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{Store, now_ms};
use crate::model::{
    error::{Error, Result},
    extension::{Installed, LedgerEntry, Phase, Record, ResourceKind},
    grant::{Decisions, Grant},
    reference::ExtensionId,
};

/// A decision as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredGrant {
    /// The permission.
    pub grant: Grant,
    /// Held or denied.
    pub allow: bool,
    /// When, in milliseconds since 1970.
    pub decided_at_ms: i64,
}

/// One line of the audit: a privileged act and what was decided about it.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// Extension that acted or was acted on.
    pub extension: String,
    /// User id of the caller, where known.
    pub uid: Option<u32>,
    /// What was done, such as `host.exec`.
    pub act: &'static str,
    /// To what: a program's name, never its arguments.
    pub subject: String,
    /// `allowed` or the reason of the refusal.
    pub decision: String,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Phase::Installing => "installing",
            Phase::Installed => "installed",
            Phase::Uninstalling => "uninstalling",
        }
    }
}

// === extensions ===

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

/// Forgets images that somebody else answers for now.
fn settle(t: &Transaction<'_>, images: &[String]) -> rusqlite::Result<()> {
    for image in images {
        t.execute("DELETE FROM fetched_image WHERE image = ?1", [image])?;
    }
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
            settle(t, &installed.record.fetched_images)?;
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

// === grants ===

impl Store {
    /// The decisions about an extension, ordered by name.
    pub async fn grants(&self, id: &ExtensionId) -> Result<Vec<StoredGrant>> {
        let id = id.clone();
        let rows: Vec<(String, bool, i64)> = self
            .transaction(move |t| {
                t.prepare_cached("SELECT name, allow, decided_at_ms FROM grants WHERE extension = ?1 ORDER BY name")?
                    .query_map([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                    .collect()
            })
            .await?;
        let read = |(name, allow, decided_at_ms): (String, bool, i64)| {
            Ok(StoredGrant { grant: name.parse()?, allow, decided_at_ms })
        };
        rows.into_iter().map(read).collect()
    }

    /// The decisions about an extension, for checking.
    pub async fn decisions(&self, id: &ExtensionId) -> Result<Decisions> {
        let (allow, deny): (Vec<_>, Vec<_>) = self.grants(id).await?.into_iter().partition(|stored| stored.allow);
        let names = |list: Vec<StoredGrant>| list.into_iter().map(|stored| stored.grant).collect();
        Ok(Decisions { allow: names(allow), deny: names(deny) })
    }

    /// Replaces the decisions about an extension; one that stays the same keeps its time.
    pub async fn set_decisions(&self, id: &ExtensionId, decisions: Decisions) -> Result<()> {
        let id = id.clone();
        self.transaction(move |t| {
            let wanted: Vec<(String, bool)> = (decisions.allow.iter().map(|g| (g.to_string(), true)))
                .chain(decisions.deny.iter().map(|g| (g.to_string(), false)))
                .collect();
            let held: Vec<String> = t
                .prepare_cached("SELECT name FROM grants WHERE extension = ?1")?
                .query_map([id.as_str()], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            for name in held.iter().filter(|name| !wanted.iter().any(|(wanted, _)| wanted == *name)) {
                t.execute("DELETE FROM grants WHERE extension = ?1 AND name = ?2", params![id.as_str(), name])?;
            }
            for (name, allow) in &wanted {
                t.execute(
                    "INSERT INTO grants VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE
                     SET allow = excluded.allow, decided_at_ms = excluded.decided_at_ms WHERE allow != excluded.allow",
                    params![id.as_str(), name, allow, now_ms()],
                )?;
            }
            Ok(())
        })
        .await
    }
}

// === ledger ===

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

fn record_entry(t: &Transaction<'_>, entry: &LedgerEntry) -> rusqlite::Result<()> {
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

// === images under way ===

impl Store {
    /// A random name that this data directory has for good.
    pub async fn broker_id(&self) -> Result<String> {
        self.transaction(|t| {
            t.execute(
                "INSERT INTO broker SELECT lower(hex(randomblob(16))) WHERE NOT EXISTS (SELECT * FROM broker)",
                [],
            )?;
            t.query_row("SELECT id FROM broker", [], |row| row.get(0))
        })
        .await
    }

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
}

// === installs that broke off ===

impl Store {
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

// === audit ===

impl Store {
    /// Writes one line of the audit.
    pub async fn audit(&self, entry: AuditEntry) -> Result<()> {
        self.transaction(move |t| {
            t.execute(
                "INSERT INTO audit (at_ms, extension, uid, act, subject, decision) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![now_ms(), entry.extension, entry.uid, entry.act, entry.subject, entry.decision],
            )?;
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::error::Reason;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("longshore.db")).unwrap();
        (dir, store)
    }

    fn id(text: &str) -> ExtensionId {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_opening_again() {
        let (dir, store) = store();
        let mut installed = store.begin_install(id("a/b"), Record::default()).await.unwrap();
        installed.phase = Phase::Installed;
        installed.record.title = "T".into();
        store.save(&installed).await.unwrap();
        drop(store);
        let store = Store::open(&dir.path().join("longshore.db")).unwrap();
        assert_eq!(store.extension(&id("a/b")).await.unwrap(), Some(installed));
        assert_eq!(store.extensions("a/b", 10).await.unwrap(), vec![]);
    }

    #[tokio::test]
    async fn generations_never_come_twice() {
        let (_dir, store) = store();
        for expected in 1..=3 {
            let installed = store.begin_install(id("a/b"), Record::default()).await.unwrap();
            assert_eq!(installed.generation, expected);
            store.forget(&id("a/b")).await.unwrap();
        }
    }

    #[tokio::test]
    async fn kept_volumes_outlive_their_extension() {
        let (_dir, store) = store();
        let entry = |kind, name: &str, keep| LedgerEntry {
            kind,
            id: name.into(),
            name: name.into(),
            extension: "a/b".into(),
            generation: 1,
            service: String::new(),
            keep,
            first_seen_ms: 1,
        };
        let kept = entry(ResourceKind::Volume, "data", true);
        store.record(vec![kept.clone(), entry(ResourceKind::Container, "c", false)]).await.unwrap();
        store.forget(&id("a/b")).await.unwrap();
        assert_eq!(store.ledger(None).await.unwrap(), vec![kept]);
    }

    #[tokio::test]
    async fn decisions_are_replaced() {
        let (_dir, store) = store();
        let first = Decisions { allow: vec![Grant::EngineFull], deny: vec![Grant::HostExec("rm".into())] };
        store.set_decisions(&id("a/b"), first.clone()).await.unwrap();
        assert_eq!(store.decisions(&id("a/b")).await.unwrap(), first);
        let second = Decisions { allow: vec![Grant::HostExec("rm".into())], deny: vec![] };
        store.set_decisions(&id("a/b"), second.clone()).await.unwrap();
        assert_eq!(store.decisions(&id("a/b")).await.unwrap(), second);
    }

    #[test]
    fn a_damaged_file_is_told_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("longshore.db");
        let garbage = vec![7_u8; 4096];
        std::fs::write(&path, &garbage).unwrap();
        assert_eq!(Store::open(&path).unwrap_err().reason(), Reason::StoreDamaged);
        assert_eq!(std::fs::read(&path).unwrap(), garbage);
    }
}
