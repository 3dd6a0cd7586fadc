//! The audit.

use std::borrow::Cow;

use rusqlite::{Connection, Row, params};

use super::Store;
use crate::clock::now_ms;
use crate::model::error::Result;

/// A privileged act, what was decided about it, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Extension that acted or was acted on.
    pub extension: String,
    /// The session in which it was asked for.
    pub session: Option<String>,
    /// User id of the caller, where known.
    pub uid: Option<u32>,
    /// What was done, such as `host.exec`.
    pub act: Cow<'static, str>,
    /// To what: a program's name, or its command line without secrets where that is wanted.
    pub subject: String,
    /// `allowed` or the reason of the refusal.
    pub decision: String,
    /// What came of it; empty while that is not known.
    pub result: String,
}

/// One line of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    /// Its number: later lines have higher ones.
    pub id: i64,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// What happened.
    pub entry: AuditEntry,
}

/// Which lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Of this extension only.
    pub extension: Option<String>,
    /// Not before this time, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Before this time.
    pub until_ms: Option<i64>,
    /// Older than this line.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

/// How many lines are kept: the newest.
const KEPT: i64 = 100_000;
/// Longest subject, in bytes; the rest of a longer one is left out.
const MAX_SUBJECT_BYTES: usize = 16 << 10;

impl Store {
    /// Writes one line of the audit and gives its number. It survives the broker, but not the machine's power: no call
    /// waits for the disk to say that somebody ran a program.
    pub async fn audit(&self, entry: AuditEntry) -> Result<i64> {
        self.on_its_thread(move |connection| carelessly(connection, |connection| write(connection, &entry))).await
    }

    /// Adds to a line what came of it. Where the line is gone by now, nothing happens.
    pub async fn audit_result(&self, id: i64, result: String) -> Result<()> {
        let note = move |connection: &mut Connection| {
            let mut update = connection.prepare_cached("UPDATE audit SET result = ?2 WHERE id = ?1")?;
            update.execute(params![id, result]).map(drop)
        };
        self.on_its_thread(move |connection| carelessly(connection, note)).await
    }

    /// Lines of the audit, the newest first.
    pub async fn audited(&self, query: AuditQuery) -> Result<Vec<AuditLine>> {
        self.on_its_thread(move |connection| {
            let AuditQuery { extension, since_ms, until_ms, before, limit } = query;
            let mut select = connection.prepare_cached(
                "SELECT id, at_ms, extension, session, uid, act, subject, decision, result FROM audit
                 WHERE id < coalesce(?1, id + 1) AND extension = coalesce(?2, extension)
                   AND at_ms >= coalesce(?3, at_ms) AND at_ms < coalesce(?4, at_ms + 1)
                 ORDER BY id DESC LIMIT ?5",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let lines = select.query_map(params![before, extension, since_ms, until_ms, limit], line)?;
            lines.collect()
        })
        .await
    }
}

/// Does something without waiting for the disk.
fn carelessly<T>(
    connection: &mut Connection,
    work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let done = work(connection);
    connection.pragma_update(None, "synchronous", "FULL")?;
    done
}

fn write(connection: &mut Connection, entry: &AuditEntry) -> rusqlite::Result<i64> {
    let AuditEntry { extension, session, uid, act, subject, decision, result } = entry;
    let subject = match subject.len() {
        0..=MAX_SUBJECT_BYTES => Cow::Borrowed(subject.as_str()),
        _ => format!("{}…", &subject[..subject.floor_char_boundary(MAX_SUBJECT_BYTES)]).into(),
    };
    let transaction = connection.transaction()?;
    transaction
        .prepare_cached(
            "INSERT INTO audit (at_ms, extension, session, uid, act, subject, decision, result)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![now_ms(), extension, session, uid, act, subject, decision, result])?;
    let id = transaction.last_insert_rowid();
    transaction.prepare_cached("DELETE FROM audit WHERE id <= ?1")?.execute([id - KEPT])?;
    transaction.commit()?;
    Ok(id)
}

fn line(row: &Row<'_>) -> rusqlite::Result<AuditLine> {
    let entry = AuditEntry {
        extension: row.get(2)?,
        session: row.get(3)?,
        uid: row.get(4)?,
        act: row.get::<_, String>(5)?.into(),
        subject: row.get(6)?,
        decision: row.get(7)?,
        result: row.get(8)?,
    };
    Ok(AuditLine { id: row.get(0)?, at_ms: row.get(1)?, entry })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(extension: &str, subject: String) -> AuditEntry {
        AuditEntry {
            extension: extension.into(),
            session: None,
            uid: Some(1000),
            act: "host.exec".into(),
            subject,
            decision: "allowed".into(),
            result: String::new(),
        }
    }

    #[tokio::test]
    async fn lines_are_found_by_whom_when_and_where_they_stand() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("longshore.db")).unwrap();
        for number in 0..6 {
            let owner = if number % 2 == 0 { "a/b" } else { "c/d" };
            assert_eq!(store.audit(entry(owner, number.to_string())).await.unwrap(), number + 1);
        }
        let ids = async |query| -> Vec<i64> {
            store.audited(query).await.unwrap().iter().map(|line: &AuditLine| line.id).collect()
        };
        let all = AuditQuery { limit: 10, ..AuditQuery::default() };
        assert_eq!(ids(all.clone()).await, [6, 5, 4, 3, 2, 1]);
        assert_eq!(ids(AuditQuery { before: Some(5), limit: 2, ..all.clone() }).await, [4, 3]);
        assert_eq!(ids(AuditQuery { extension: Some("c/d".into()), ..all.clone() }).await, [6, 4, 2]);
        let newest = store.audited(all.clone()).await.unwrap()[0].at_ms;
        assert_eq!(ids(AuditQuery { since_ms: Some(newest + 1), ..all.clone() }).await.len(), 0);
        assert_eq!(ids(AuditQuery { until_ms: Some(newest + 1), ..all.clone() }).await.len(), 6);
        assert!(!ids(AuditQuery { until_ms: Some(newest), ..all.clone() }).await.contains(&6));
    }

    #[tokio::test]
    async fn a_line_is_told_what_came_of_it_and_does_not_grow_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("longshore.db")).unwrap();
        let id = store.audit(entry("a/b", "ö".repeat(MAX_SUBJECT_BYTES))).await.unwrap();
        store.audit_result(id, "code 0".into()).await.unwrap();
        store.audit_result(id + 1, "of nothing".into()).await.unwrap();
        let lines = store.audited(AuditQuery { limit: 10, ..AuditQuery::default() }).await.unwrap();
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((line.entry.result.as_str(), line.entry.uid, &line.entry.session), ("code 0", Some(1000), &None));
        assert_eq!(line.entry.subject, format!("{}…", "ö".repeat(MAX_SUBJECT_BYTES / 2)));
    }
}
