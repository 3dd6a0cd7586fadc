//! How much there is of everything, for metrics.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::{Broker, State};
use crate::{exec::ExecCounts, times::Counted};

/// How long the states of all extensions may take to be seen.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// How much there is, and was.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// How many extensions are in each state; `None` where they could not be seen in time.
    pub states: Option<[(State, usize); State::ALL.len()]>,
    /// Whether the engine answers, as it was last seen.
    pub is_engine_there: bool,
    /// Looks of the reconciler at single extensions.
    pub looks: u64,
    /// What it did of itself to bring them in line.
    pub acts: u64,
    /// Who watches events.
    pub event_watchers: usize,
    /// Open sessions.
    pub sessions: usize,
    /// Leases of backends that have registered.
    pub registrations: usize,
    /// Open connections to backends: over HTTP/1.1 those that wait for a call, over HTTP/2 all.
    pub pooled: usize,
    /// Bytes that backends were sent.
    pub sent_bytes: u64,
    /// Bytes that backends sent.
    pub received_bytes: u64,
    /// Programs.
    pub execs: ExecCounts,
    /// Bytes of answers that are held whole, and how many there may be.
    pub held_bytes: (u64, u64),
    /// Writes of the store.
    pub writes: Counted,
}

impl Stats {
    /// That of two brokers of one process together. What answers they hold is one number for all.
    pub(super) fn and(self, other: Stats) -> Stats {
        let states = self.states.zip(other.states);
        let states = states.map(|(ours, theirs)| std::array::from_fn(|at| (ours[at].0, ours[at].1 + theirs[at].1)));
        Stats {
            states,
            is_engine_there: self.is_engine_there || other.is_engine_there,
            looks: self.looks + other.looks,
            acts: self.acts + other.acts,
            event_watchers: self.event_watchers + other.event_watchers,
            sessions: self.sessions + other.sessions,
            registrations: self.registrations + other.registrations,
            pooled: self.pooled + other.pooled,
            sent_bytes: self.sent_bytes + other.sent_bytes,
            received_bytes: self.received_bytes + other.received_bytes,
            execs: self.execs.and(other.execs),
            held_bytes: self.held_bytes,
            writes: self.writes.and(&other.writes),
        }
    }
}

impl Broker {
    /// How much there is now.
    pub async fn stats(&self) -> Stats {
        let traffic = self.pools.traffic();
        Stats {
            states: self.count_states().await,
            is_engine_there: self.presence.is_there(),
            looks: self.reconciler.looks.load(Relaxed),
            acts: self.reconciler.acts.load(Relaxed),
            event_watchers: self.events.watchers(),
            sessions: self.open_sessions(None).len(),
            registrations: self.registrations.count(),
            pooled: self.pools.open(),
            sent_bytes: traffic.sent(),
            received_bytes: traffic.received(),
            execs: self.hub.counts(),
            held_bytes: (self.limits.exchange.memory.taken(), self.limits.exchange.memory.most()),
            writes: self.store.writes(),
        }
    }

    async fn count_states(&self) -> Option<[(State, usize); State::ALL.len()]> {
        let seen = tokio::time::timeout(LOOK_LIMIT, self.views("", usize::MAX)).await;
        let views = seen.ok()?.ok()?;
        let count = |state| views.iter().filter(|view| view.observed.state == state).count();
        Some(State::ALL.map(|state| (state, count(state))))
    }
}
