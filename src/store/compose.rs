//! The Compose that was found last.

use rusqlite::OptionalExtension;

use super::Store;
use crate::model::error::Result;

impl Store {
    /// What was remembered of it.
    pub async fn found_compose(&self) -> Result<Option<String>> {
        self.transaction(|t| t.query_row("SELECT found FROM compose", [], |row| row.get(0)).optional()).await
    }

    /// Remembers it, in the place of another.
    pub async fn remember_compose(&self, found: String) -> Result<()> {
        self.transaction(move |t| {
            t.execute("DELETE FROM compose", [])?;
            t.execute("INSERT INTO compose VALUES (?1)", [found])?;
            Ok(())
        })
        .await
    }
}
