//! Who is looked at when: what was told is gathered, several are looked at at once, and one that cannot be brought in line
//! is tried ever more rarely.

use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::Notify,
    task::{JoinError, JoinSet},
    time::Instant,
};
use tracing::Instrument;

use crate::{core::Broker, model::reference::ExtensionId};

/// Extensions that are looked at, and brought in line, at once.
const MAX_LOOKS: usize = 8;
/// Time between two attempts to bring the same one in line, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// Who is to be looked at.
#[derive(Debug, Default)]
pub(in crate::core) struct Reconciler {
    due: Mutex<Due>,
    woken: Notify,
    /// How often it looked at an extension.
    pub(in crate::core) looks: AtomicU64,
    /// How much it did of itself.
    pub(in crate::core) acts: AtomicU64,
}

/// Who was told of since it was asked last.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) all: bool,
    pub(super) some: HashSet<ExtensionId>,
    /// The engine was away, or the broker.
    pub(super) all_afresh: bool,
    /// Those that stood still.
    pub(super) some_afresh: HashSet<ExtensionId>,
}

impl Reconciler {
    /// All of them.
    pub(in crate::core) fn all(&self) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).all = true;
        self.woken.notify_one();
    }

    /// All of them; what ran before runs again, whoever else would start it.
    pub(in crate::core) fn all_afresh(&self) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).all_afresh = true;
        self.all();
    }

    /// One of them; what ran before runs again.
    pub(in crate::core) fn one_afresh(&self, id: ExtensionId) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).some_afresh.insert(id.clone());
        self.some([id]);
    }

    /// Some of them.
    pub(in crate::core) fn some(&self, some: impl IntoIterator<Item = ExtensionId>) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.some.extend(some);
        if !due.some.is_empty() {
            self.woken.notify_one();
        }
    }

    /// Waits until somebody is to be looked at, at the latest then.
    pub(super) async fn come_due(&self, soonest: Option<Instant>) {
        match soonest {
            Some(at) => tokio::select! {
                () = self.woken.notified() => {}
                () = tokio::time::sleep_until(at) => {}
            },
            None => self.woken.notified().await,
        }
    }

    pub(super) fn take(&self) -> Due {
        std::mem::take(&mut *self.due.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The looks at extensions: several at once, so that one whose engine takes its time keeps no other waiting.
#[derive(Debug, Default)]
pub(super) struct Looks {
    pub(super) going: JoinSet<(ExtensionId, Look)>,
    /// At whom.
    busy: HashSet<ExtensionId>,
    /// Who comes next; of those that are being looked at, who is to be looked at once more.
    pub(super) waiting: HashSet<ExtensionId>,
    /// When one is looked at again though nothing is told of it.
    pub(super) again: HashMap<ExtensionId, Instant>,
    patience: Patience,
    /// What ran of them before runs again, whoever else would start it.
    pub(super) afresh: HashSet<ExtensionId>,
}

/// What came of a look.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) next: Next,
    /// What ran before was started again where it had ended.
    pub(super) ran_afresh: bool,
}

/// When one is looked at again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Next {
    /// Not at all: there is none.
    Gone,
    /// When something is told of it.
    Told,
    /// After that time.
    In(Duration),
    /// All is well with it; perhaps there is something to be done yet.
    Well(Option<Duration>),
    /// Something was tried: after a while that grows.
    Spent,
}

impl Looks {
    /// Looks at those who wait, as many as may be at once.
    pub(super) fn begin(&mut self, broker: &Arc<Broker>) {
        let free = self.waiting.iter().filter(|id| !self.busy.contains(*id));
        let now: Vec<_> = free.take(MAX_LOOKS.saturating_sub(self.busy.len())).cloned().collect();
        for id in now {
            self.waiting.remove(&id);
            self.again.remove(&id);
            self.busy.insert(id.clone());
            let (broker, pause, afresh) = (broker.clone(), self.patience.left(&id), self.afresh.contains(&id));
            broker.reconciler.looks.fetch_add(1, Relaxed);
            let span = tracing::info_span!("look", extension = %id);
            let look = async move {
                let look = AssertUnwindSafe(broker.look_after(&id, pause, afresh)).catch_unwind().await;
                (id, look.unwrap_or_else(|_| broken_off()))
            };
            self.going.spawn(look.instrument(span));
        }
    }

    /// Notes what came of a look.
    pub(super) fn end(&mut self, ended: Result<(ExtensionId, Look), JoinError>) {
        let (id, look) = match ended {
            Ok(ended) => ended,
            Err(error) => return tracing::debug!(%error, "a look at an extension was called off"),
        };
        self.busy.remove(&id);
        if look.ran_afresh {
            self.afresh.remove(&id);
        }
        let pause = match look.next {
            Next::Gone => {
                self.patience.forget(&id);
                self.afresh.remove(&id);
                None
            }
            Next::Told => None,
            Next::In(pause) => Some(pause),
            Next::Well(pause) => {
                self.patience.forget(&id);
                pause
            }
            Next::Spent => Some(self.patience.spent(&id)),
        };
        self.again.extend(pause.map(|pause| (id, Instant::now() + pause)));
    }
}

/// What comes of a look that met a bug: another one, later.
fn broken_off() -> Look {
    tracing::error!("a look at an extension broke off");
    Look { next: Next::Spent, ran_afresh: false }
}

/// How soon an extension may be brought in line again: one that cannot be must not keep the engine busy.
#[derive(Debug, Default)]
struct Patience(HashMap<ExtensionId, (Instant, Duration)>);

impl Patience {
    /// How long is to be waited still, if at all.
    fn left(&self, id: &ExtensionId) -> Option<Duration> {
        let (until, _) = self.0.get(id)?;
        Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// Something was tried; tells how long to wait now.
    fn spent(&mut self, id: &ExtensionId) -> Duration {
        let (first, most) = PAUSES;
        let pause = self.0.get(id).map_or(first, |(_, pause)| (*pause * 2).min(most));
        self.0.insert(id.clone(), (Instant::now() + pause, pause));
        pause
    }

    fn forget(&mut self, id: &ExtensionId) {
        self.0.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_become_rare() {
        let (mut patience, id) = (Patience::default(), "a/b".parse().unwrap());
        assert_eq!(patience.left(&id), None);
        let pauses: Vec<_> = (0..10).map(|_| patience.spent(&id).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert!(patience.left(&id).is_some());
        patience.forget(&id);
        assert_eq!(patience.left(&id), None);
    }
}
