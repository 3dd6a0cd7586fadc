//! The tunnels into containers of an engine that shares no directory with the broker, and those who come through them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{Broker, view::ContainerView};
use crate::{
    exec::{Door, InContainer, Visit},
    model::{error::Result, extension::ResourceKind, labels, platform::CONTAINER_ROOT, reference::ExtensionId},
};

/// When a tunnel that broke off is dug again at first, and at most; one that held for longer begins anew.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// The tunnels that are kept open.
#[derive(Debug)]
pub(super) struct Tunnels {
    /// By the full ids of their containers.
    kept: Mutex<HashSet<String>>,
    wanted: mpsc::UnboundedSender<String>,
    comers: Mutex<Option<Comers>>,
}

/// What the keeper of tunnels waits for.
#[derive(Debug)]
struct Comers {
    wanted: mpsc::UnboundedReceiver<String>,
    visited: mpsc::Receiver<Visit>,
}

impl Tunnels {
    /// Those through which visitors come.
    pub(super) fn new(visited: mpsc::Receiver<Visit>) -> Self {
        let (sender, wanted) = mpsc::unbounded_channel();
        Tunnels { kept: Mutex::default(), wanted: sender, comers: Mutex::new(Some(Comers { wanted, visited })) }
    }

    /// Keeps one open from now on, for as long as the container runs.
    fn want(&self, container: &str) {
        if self.take(container) {
            // Received for as long as the broker lives.
            let _ = self.wanted.send(container.to_owned());
        }
    }

    /// Whether nobody keeps it yet.
    fn take(&self, container: &str) -> bool {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(container.to_owned())
    }

    fn leave(&self, container: &str) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(container);
    }
}

impl Broker {
    /// Begins to keep tunnels open, and to receive who comes through them.
    pub fn spawn_tunnels(self: &Arc<Self>) {
        let comers = self.tunnels.comers.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Comers { mut wanted, mut visited }) = comers else { return };
        let broker = self.clone();
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    Some(container) = wanted.recv() => {
                        let keeper = broker.clone();
                        broker.tasks.spawn(async move {
                            tokio::select! {
                                () = keeper.keep_tunnel(&container) => {}
                                () = keeper.stopping.cancelled() => {}
                            }
                        });
                    }
                    Some(visit) = visited.recv() => {
                        if let Err(error) = broker.receive(visit).await {
                            tracing::debug!(%error, "somebody who came through a tunnel is turned away");
                        }
                    }
                    () = broker.stopping.cancelled() => return,
                }
            }
        });
    }

    /// Has tunnels to those of an extension's containers that run, where there is no other way.
    pub(super) fn want_tunnels(&self, containers: &[ContainerView]) {
        if self.is_apart() {
            containers.iter().filter(|one| one.state == "running").for_each(|one| self.tunnels.want(&one.id));
        }
    }

    /// Keeps a tunnel open until its container has stopped.
    async fn keep_tunnel(&self, container: &str) {
        let mut pause = PAUSE.0;
        loop {
            let begun = Instant::now();
            match self.tunnel(container).await {
                Ok(()) if begun.elapsed() > PAUSE.1 => pause = PAUSE.0,
                Ok(()) => {}
                Err(error) => tracing::debug!(container, %error, "no tunnel leads to a container"),
            }
            // Whoever wants it from now on is heard.
            self.tunnels.leave(container);
            let is_over =
                self.engine.container(container).await.is_ok_and(|found| found.is_none_or(|it| it.state != "running"));
            if is_over || !self.tunnels.take(container) {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Has a tunnel, and waits until it breaks off.
    async fn tunnel(&self, container: &str) -> Result<()> {
        let (user, reach) = (Some(CONTAINER_ROOT), self.reach_apart().await?);
        let place = InContainer { dockerd: self.engine.dockerd(), container, user, reach };
        let link = self.hub.container(place).await?;
        link.closed().await;
        Ok(())
    }

    /// Hands over somebody who came. Who it is follows from the tunnel: what is said in the container counts for nothing.
    async fn receive(&self, Visit { container, door, stream }: Visit) -> Result<()> {
        let Some(id) = self.extension_of(&container).await? else { return Ok(()) };
        match door {
            Door::Registration => self.extension_sockets.receive(&id, container, stream).await,
            Door::Gateway => self.gateways.receive(id.as_str(), container, stream),
        }
        Ok(())
    }

    /// Whose a container is, or says that it is: what it may is asked where it wants something.
    async fn extension_of(&self, container: &str) -> Result<Option<ExtensionId>> {
        let ledger = self.store.ledger(None).await?;
        let entry = ledger.into_iter().find(|entry| entry.kind == ResourceKind::Container && entry.id == container);
        if let Some(entry) = entry {
            return Ok(entry.extension.parse().ok());
        }
        let found = self.engine.container(container).await?;
        Ok(found.and_then(|found| found.labels.get(labels::EXTENSION)?.parse().ok()))
    }
}
