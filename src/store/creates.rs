//! What extensions are having the engine make through their gateways: on record before, until it is known what came of it.

use rusqlite::{Row, params};

use super::{Store, ledger::record_entry};
use crate::model::{
    error::Result,
    extension::{LedgerEntry, ResourceKind},
    reference::ExtensionId,
};

/// Something that an extension asked the engine for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCreate {
    /// The value of a label that nothing else has.
    pub nonce: String,
    /// Who asked.
    pub extension: String,
    /// The generation that asked.
    pub generation: i64,
    /// What was asked for.
    pub kind: ResourceKind,
    /// Volumes that come into being with a container, by name.
    pub volumes: Vec<String>,
    /// Whether a container was to have volumes of others, which are not its own.
    pub borrows: bool,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

/// Parts the names of volumes, which hold no such byte.
const SEPARATOR: char = '\n';

fn open_create(row: &Row<'_>) -> rusqlite::Result<OpenCreate> {
    let kind: String = row.get(3)?;
    let volumes: String = row.get(4)?;
    Ok(OpenCreate {
        nonce: row.get(0)?,
        extension: row.get(1)?,
        generation: row.get(2)?,
        kind: ResourceKind::from_name(&kind).ok_or_else(|| {
            rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, "no such kind".into())
        })?,
        volumes: volumes.split(SEPARATOR).filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect(),
        borrows: row.get(5)?,
        at_ms: row.get(6)?,
    })
}

impl Store {
    /// Records that something is about to be made.
    pub async fn open_create(&self, create: OpenCreate) -> Result<()> {
        self.transaction(move |t| {
            t.execute(
                "INSERT INTO open_create VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    create.nonce,
                    create.extension,
                    create.generation,
                    create.kind.as_str(),
                    create.volumes.join(&SEPARATOR.to_string()),
                    create.borrows,
                    create.at_ms
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// Records what came of it, which may be nothing.
    pub async fn settle_create(&self, nonce: String, made: Vec<LedgerEntry>) -> Result<()> {
        self.transaction(move |t| {
            t.execute("DELETE FROM open_create WHERE nonce = ?1", [nonce])?;
            made.iter().try_for_each(|entry| record_entry(t, entry))
        })
        .await
    }

    /// What it is not known of what came of it, of one extension or all.
    pub async fn open_creates(&self, extension: Option<&ExtensionId>) -> Result<Vec<OpenCreate>> {
        let extension = extension.map(|id| id.as_str().to_owned());
        self.transaction(move |t| {
            t.prepare_cached("SELECT * FROM open_create WHERE ?1 IS NULL OR extension = ?1 ORDER BY at_ms")?
                .query_map([extension], open_create)?
                .collect()
        })
        .await
    }
}
