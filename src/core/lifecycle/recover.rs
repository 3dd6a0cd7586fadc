//! Makes good what broke off, by the journal: at the start what a crash left, later what failed while the engine was away.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use tracing::Instrument;

use super::{super::Broker, failpoint};
use crate::{
    exec::restore_pids_limit,
    model::{
        error::{Reason, Result},
        extension::Installed,
        journal::Step,
        reference::ExtensionId,
    },
};

/// When it is tried again first.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// The longest pause: where the engine refuses, the disk is full, or whatever else an user may mend.
const MAX_PAUSE: Duration = Duration::from_secs(20);

/// Wakes whoever makes good what broke off.
#[derive(Debug, Default)]
pub(in crate::core) struct Mender(Notify);

impl Mender {
    /// There is something to do.
    pub(super) fn wake(&self) {
        self.0.notify_one();
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Done,
    EngineAway,
    Failed,
}

impl Attempt {
    fn and(self, other: Attempt) -> Attempt {
        match (self, other) {
            (Attempt::EngineAway, _) | (_, Attempt::EngineAway) => Attempt::EngineAway,
            (Attempt::Failed, _) | (_, Attempt::Failed) => Attempt::Failed,
            (Attempt::Done, Attempt::Done) => Attempt::Done,
        }
    }
}

impl Broker {
    /// Begins to make good what was left, now and whenever something is left again.
    pub fn spawn_recovery(self: &Arc<Self>) {
        let broker = self.clone();
        self.tasks.spawn(async move {
            let mut pause = TRY_AGAIN;
            loop {
                let attempt = broker.recover().await;
                let next = async {
                    match attempt {
                        Attempt::Done => {
                            broker.spawn_late_sweeps();
                            pause = TRY_AGAIN;
                            broker.mender.0.notified().await;
                        }
                        Attempt::EngineAway => broker.presence.back(TRY_AGAIN).await,
                        Attempt::Failed => {
                            tokio::time::sleep(pause).await;
                            pause = (pause * 2).min(MAX_PAUSE);
                        }
                    }
                };
                tokio::select! {
                    () = next => {}
                    () = broker.stopping.cancelled() => return,
                }
            }
        });
    }

    /// Tries once.
    async fn recover(&self) -> Attempt {
        let all = match self.store.extensions("", usize::MAX).await {
            Ok(all) => all,
            Err(error) => {
                tracing::error!(%error, "cannot read what a crash may have left");
                return Attempt::Failed;
            }
        };
        let note = |what: &str, result: Result<()>| match result {
            Ok(()) => Attempt::Done,
            Err(error) => {
                tracing::warn!(%error, "cannot {what} yet");
                if error.reason() == Reason::EngineUnavailable { Attempt::EngineAway } else { Attempt::Failed }
            }
        };
        // First what keeps images in use.
        let mut attempt = note("remove what a crash left", self.engine.remove_earlier_temporaries().await.map(|_| ()));
        attempt = attempt.and(note("remove images that a crash left", self.discard_left().await));
        attempt = attempt.and(note("find what extensions made", self.settle_creates(None).await));
        attempt = attempt.and(note("restore process limits", self.restore_squeezed().await));
        for left in all.iter().filter(|installed| installed.change.is_some()) {
            // A call of this very process that is at it holds the claim; or somebody who will not make it good.
            let Ok(_claim) = self.claims.take_aside(&left.id) else {
                attempt = attempt.and(Attempt::Failed);
                continue;
            };
            let span = tracing::info_span!("mend", extension = %left.id);
            let settled = self.settle(&left.id).instrument(span).await;
            attempt = attempt.and(note(&format!("make good what broke off of {}", left.id), settled));
        }
        attempt
    }

    /// Makes good a change that failed, or has it done later. Whoever calls holds the claim.
    pub(super) async fn make_good(self: &Arc<Self>, id: &ExtensionId) {
        if let Err(error) = self.settle(id).await {
            tracing::warn!(%error, extension = %id, "what failed could not be undone yet; it is tried again");
            self.mender.wake();
        }
        self.spawn_late_sweeps();
    }

    /// Brings an extension whose change broke off to exactly the old or the new state, as the journal says.
    async fn settle(&self, id: &ExtensionId) -> Result<()> {
        let Some(mut installed) = self.store.extension(id).await? else { return Ok(()) };
        let Some(change) = installed.change.clone() else { return Ok(()) };
        match change.step {
            Step::InstallFiles | Step::InstallMake | Step::InstallWait => {
                self.remove_all(&mut installed).await?;
            }
            Step::UninstallObjects | Step::UninstallFiles => {
                self.remove_all(&mut installed).await?;
            }
            Step::UpdateFiles
            | Step::UpdateStop
            | Step::UpdateRename
            | Step::UpdateMake
            | Step::UpdateWait
            | Step::UpdateReturn => self.return_to_old(&mut installed).await?,
            Step::UpdateRetire => {
                self.retire_old(&installed).await?;
            }
            Step::EnableStart => self.undo_enable(&installed).await?,
            Step::DisableStop => {
                self.stop_containers(id).await?;
                self.store.finish_switch(id, false).await?;
                self.write_down(id).await;
            }
        }
        tracing::info!(extension = %id, step = change.step.as_str(), "made good what broke off");
        // What happened to its containers meanwhile was not looked into.
        self.reconciler.some([id.clone()]);
        Ok(())
    }

    /// Gives containers back the process limits that a killed broker had squeezed.
    async fn restore_squeezed(&self) -> Result<()> {
        for (container, limit) in self.store.left_squeezed(self.run.clone()).await? {
            restore_pids_limit(self.engine.dockerd(), &container, limit).await?;
            self.store.settle_squeezed(container).await?;
        }
        Ok(())
    }

    async fn undo_enable(&self, installed: &Installed) -> Result<()> {
        // One that was enabled before runs as far as it did; the rest is for the reconciler.
        if !installed.enabled {
            self.stop_containers(&installed.id).await?;
        }
        failpoint::done(Step::EnableStart);
        self.store.abandon_switch(&installed.id, installed.enabled).await
    }
}
