//! What extensions may do.

use rusqlite::{Transaction, params};

use super::{Store, damaged};
use crate::clock::now_ms;
use crate::model::{
    error::{Error, Result},
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

impl Store {
    /// The decisions about an extension, ordered by name.
    pub async fn grants(&self, id: &ExtensionId) -> Result<Vec<StoredGrant>> {
        let id = id.clone();
        self.transaction(move |t| stored(t, &id)).await
    }

    /// The decisions about an extension, for checking.
    pub async fn decisions(&self, id: &ExtensionId) -> Result<Decisions> {
        if let Some(known) = self.known(id).await? {
            return Ok(known.decisions.clone());
        }
        let id = id.clone();
        self.transaction(move |t| decisions(t, &id)).await
    }

    /// Replaces the decisions about an extension; one that stays the same keeps its time.
    pub async fn set_decisions(&self, id: &ExtensionId, decisions: Decisions) -> Result<()> {
        let id = id.clone();
        self.transaction(move |t| replace(t, &id, &decisions)).await
    }
}

fn stored(t: &Transaction<'_>, id: &ExtensionId) -> rusqlite::Result<Vec<StoredGrant>> {
    t.prepare_cached("SELECT name, allow, decided_at_ms FROM grants WHERE extension = ?1 ORDER BY name")?
        .query_map([id.as_str()], |row| {
            let name: String = row.get(0)?;
            let grant = name.parse().map_err(|e: Error| damaged(0, e.to_string()))?;
            Ok(StoredGrant { grant, allow: row.get(1)?, decided_at_ms: row.get(2)? })
        })?
        .collect()
}

/// The same, for checking.
pub(super) fn decisions(t: &Transaction<'_>, id: &ExtensionId) -> rusqlite::Result<Decisions> {
    let (allow, deny): (Vec<_>, Vec<_>) = stored(t, id)?.into_iter().partition(|stored| stored.allow);
    let names = |list: Vec<StoredGrant>| list.into_iter().map(|stored| stored.grant).collect();
    Ok(Decisions { allow: names(allow), deny: names(deny) })
}

/// Replaces the decisions about an extension.
pub(super) fn replace(t: &Transaction<'_>, id: &ExtensionId, decisions: &Decisions) -> rusqlite::Result<()> {
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
}
