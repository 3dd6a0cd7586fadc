//! What must survive a `kill -9`: a SQLite database in the data directory (design section 9).
//!
//! One thread owns the connection; calls are closures sent to it, so nothing blocks the runtime and every call is one
//! transaction. `synchronous=FULL`: what a call has answered is on the disk, but for the audit.

mod audit;
mod compose;
mod copy;
mod creates;
mod events;
mod extensions;
mod grants;
mod journal;
mod known;
mod ledger;
mod leftovers;
#[cfg_attr(windows, path = "private_windows.rs")]
mod private;
#[cfg(test)]
mod property_tests;
mod schema;
#[cfg(test)]
mod schema_tests;
mod squeezed;

use std::{
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
    thread,
    time::Instant,
};

use rusqlite::{Connection, ErrorCode, Transaction};
use tokio::sync::{mpsc, oneshot};

use crate::{
    model::{
        error::{Error, Reason, Result},
        event::{Event, Stored},
        shell,
    },
    times::{Counted, Times},
};

pub use audit::{AuditEntry, AuditLine, AuditQuery};
pub use copy::StoreCopy;
pub use creates::OpenCreate;
pub use grants::StoredGrant;
pub use known::Known;
pub use leftovers::Broken;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle on the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    path: Arc<Path>,
    memory: Arc<known::Memory>,
    /// How long transactions took that changed something.
    writes: Arc<Times>,
    /// Who is told of every event, once it is on the disk and before its caller is answered.
    listener: Arc<OnceLock<Listener>>,
}

type Listener = Box<dyn Fn(Stored) + Send + Sync>;

/// Calls that may wait for the store's thread; the next one waits for a place.
const QUEUE_LENGTH: usize = 256;

impl Store {
    /// Opens the database, creating or migrating it.
    ///
    /// # Errors
    ///
    /// `STORE_DAMAGED` where the file is no sound database (it is left as it is), `STORE_NEWER`, `STORE_UNWRITABLE`.
    pub fn open(path: &Path) -> Result<Store> {
        check_writable(path)?;
        private::close_to_others(path).map_err(|error| {
            let message = format!("{}: setting its mode: {error}", path.display());
            Error::new(Reason::StoreUnwritable, path.display().to_string(), message).caused_by(error)
        })?;
        Store::open_as(path, path)
    }

    /// Opens what lies at `path` and is spoken of as `path_told`.
    fn open_as(path: &Path, path_told: &Path) -> Result<Store> {
        let mut connection = Connection::open(path).map_err(|e| failed(path_told, e))?;
        if let schema::Schema::Newer(version) = schema::prepare(&mut connection).map_err(|e| failed(path_told, e))? {
            let shown = path_told.display().to_string();
            let message = format!("{shown} was written by a newer longshore (schema {version}); use that one");
            return Err(Error::new(Reason::StoreNewer, shown, message));
        }
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_LENGTH);
        thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut connection);
                }
            })
            .map_err(|e| Error::new(Reason::LimitReached, "store", "cannot start the store's thread").caused_by(e))?;
        let (memory, writes, listener) = Default::default();
        Ok(Store { jobs, path: path_told.into(), memory, writes, listener })
    }

    /// Has `listener` told of every event from now on, in the order in which they were written. It must not wait.
    pub fn listen(&self, listener: impl Fn(Stored) + Send + Sync + 'static) {
        let _ = self.listener.set(Box::new(listener));
    }

    /// How long transactions took that changed something, on the store's thread.
    pub fn writes(&self) -> Counted {
        self.writes.counted()
    }

    /// Looks through the whole database.
    ///
    /// # Errors
    ///
    /// `STORE_DAMAGED`.
    pub async fn check(&self) -> Result<()> {
        let found: String = self.transaction(|t| t.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))).await?;
        if found != "ok" {
            return Err(failed(&self.path, damaged(0, found)));
        }
        // What cannot be read back is damage too.
        for installed in self.extensions("", usize::MAX).await? {
            self.grants(&installed.id).await?;
        }
        self.ledger(None).await?;
        self.open_creates(None).await?;
        self.left_squeezed(String::new()).await?;
        self.found_compose().await.map(drop)
    }

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

    /// Runs one transaction.
    async fn transaction<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.telling(move |t| Ok((work(t)?, None))).await
    }

    /// Runs one transaction that makes something happen, which is written in it and told after it.
    async fn telling<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<(T, Option<Event>)> + Send + 'static,
    {
        let (listener, memory, writes) = (self.listener.clone(), self.memory.clone(), self.writes.clone());
        self.on_its_thread(move |connection| {
            let (before, begun) = (connection.total_changes(), Instant::now());
            let transaction = connection.transaction()?;
            let (value, event) = work(&transaction)?;
            let stored = event.map(|event| events::write(&transaction, event)).transpose()?;
            transaction.commit()?;
            if connection.total_changes() != before {
                memory.clear();
                writes.count(begun.elapsed());
            }
            if let (Some(stored), Some(listener)) = (stored, listener.get()) {
                listener(stored);
            }
            Ok(value)
        })
        .await
    }

    /// Has the store's thread do something, after what others have asked for.
    async fn on_its_thread<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // The caller may have gone; what was committed stays committed.
            let _ = answer.send(work(connection));
        });
        let gone = || Error::bug("the store's thread has ended");
        self.jobs.send(job).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?.map_err(|e| failed(&self.path, e))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Looks before SQLite does: that would lay files beside a database which it may not write, with the same rights, and these
/// would stay when the user has mended them.
fn check_writable(path: &Path) -> Result<()> {
    match std::fs::OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let path = path.display().to_string();
            let message = format!("{path} cannot be written: {error}");
            Err(Error::new(Reason::StoreUnwritable, path, message).caused_by(error))
        }
        _ => Ok(()),
    }
}

/// What stands in a column cannot be what a broker wrote.
fn damaged(column: usize, why: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, why.into())
}

fn failed(path: &Path, error: rusqlite::Error) -> Error {
    let reason = match error.sqlite_error_code() {
        None if matches!(error, rusqlite::Error::FromSqlConversionFailure(..)) => Reason::StoreDamaged,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Reason::StoreDamaged,
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::DiskFull
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::SystemIoFailure,
        ) => Reason::StoreUnwritable,
        _ => Reason::Bug,
    };
    let message = match reason {
        Reason::StoreDamaged => {
            format!(
                "{} is damaged ({error}); it was left as it is: restore a copy of it, or run `{}`",
                path.display(),
                shell::repair(path.parent().unwrap_or(Path::new("/")))
            )
        }
        Reason::StoreUnwritable => format!("{} cannot be written: {error}", path.display()),
        _ => format!("{}: {error}", path.display()),
    };
    Error::new(reason, path.display().to_string(), message).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        extension::{LedgerEntry, Maker, OwnerSource, Record, ResourceKind},
        grant::{Decisions, Grant},
        reference::ExtensionId,
    };

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
        installed.record.title = "T".into();
        store.finish_install(&installed).await.unwrap();
        installed.change = None;
        drop(store);
        let store = Store::open(&dir.path().join("longshore.db")).unwrap();
        assert_eq!(store.extension(&id("a/b")).await.unwrap(), Some(installed));
        assert_eq!(store.extensions("a/b", 10).await.unwrap(), vec![]);
    }

    #[tokio::test]
    async fn what_is_remembered_is_what_was_written_last() {
        let (_dir, store) = store();
        let installed = store.begin_install(id("a/b"), Record::default()).await.unwrap();
        store.finish_install(&installed).await.unwrap();
        let before = store.known(&id("a/b")).await.unwrap().unwrap();
        let again = store.known(&id("a/b")).await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&before, &again));
        let decisions = Decisions { allow: vec![Grant::EngineFull], deny: vec![] };
        store.set_decisions(&id("a/b"), decisions.clone()).await.unwrap();
        assert_eq!(store.known(&id("a/b")).await.unwrap().unwrap().decisions, decisions);
        store.forget(&id("a/b")).await.unwrap();
        assert_eq!(store.known(&id("a/b")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn any_number_of_calls_waits_for_its_turn() {
        let (_dir, store) = store();
        let entry = AuditEntry {
            extension: "a/b".into(),
            session: None,
            uid: None,
            act: "host.exec".into(),
            subject: "tool".into(),
            decision: "allowed".into(),
            result: String::new(),
        };
        let calls = (0..4 * QUEUE_LENGTH).map(|_| store.audit(entry.clone()));
        for written in futures_util::future::join_all(calls).await {
            written.unwrap();
        }
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
            source: OwnerSource::Created,
            maker: Maker::Broker,
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
