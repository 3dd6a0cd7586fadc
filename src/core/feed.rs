//! Follows the engine: what there is and what changes, for the catalogue and for whoever looks after the extensions. The
//! end of the engine's stream is an error, after which everything is read anew.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;

use super::{
    Broker,
    catalogue::{Object, ObjectKey, objects},
};
use crate::{
    clock::now_ms,
    model::{
        error::{ENGINE_RETRY, Result},
        extension::ResourceKind,
        labels,
    },
};

/// How often everything is read anew, whatever the events said.
const RESYNC: Duration = Duration::from_secs(60);
/// How long events are gathered before they are looked into.
const GATHER: Duration = Duration::from_millis(30);
/// When what changed is read once more.
const SETTLED: Duration = Duration::from_secs(1);
/// More containers than these are read by one list.
const MAX_SINGLE: usize = 40;

impl Broker {
    /// Begins to follow the engine.
    pub fn spawn_feed(self: &Arc<Self>) {
        let broker = self.clone();
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    ended = broker.follow() => if let Err(error) = ended {
                        tracing::debug!(%error, "the engine is not followed");
                    },
                    () = broker.stopping.cancelled() => return,
                }
                broker.catalogue.lost();
                broker.reconciler.all();
                tokio::select! {
                    () = broker.presence.back(ENGINE_RETRY) => {}
                    () = broker.stopping.cancelled() => return,
                }
            }
        });
    }

    /// Follows the engine until it goes away.
    async fn follow(&self) -> Result<()> {
        // From before the list is made, so that nothing falls between the two.
        let mut events = self.engine.events(now_ms() / 1000 - 1)?;
        self.shares_files().await?;
        self.read_all().await?;
        self.reconciler.all_afresh();
        // What an event told of may be listed a little later only: it is read once more.
        let mut recheck: HashSet<ObjectKey> = HashSet::new();
        let mut settled = tokio::time::interval(SETTLED);
        settled.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut resync = tokio::time::interval_at(tokio::time::Instant::now() + RESYNC, RESYNC);
        loop {
            tokio::select! {
                event = events.next() => {
                    let Some(event) = event.transpose()? else { return Ok(()) };
                    let mut touched = HashSet::from([(event.kind, event.id)]);
                    let gathered = tokio::time::sleep(GATHER);
                    tokio::pin!(gathered);
                    loop {
                        tokio::select! {
                            () = &mut gathered => break,
                            event = events.next() => {
                                let Some(event) = event.transpose()? else { return Ok(()) };
                                touched.insert((event.kind, event.id));
                            }
                        }
                    }
                    if recheck.is_empty() {
                        settled.reset();
                    }
                    recheck.extend(touched.iter().cloned());
                    self.read_touched(touched).await?;
                }
                _ = settled.tick(), if !recheck.is_empty() => self.read_touched(std::mem::take(&mut recheck)).await?,
                _ = resync.tick() => self.read_all().await?,
            }
        }
    }

    /// Reads everything.
    async fn read_all(&self) -> Result<()> {
        let asked = self.catalogue.now();
        let all = objects(&self.engine, |_| true).await?;
        self.catalogue.replace(&ResourceKind::OBJECTS, asked, all);
        self.reconciler.all();
        Ok(())
    }

    /// Reads all of one kind, and tells what changed.
    async fn read_kind(&self, kind: ResourceKind, asked: u64) -> Result<Vec<Object>> {
        let all = objects(&self.engine, |other| other == kind).await?;
        Ok(self.catalogue.replace(&[kind], asked, all))
    }

    /// Reads what changed.
    async fn read_touched(&self, touched: HashSet<ObjectKey>) -> Result<()> {
        // They are looked at whether or not the list differs: it may lag behind what happened.
        let mut owners = self.catalogue.labels(&touched, labels::EXTENSION);
        let asked = self.catalogue.now();
        let (containers, others): (Vec<ObjectKey>, Vec<ObjectKey>) =
            touched.into_iter().partition(|(kind, _)| *kind == ResourceKind::Container);
        let mut changed = vec![];
        if containers.len() > MAX_SINGLE {
            changed.extend(self.read_kind(ResourceKind::Container, asked).await?);
        } else if !containers.is_empty() {
            let ids: Vec<String> = containers.iter().map(|(_, id)| id.clone()).collect();
            let found: HashMap<ObjectKey, Object> =
                self.engine.containers_by_id(&ids).await?.into_iter().map(Into::into).collect();
            changed.extend(self.catalogue.update(&containers, found));
        }
        for kind in [ResourceKind::Network, ResourceKind::Volume] {
            if others.iter().any(|(other, _)| *other == kind) {
                self.read_kind(kind, asked).await?;
            }
        }
        owners.extend(changed.iter().filter_map(|object| object.labels.get(labels::EXTENSION).cloned()));
        // A label may lie; then it is looked in vain.
        self.reconciler.some(owners.iter().filter_map(|owner| owner.parse().ok()));
        Ok(())
    }
}
