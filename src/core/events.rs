//! Tells those who watch what happens to extensions, without a gap: what the store holds is told in the order in which it
//! was written, what is merely observed in between.
//!
//! A place in the stream is {store, stored number, run, number in memory}. In the same run it is found in memory; after a
//! restart what was stored since is told, and the present states as observed late. Where that does not reach, the watcher
//! is told so, and lists anew.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{
    Broker, Observed, View,
    ring::{Lost, Ring},
    state::State,
};
use crate::{
    clock::now_ms,
    model::{
        error::{Error, Reason, Result},
        event::{Event, Stored, What},
        extension::Installed,
        journal::ChangeKind,
        reference::ExtensionId,
    },
    store::Store,
};

/// Events that are held in memory for those who read slowly or come back.
const MAX_HELD: usize = 10_000;

/// Where everything that happens comes together.
#[derive(Debug)]
pub(super) struct Events {
    store_id: String,
    run: String,
    told: Ring<Told>,
    last: Mutex<Last>,
}

/// What was told last.
#[derive(Debug, Default)]
struct Last {
    /// The stored number of the newest event that is stored.
    stored: i64,
    /// What was told of each extension last, with its generation.
    observed: HashMap<String, (i64, State, &'static str)>,
}

/// An event with its place.
#[derive(Debug)]
pub struct Told {
    /// What happened.
    pub event: Event,
    number: u64,
    stored: i64,
}

/// A place in the stream: behind an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    number: u64,
    stored: i64,
}

impl Events {
    /// Begins to hold what `store` tells.
    pub(super) async fn of(store: &Store, run: &str) -> Result<Arc<Self>> {
        let last = Last { stored: store.newest_event().await?, ..Last::default() };
        let events = Arc::new(Events {
            store_id: store.broker_id().await?,
            run: run.to_owned(),
            told: Ring::new(MAX_HELD),
            last: Mutex::new(last),
        });
        let weak = Arc::downgrade(&events);
        store.listen(move |stored| {
            if let Some(events) = weak.upgrade() {
                events.tell_stored(stored);
            }
        });
        Ok(events)
    }

    /// How many watch.
    pub(super) fn watchers(&self) -> usize {
        self.told.watchers()
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_stored(&self, Stored { sequence, event }: Stored) {
        let mut last = self.lock();
        last.stored = sequence;
        // Whatever was observed before is not known to hold any more: the next look tells.
        last.observed.remove(&event.extension);
        self.push(&last, event);
    }

    /// Tells what an extension was seen to do, where that is not what was told last.
    pub(super) fn tell_observed(&self, installed: &Installed, observed: &Observed, late: bool) {
        // The journal's own events say these.
        if matches!(installed.changing(), Some(ChangeKind::Install | ChangeKind::Update | ChangeKind::Uninstall)) {
            return;
        }
        let mut last = self.lock();
        let now = (installed.generation, observed.state, observed.reason);
        if last.observed.insert(installed.id.to_string(), now) != Some(now) {
            self.push(&last, state_event(installed, observed, late));
        }
    }

    fn push(&self, last: &Last, event: Event) {
        self.told.push(|number| Told { event, number, stored: last.stored });
    }

    fn now(&self) -> Place {
        let last = self.lock();
        Place { number: self.told.newest(), stored: last.stored }
    }

    /// The token of a place in a run.
    fn token(&self, run: &str, place: Place) -> String {
        format!("{}.{}.{run}.{}", self.store_id, place.stored, place.number)
    }

    /// The token of this moment: whatever is told from now on is behind it.
    pub(super) fn token_now(&self) -> String {
        self.token(&self.run, self.now())
    }

    /// Reads a token: its place, and the run that it is of.
    ///
    /// # Errors
    ///
    /// `RESUME_TOKEN_EXPIRED`.
    fn place<'a>(&self, token: &'a str) -> Result<(Place, &'a str)> {
        let parts: Vec<&str> = token.split('.').collect();
        let [store_id, stored, run, number] = parts[..] else { return Err(expired()) };
        let (Ok(stored), Ok(number)) = (stored.parse(), number.parse()) else { return Err(expired()) };
        let place = Place { stored, number };
        if store_id != self.store_id || run == self.run && number > self.now().number {
            return Err(expired());
        }
        Ok((place, run))
    }
}

/// What an extension was seen to do.
fn state_event(installed: &Installed, observed: &Observed, late: bool) -> Event {
    Event {
        extension: installed.id.to_string(),
        generation: installed.generation,
        version: installed.record.version.clone(),
        what: What::State {
            state: observed.state.name().to_owned(),
            reason: observed.reason.to_owned(),
            message: observed.message.clone(),
        },
        at_ms: now_ms(),
        observed_late: late,
    }
}

pub(super) fn expired() -> Error {
    let message = "what happened since that token is not known any more; list, and watch from the token of the list";
    Error::new(Reason::ResumeTokenExpired, "resume_token", message)
}

/// Watches the stream from some place on.
#[derive(Debug)]
pub struct Watch {
    events: Arc<Events>,
    extension: Option<String>,
    /// Told before anything of this run.
    backlog: VecDeque<Arc<Told>>,
    /// The run that the watcher came from. Until the backlog is told, it is still there.
    from_run: String,
    /// The number of the event that was told last.
    seen: u64,
    /// The stored number that belongs to it.
    stored: i64,
    newest: watch::Receiver<u64>,
}

impl Watch {
    /// The next event.
    ///
    /// # Errors
    ///
    /// `RESUME_TOKEN_EXPIRED` where the watcher has fallen too far behind.
    pub async fn next(&mut self) -> Result<Arc<Told>> {
        loop {
            let told = match self.backlog.pop_front() {
                Some(told) => told,
                None => {
                    self.newest.borrow_and_update();
                    match self.events.told.after(self.seen).map_err(|_: Lost| expired())? {
                        Some(told) => told,
                        None => {
                            // The sender lives as long as we hold `events`.
                            let _ = self.newest.changed().await;
                            continue;
                        }
                    }
                }
            };
            (self.seen, self.stored) = (told.number.max(self.seen), told.stored);
            if self.extension.as_ref().is_none_or(|extension| *extension == told.event.extension) {
                return Ok(told);
            }
        }
    }

    /// The token of the place behind what was told so far.
    pub fn token(&self) -> String {
        let run = if self.backlog.is_empty() { &self.events.run } else { &self.from_run };
        self.events.token(run, Place { number: self.seen, stored: self.stored })
    }
}

impl Broker {
    /// The place in the stream of events where it is now: taken before a list is made, nothing is missed behind the list.
    pub fn event_token(&self) -> String {
        self.events.token_now()
    }

    /// Watches what happens, from a token on or from now on.
    ///
    /// # Errors
    ///
    /// `RESUME_TOKEN_EXPIRED`.
    pub async fn watch_events(&self, token: Option<&str>, extension: Option<&ExtensionId>) -> Result<Watch> {
        let events = self.events.clone();
        let newest = events.told.subscribe();
        let extension = extension.map(ToString::to_string);
        let now = events.now();
        let (from_run, backlog) = (events.run.clone(), VecDeque::new());
        let mut watch = Watch { events, extension, backlog, from_run, seen: now.number, stored: now.stored, newest };
        let Some(token) = token else { return Ok(watch) };
        let (place, run) = watch.events.place(token)?;
        (watch.seen, watch.stored) = (place.number, place.stored);
        if run == watch.events.run {
            return Ok(watch);
        }
        run.clone_into(&mut watch.from_run);
        watch.seen = now.number;
        let missed = self.store.events_after(place.stored).await?.ok_or_else(expired)?;
        // What is stored while this is read comes from memory.
        for Stored { sequence, event } in missed.into_iter().filter(|stored| stored.sequence <= now.stored) {
            let event = Event { observed_late: true, ..event };
            watch.backlog.push_back(Arc::new(Told { event, number: now.number, stored: sequence }));
        }
        for View { installed, observed, .. } in self.views("", usize::MAX).await? {
            if installed.change.is_none() {
                let event = state_event(&installed, &observed, true);
                watch.backlog.push_back(Arc::new(Told { event, number: now.number, stored: now.stored }));
            }
        }
        Ok(watch)
    }
}
