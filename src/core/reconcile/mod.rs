//! Looks after extensions: what they do is observed and told, and what their engine will not do by itself is done for them.
//! What is wanted stands in the store, what is there in the engine; where the two differ the engine is brought in line,
//! except where the engine's own restart policy is at it.

mod queue;

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::{Broker, State, View, names::aside_name, state::LACKS_GRANTS, view::backend_needs};
use crate::{
    engine::ContainerDetails,
    model::{
        error::{Error, Reason, Result},
        extension::{Installed, LedgerEntry, ResourceKind},
        reference::ExtensionId,
    },
};

pub(super) use queue::Reconciler;
use queue::{Due, Look, Looks, Next};

/// How often a backend that does not listen yet is looked at.
const STARTING: Duration = Duration::from_millis(500);
/// How long a look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(15);
/// When one is looked at again that is being changed.
const BUSY: Duration = Duration::from_secs(2);

/// What was seen of one container that the ledger knows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    id: String,
    /// Its name on the ledger.
    name: String,
    /// It runs on as a rule: it is no job.
    is_lasting: bool,
    /// What the engine has; `None` where it is gone.
    found: Option<Found>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    name: String,
    state: String,
    /// The engine starts it again whenever it ends, unless somebody stopped it by hand.
    always_restarts: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    /// Make what is missing and start what was never started.
    Make,
    /// Start a container that the engine leaves alone.
    Start(String),
    /// Stop a container that shall not run.
    Stop(String),
    /// Give a container its name back, which an update that broke off took from it.
    Rename(String, String),
}

/// What brings the containers in line with what is wanted; `afresh` where the engine, or we, have been away.
fn acts(wanted: bool, afresh: bool, containers: &[Seen]) -> Vec<Act> {
    let mut acts = vec![];
    for Seen { id, name, is_lasting, found } in containers {
        let Some(found) = found else { continue };
        if found.name == aside_name(id) {
            acts.push(Act::Rename(id.clone(), name.clone()));
        }
        match (wanted, found.state.as_str()) {
            (false, "running" | "restarting") => acts.push(Act::Stop(id.clone())),
            (true, "exited" | "dead") if found.always_restarts || afresh && *is_lasting => {
                acts.push(Act::Start(id.clone()));
            }
            _ => {}
        }
    }
    let is_incomplete = |seen: &Seen| seen.found.as_ref().is_none_or(|found| found.state == "created");
    if wanted && containers.iter().any(is_incomplete) {
        acts.push(Act::Make);
    }
    acts
}

impl Broker {
    /// Begins to look after the extensions.
    pub fn spawn_reconciler(self: &Arc<Self>) {
        let broker = self.clone();
        self.tasks.spawn(async move {
            let mut looks = Looks::default();
            loop {
                let soonest = looks.again.values().min().copied();
                tokio::select! {
                    Some(ended) = looks.going.join_next() => looks.end(ended),
                    () = broker.reconciler.come_due(soonest) => {
                        let due = broker.due(&mut looks).await;
                        looks.waiting.extend(due);
                    }
                    () = broker.stopping.cancelled() => break,
                }
                looks.begin(&broker);
            }
            // Nothing is left half done.
            while looks.going.join_next().await.is_some() {}
        });
    }

    /// Who is to be looked at now.
    async fn due(&self, looks: &mut Looks) -> HashSet<ExtensionId> {
        let Due { all, mut some, all_afresh, some_afresh } = self.reconciler.take();
        looks.afresh.extend(some_afresh);
        let now = Instant::now();
        some.extend(looks.again.extract_if(|_, at| *at <= now).map(|(id, _)| id));
        if all {
            match self.store.extensions("", usize::MAX).await {
                Ok(known) => {
                    let ids: Vec<ExtensionId> = known.into_iter().map(|installed| installed.id).collect();
                    looks.afresh.extend(ids.iter().filter(|_| all_afresh).cloned());
                    some.extend(ids);
                }
                Err(error) => tracing::warn!(%error, "cannot read which extensions there are"),
            }
        }
        some
    }

    /// Looks at one extension and does what it needs, if that is not to wait.
    async fn look_after(&self, id: &ExtensionId, pause: Option<Duration>, afresh: bool) -> Look {
        let of = |next| Look { next, ran_afresh: false };
        // One that cannot be looked at is looked at again.
        let view = match tokio::time::timeout(LOOK_LIMIT, self.view(id)).await {
            Ok(Ok(view)) => view,
            // A label said so, and it lied, or it is somebody else's.
            Ok(Err(error)) if error.reason() == Reason::ExtensionNotFound => return of(Next::Gone),
            _ => return of(Next::In(BUSY)),
        };
        self.want_tunnels(&view.containers);
        if let Some(pause) = pause {
            return of(Next::In(pause));
        }
        let can_be = view.installed.change.is_none() && self.catalogue.is_current();
        let brought = self.bring_in_line(&view, afresh).await;
        let ran_afresh = afresh && can_be && brought.is_ok();
        let next = match brought {
            Ok(true) => Next::Spent,
            Ok(false) => match view.observed.state {
                State::Starting => Next::In(STARTING),
                State::Installing | State::Updating | State::Uninstalling => Next::Told,
                State::Degraded if view.observed.reason != LACKS_GRANTS => Next::Told,
                State::Ready | State::Degraded => Next::Well(self.note_lasting(&view).await),
                _ => Next::Told,
            },
            Err(error) if error.reason() == Reason::ExtensionBusy => Next::In(BUSY),
            // It is told when the engine answers again.
            Err(error) if error.reason() == Reason::EngineUnavailable => Next::Told,
            Err(error) => {
                tracing::warn!(%error, extension = %id, "an extension cannot be brought in line");
                Next::Spent
            }
        };
        Look { next, ran_afresh }
    }

    /// Does what is to be done; true where there was anything.
    async fn bring_in_line(&self, view: &View, afresh: bool) -> Result<bool> {
        let built = view.installed.record.backend.as_ref().is_some_and(|backend| backend.built);
        if !built
            || self.registrations.host(&view.installed.id).is_some()
            || view.installed.change.is_some()
            || !self.catalogue.is_current()
        {
            return Ok(false);
        }
        let id = &view.installed.id;
        // Looked at without a claim, so that nobody is kept from changing what needs nothing.
        let seen = self.seen_containers(&view.installed).await?;
        if acts(self.shall_run(&view.installed).await?, afresh, &seen).is_empty() {
            return Ok(false);
        }
        let _claim = self.claims.take_aside(id)?;
        // It may have been changed since it was looked at.
        let installed = self.installed(id).await?;
        if installed.change.is_some() {
            return Ok(false);
        }
        let seen = self.seen_containers(&installed).await?;
        let acts = acts(self.shall_run(&installed).await?, afresh, &seen);
        for act in &acts {
            tracing::info!(extension = %id, ?act, "bringing an extension in line");
            self.reconciler.acts.fetch_add(1, Relaxed);
            match act {
                Act::Make => {
                    self.start_built(&installed).await?;
                    // Others stand in their place now.
                    let gone = seen.iter().filter(|seen| seen.found.is_none());
                    self.store.strike(gone.map(|gone| (ResourceKind::Container, gone.id.clone())).collect()).await?;
                }
                Act::Start(container) => self.engine.start(container).await?,
                Act::Stop(container) => self.engine.stop(container).await?,
                Act::Rename(container, name) => self.engine.rename(container, name).await?,
            }
        }
        Ok(!acts.is_empty())
    }

    /// Remembers which services run on while all is well: an engine that comes back leaves those ended whose author gave
    /// no restart policy, as it leaves jobs. Tells when to try again.
    async fn note_lasting(&self, view: &View) -> Option<Duration> {
        let installed = &view.installed;
        let known =
            installed.record.backend.as_ref().filter(|backend| backend.built).map(|backend| &backend.lasting)?;
        let runs = view.containers.iter().filter(|one| one.state == "running" && !known.contains(&one.service));
        let new: Vec<String> = runs.map(|one| one.service.clone()).collect();
        if new.is_empty() {
            return None;
        }
        let noted = async {
            let _claim = self.claims.take_aside(&installed.id)?;
            let mut now = self.installed(&installed.id).await?;
            if now.change.is_none() && now.generation == installed.generation {
                if let Some(backend) = &mut now.record.backend {
                    backend.lasting.extend(new);
                    backend.lasting.sort();
                    backend.lasting.dedup();
                }
                self.store.save(&now).await?;
            }
            Ok::<(), Error>(())
        };
        match noted.await {
            Ok(()) => None,
            Err(error) if error.reason() == Reason::ExtensionBusy => Some(BUSY),
            Err(error) => {
                tracing::warn!(%error, extension = %installed.id, "cannot remember what runs");
                None
            }
        }
    }

    /// Whether its containers shall run.
    async fn shall_run(&self, installed: &Installed) -> Result<bool> {
        let missing = self.decisions(&installed.id).await?.missing(&backend_needs(installed));
        Ok(installed.enabled && missing.is_empty())
    }

    async fn seen_containers(&self, installed: &Installed) -> Result<Vec<Seen>> {
        let ledger = self.store.ledger(Some(&installed.id)).await?;
        let mut seen = vec![];
        let lasting = installed.record.backend.as_ref().map_or(&[][..], |backend| backend.lasting.as_slice());
        for entry in ledger.into_iter().filter(|entry| entry.is_backend_of(installed)) {
            let LedgerEntry { id, name, service, .. } = entry;
            let found = self.engine.container(&id).await?.map(found);
            seen.push(Seen { id, name, is_lasting: lasting.contains(&service), found });
        }
        Ok(seen)
    }
}

fn found(details: ContainerDetails) -> Found {
    let ContainerDetails { name, state, always_restarts, .. } = details;
    Found { name, state, always_restarts }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: Option<&str>, always_restarts: bool) -> Seen {
        let found = state.map(|state| Found { name: "n".into(), state: state.into(), always_restarts });
        Seen { id: "c".into(), name: "n".into(), is_lasting: false, found }
    }

    #[test]
    fn only_what_the_engine_will_not_do_is_done() {
        let (start, stop) = (Act::Start("c".into()), Act::Stop("c".into()));
        for (wanted, state, always, expected) in [
            (true, Some("running"), true, vec![]),
            (true, Some("paused"), true, vec![]),
            (true, Some("restarting"), true, vec![]),
            // Somebody stopped or killed it: the engine takes that for a wish.
            (true, Some("exited"), true, vec![start.clone()]),
            (true, Some("dead"), true, vec![start]),
            // A job that is done, or that its author does not want tried again.
            (true, Some("exited"), false, vec![]),
            (true, Some("created"), false, vec![Act::Make]),
            (true, None, true, vec![Act::Make]),
            (true, None, false, vec![Act::Make]),
            (false, Some("running"), true, vec![stop.clone()]),
            (false, Some("restarting"), true, vec![stop]),
            (false, Some("exited"), true, vec![]),
            (false, Some("created"), true, vec![]),
            (false, None, true, vec![]),
        ] {
            for afresh in [false, true] {
                assert_eq!(acts(wanted, afresh, &[seen(state, always)]), expected, "{wanted} {state:?} {always}");
            }
        }
        // Nobody else starts what runs on and has no policy; when it ends by itself, it stays as its author left it.
        let lasting = Seen { is_lasting: true, ..seen(Some("exited"), false) };
        assert_eq!(acts(true, true, std::slice::from_ref(&lasting)), [Act::Start("c".into())]);
        assert_eq!(acts(true, false, std::slice::from_ref(&lasting)), []);
        assert_eq!(acts(false, true, &[lasting]), []);
        let mut aside = seen(Some("running"), true);
        aside.found.as_mut().unwrap().name = aside_name("c");
        assert_eq!(acts(true, false, &[aside]), [Act::Rename("c".into(), "n".into())]);
    }
}
