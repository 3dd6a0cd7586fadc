//! Connections of one backend that wait for the next request.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{connection::Connection, traffic::Traffic};

/// How many wait at most; more are closed.
const MAX_IDLE: usize = 64;
/// How long one waits. Node.js closes at its end after 5 seconds; to be sooner saves a failure.
const IDLE_TIME: Duration = Duration::from_secs(4);

/// The idle connections of one backend: of one start of it, as it is closed when that is over.
#[derive(Default)]
pub struct Pool {
    shelf: Mutex<Shelf>,
    traffic: Arc<Traffic>,
}

#[derive(Default)]
struct Shelf {
    /// The longest idle first.
    idle: VecDeque<(Instant, Box<Connection>)>,
    has_sweeper: bool,
    is_closed: bool,
}

impl Pool {
    /// One whose bytes are counted there.
    pub fn counted(traffic: Arc<Traffic>) -> Pool {
        Pool { traffic, ..Pool::default() }
    }

    pub(super) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// A connection that the backend has not closed; the last used first, so that a few stay warm and the rest go.
    pub(super) fn take(&self) -> Option<Box<Connection>> {
        loop {
            let (_, connection) = self.lock().idle.pop_back()?;
            if connection.is_silent() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(super) fn put(self: &Arc<Self>, connection: Box<Connection>) {
        let mut shelf = self.lock();
        if shelf.is_closed || shelf.idle.len() >= MAX_IDLE {
            return;
        }
        shelf.idle.push_back((Instant::now() + IDLE_TIME, connection));
        if !std::mem::replace(&mut shelf.has_sweeper, true) {
            tokio::spawn(sweep(Arc::clone(self)));
        }
    }

    /// Closes all that are idle, and those that are in use when they become so.
    pub fn close(&self) {
        let mut shelf = self.lock();
        shelf.is_closed = true;
        shelf.idle.clear();
    }

    /// How many are idle.
    pub fn idle(&self) -> usize {
        self.lock().idle.len()
    }

    /// Closes those whose time is over; when the next one is due.
    fn sweep(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut shelf = self.lock();
        while shelf.idle.front().is_some_and(|(until, _)| *until <= now) {
            shelf.idle.pop_front();
        }
        let next = shelf.idle.front().map(|(until, _)| *until);
        shelf.has_sweeper = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle()).finish()
    }
}

/// Runs only while something is idle.
async fn sweep(pool: Arc<Pool>) {
    while let Some(next) = pool.sweep() {
        sleep_until(next).await;
    }
}
