//! All execs that live, so that they are listed, found, and ended together.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures_util::future::join_all;
use tokio_util::task::TaskTracker;

use super::{
    execution::{ExecInfo, ExecView, Execution},
    program::{Cause, Exit},
};

/// The living.
#[derive(Default)]
pub(super) struct Living {
    executions: Mutex<HashMap<String, Arc<Execution>>>,
    listener: OnceLock<Listener>,
    begun: AtomicU64,
    /// What sees to the end of trees, until nothing of that is left to do.
    pub(super) seen_to: TaskTracker,
    /// Those whose tree was told to end.
    ended: AtomicU64,
    survivors: AtomicU64,
}

/// How many execs there were and are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExecCounts {
    /// That began.
    pub begun: u64,
    /// That live: their call goes on, or their tree outlived it.
    pub living: usize,
    /// Whose tree was told to end, whatever the cause.
    pub ended: u64,
    /// Processes that could not be killed.
    pub survivors: u64,
}

impl ExecCounts {
    /// Those of two hubs together.
    #[must_use]
    pub fn and(self, other: ExecCounts) -> Self {
        ExecCounts {
            begun: self.begun + other.begun,
            living: self.living + other.living,
            ended: self.ended + other.ended,
            survivors: self.survivors + other.survivors,
        }
    }
}

/// Is told of an exec that came, or that is gone.
type Listener = Box<dyn Fn(&ExecInfo, Life<'_>) + Send + Sync>;

/// What a listener is told of an exec.
#[derive(Debug, Clone, Copy)]
pub enum Life<'a> {
    /// It came.
    Begun,
    /// It is gone, with its tree, as far as that can be known; how its program ended, where that is known.
    Gone(Option<&'a Exit>),
}

/// Whose execs are meant.
#[derive(Debug, Clone, Copy)]
pub enum ExecFilter<'a> {
    /// Everybody's.
    All,
    /// One owner's.
    Owner(&'a str),
    /// One session's.
    Session(&'a str),
}

/// What came of ending several trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// How many trees there were.
    pub trees: usize,
    /// How many of them are not known to be gone.
    pub unfinished: usize,
    /// How many processes are left in those that could be counted.
    pub survivors: u64,
}

impl Living {
    /// Has `listener` told of every exec that comes or goes from now on. It must neither wait nor ask for execs.
    pub(super) fn listen(&self, listener: impl Fn(&ExecInfo, Life<'_>) + Send + Sync + 'static) {
        let _ = self.listener.set(Box::new(listener));
    }

    pub(super) fn enter(&self, execution: &Arc<Execution>) {
        self.lock().insert(execution.info.id.clone(), execution.clone());
        self.begun.fetch_add(1, Relaxed);
        self.tell(&execution.info, Life::Begun);
    }

    pub(super) fn remove(&self, info: &ExecInfo, exit: Option<&Exit>) {
        if self.lock().remove(&info.id).is_some() {
            self.tell(info, Life::Gone(exit));
        }
    }

    fn tell(&self, info: &ExecInfo, life: Life<'_>) {
        if let Some(listener) = self.listener.get() {
            listener(info, life);
        }
    }

    /// Notes that a tree was told to end.
    pub(super) fn note_ended(&self) {
        self.ended.fetch_add(1, Relaxed);
    }

    /// Notes processes that could not be killed.
    pub(super) fn note_survivors(&self, count: u64) {
        self.survivors.fetch_add(count, Relaxed);
    }

    pub(super) fn counts(&self) -> ExecCounts {
        ExecCounts {
            begun: self.begun.load(Relaxed),
            living: self.lock().len(),
            ended: self.ended.load(Relaxed),
            survivors: self.survivors.load(Relaxed),
        }
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Execution>> {
        self.lock().get(id).cloned()
    }

    /// Those that are meant, the oldest first.
    pub(super) fn list(&self, filter: ExecFilter<'_>) -> Vec<ExecView> {
        let mut views: Vec<_> = self.select(filter).iter().map(|execution| execution.view()).collect();
        views.sort_by(|a, b| (a.info.began, &a.info.id).cmp(&(b.info.began, &b.info.id)));
        views
    }

    /// Ends those that are meant, all at once, and waits until they are gone.
    pub(super) async fn end(&self, filter: ExecFilter<'_>, cause: Cause) -> Left {
        let executions = self.select(filter);
        executions.iter().for_each(|execution| execution.end(cause));
        join_all(executions.iter().map(|execution| execution.gone())).await;
        let mut left = Left { trees: executions.len(), ..Left::default() };
        for execution in &executions {
            match execution.termination().map(|termination| termination.survivors) {
                Some(Some(survivors)) => {
                    left.survivors += survivors;
                    left.unfinished += usize::from(survivors > 0);
                }
                Some(None) => left.unfinished += 1,
                None => {}
            }
        }
        left
    }

    pub(super) fn count_left_over(&self, owner: &str) -> usize {
        self.select(ExecFilter::Owner(owner)).iter().filter(|execution| execution.is_left_over()).count()
    }

    fn select(&self, filter: ExecFilter<'_>) -> Vec<Arc<Execution>> {
        let is_meant = |execution: &&Arc<Execution>| match filter {
            ExecFilter::All => true,
            ExecFilter::Owner(owner) => execution.info.owner == owner,
            ExecFilter::Session(session) => execution.info.session.as_deref() == Some(session),
        };
        self.lock().values().filter(is_meant).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Execution>>> {
        self.executions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Living {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Living").field("executions", &self.executions).finish_non_exhaustive()
    }
}
