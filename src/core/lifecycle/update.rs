//! Update: the old generation stops, the new one starts in its place, and where that fails the old one is back
//! (design section 5).

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Broker, Progress, Report,
        grants::grants_required,
        names::{aside_name, kept_image},
        package::Package,
        ready::Readiness,
        stage::Staged,
        state::State,
        view::View,
        written,
    },
    InstallRequest, Work, at_rest, failpoint,
    install::{Taken, close, is_same, record},
};
use crate::model::{
    error::{Error, Reason, Result},
    extension::{Installed, Record},
    grant::Decisions,
    journal::{ChangeNotes, Step},
    reference::{ExtensionId, Reference},
    registration::StopCause,
};

/// What an update has come to.
#[derive(Debug, Clone)]
pub struct Updated {
    /// The extension as it is now.
    pub view: View,
    /// The version that was installed before.
    pub previous_version: String,
    /// Whether anything changed: not where the very same was installed already.
    pub changed: bool,
    /// Named volumes, which stayed.
    pub kept_volumes: Vec<String>,
}

/// What the steps have come to.
enum Through {
    /// The very same is installed.
    Same(Installed),
    /// The new generation is there, and is to be the installed one.
    Ready { old: Installed, new: Box<Installed>, decisions: Decisions },
}

impl Broker {
    /// Begins an update; it goes on by itself and tells `tell` how far it is.
    pub fn start_update(
        self: Arc<Self>,
        request: InstallRequest,
        tell: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Work<Updated> {
        let broker = self.clone();
        Work::begin(&self, |cancel| async move { broker.update(&request, &Report::new(tell), &cancel).await })
    }

    async fn update(
        self: &Arc<Self>,
        request: &InstallRequest,
        report: &Report,
        cancel: &CancellationToken,
    ) -> Result<Updated> {
        let mut taken = Taken::default();
        let steps = self.until_called_off(cancel, self.update_steps(request, report, &mut taken)).await;
        // What comes now is not called off: the store would take it all the same.
        let committed = match steps {
            Ok(Through::Same(existing)) => {
                let existing = self.end_same(existing, &mut taken).await;
                Ok((existing.record.version.clone(), existing, false))
            }
            Ok(Through::Ready { old, new, decisions }) => {
                self.commit(*new, decisions).await.map(|new| (old.record.version, new, true))
            }
            Err(error) => Err(error),
        };
        self.end_work(request, "update", &mut taken, committed.as_ref().err()).await;
        let (previous_version, installed, changed) = committed?;
        let kept_volumes = if changed { self.retire(&installed).await? } else { vec![] };
        drop(taken);
        self.reconciler.some([installed.id.clone()]);
        Ok(Updated { view: self.view(&installed.id).await?, previous_version, changed, kept_volumes })
    }

    /// Makes the new generation the installed one.
    async fn commit(&self, mut new: Installed, decisions: Decisions) -> Result<Installed> {
        failpoint::current_done(&new);
        self.store.commit_update(&mut new, decisions).await?;
        self.turn_to_new(&new.id);
        failpoint::begun(Step::UpdateRetire);
        tracing::info!(extension = %new.id, generation = new.generation, "updated");
        Ok(new)
    }

    /// Removes the old generation, now or later; returns the named volumes, which stay.
    async fn retire(self: &Arc<Self>, new: &Installed) -> Result<Vec<String>> {
        let later = "it is updated, and what is left of the old version goes later";
        tokio::select! {
            retired = self.retire_old(new) => {
                if retired.is_err() {
                    self.make_good(&new.id).await;
                }
                retired
            }
            () = self.stopping.cancelled() => Err(Error::new(Reason::ShuttingDown, new.id.as_str(), later)),
        }
    }

    async fn update_steps(&self, request: &InstallRequest, report: &Report, taken: &mut Taken) -> Result<Through> {
        let id = self.open_claimed(&request.source, report, taken).await?;
        let old = self.installed(&id).await?;
        at_rest(&old)?;
        let Some(package) = &taken.package else { return Err(Error::bug("a package was opened and is gone")) };
        if is_same(&old, package) {
            return Ok(Through::Same(old));
        }
        self.record_unknown(&old).await?;
        let before = self.decisions(&id).await?;
        let mut accepted = before.clone();
        accepted.allow.extend(request.accept.iter().cloned());
        let mut staged = self.stage(package, &accepted, report).await?;
        staged.check()?;
        let decisions = self.decide(request, before, &staged.needs)?;
        let missing = decisions.missing(&staged.needs);
        if !missing.is_empty() {
            return Err(grants_required(id.as_str(), missing));
        }
        let record = self.next_record(&old, package, &staged, taken, request);
        close(&mut taken.package).await;
        let notes = self.notes(&old, taken).await?;
        taken.begun = Some(id.clone());
        let mut new = self.store.begin_update(&old, record, notes).await?;
        failpoint::begun(Step::UpdateFiles);
        self.keep_image(&old).await?;
        let laid = self.lay(&mut new, staged)?;
        let ready_timeout = self.ready_timeout(&new);
        let blueprint = match &laid.draft {
            Some(draft) => self.blueprint(&new, draft, &decisions, &laid.files, &mut taken.fetched, report).await?,
            None => None,
        };
        new.record.fetched_images = carried_images(&old.record, &taken.fetched.images, &new.record.reference);
        self.store.save(&new).await?;
        let prepared = match blueprint {
            // Whoever is in the way is told before anything stops.
            Some(blueprint) => Some(self.prepare(&mut new, blueprint).await?),
            None => None,
        };
        self.step(&mut new, Step::UpdateStop).await?;
        self.stop_generation(&old).await?;
        if let Some(prepared) = &prepared {
            self.step(&mut new, Step::UpdateRename).await?;
            let aside = self.set_aside(&old).await?;
            self.step(&mut new, Step::UpdateMake).await?;
            self.make(&new, prepared, ready_timeout, aside, report).await?;
            self.step(&mut new, Step::UpdateWait).await?;
            self.wait_better(&new, ready_timeout, report).await?;
        }
        self.audit_accepted(request, "update", &new, &decisions).await;
        self.give_back_others(&mut taken.fetched, &new.record.reference).await;
        written::write(&laid.files, &new)?;
        Ok(Through::Ready { old, new: Box::new(new), decisions })
    }

    /// Calls go to the new generation from here on, and who is registered is told of it.
    fn turn_to_new(&self, id: &ExtensionId) {
        self.pools.close(id);
        self.registrations.touch(id);
    }

    fn next_record(
        &self,
        old: &Installed,
        package: &Package,
        staged: &Staged,
        taken: &Taken,
        request: &InstallRequest,
    ) -> Record {
        let old = &old.record;
        let mut record = record(package, staged, &taken.fetched, request.ready_timeout);
        // What the user said once about its patience holds until it is said anew.
        record.ready_timeout_ms = record.ready_timeout_ms.or(old.ready_timeout_ms);
        record.network_nonce = old.network_nonce().to_owned();
        record
    }

    /// What a return to the old generation would need to know.
    async fn notes(&self, old: &Installed, taken: &Taken) -> Result<ChangeNotes> {
        // What it lacks says nothing about how well it ran.
        let view = self.view_by_itself(old.clone()).await?;
        let running = view
            .containers
            .iter()
            .filter(|container| matches!(container.state.as_str(), "running" | "restarting" | "paused"));
        Ok(ChangeNotes {
            was_ready: view.observed.state == State::Ready,
            running: running.map(|container| container.id.clone()).collect(),
            keeps_image: old.record.image_id.is_some(),
            names: taken.fetched.names(),
            ..ChangeNotes::default()
        })
    }

    /// Gives the old image a name of ours: its own may stand for the new one already.
    async fn keep_image(&self, old: &Installed) -> Result<()> {
        let Some(image) = &old.record.image_id else { return Ok(()) };
        if self.engine.image(image).await?.is_some() {
            self.engine.tag(image, &kept_image(&old.record.nonce).parse::<Reference>()?).await?;
        }
        Ok(())
    }

    /// Ends the programs of a generation and stops its containers.
    async fn stop_generation(&self, old: &Installed) -> Result<()> {
        self.sessions.end_of(&old.id);
        self.end_use(&old.id, StopCause::Updated).await;
        self.stop_all(self.containers_on_ledger(old).await?).await
    }

    /// Gives the old containers other names; returns their ids.
    async fn set_aside(&self, old: &Installed) -> Result<Vec<String>> {
        let mut aside = vec![];
        for id in self.containers_on_ledger(old).await? {
            if self.engine.container(&id).await?.is_some() {
                self.engine.rename(&id, &aside_name(&id)).await?;
            }
            aside.push(id);
        }
        Ok(aside)
    }

    async fn containers_on_ledger(&self, of: &Installed) -> Result<Vec<String>> {
        let ledger = self.store.ledger(Some(&of.id)).await?;
        Ok(ledger.into_iter().filter(|entry| entry.is_backend_of(of)).map(|entry| entry.id).collect())
    }

    /// Waits for the new backend. One that does not become ready is good enough only where the old one was not either.
    async fn wait_better(&self, new: &Installed, timeout: Duration, report: &Report) -> Result<()> {
        let was_ready = new.change.as_ref().is_some_and(|change| change.notes.was_ready);
        if !new.enabled {
            return Ok(());
        }
        match self.wait_ready(new, timeout, report).await? {
            Readiness::Late if was_ready => {
                let (id, version) = (&new.id, &new.record.version);
                let message = format!("{version} of {id} did not become ready within {timeout:?}; the old one is back");
                Err(Error::new(Reason::BackendTooSlow, id.as_str(), message))
            }
            Readiness::Ready | Readiness::Late => Ok(()),
        }
    }
}

/// The images that came into the engine for this extension and are still its own: those of this update, and its name if it
/// was fetched before.
fn carried_images(old: &Record, fetched: &[String], reference: &str) -> Vec<String> {
    let carried = old.fetched_images.iter().filter(|name| *name == reference && !fetched.contains(name));
    fetched.iter().chain(carried).cloned().collect()
}
