//! Backends that register: who may, what they are told, and what follows from it for the extension's calls and state.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use tokio::sync::watch;

use super::{
    Broker,
    leases::{HeldLease, LeaseChange, LeaseRoute, Leases},
    ownership::own_container,
};
use crate::{
    model::{
        error::{Error, Reason, Result},
        extension::ResourceKind,
        journal::ChangeKind,
        reference::ExtensionId,
        registration::{Health, Hello, Holder, Speech, StopCause},
    },
    peer::socket::Caller,
};

/// What is registered, by extension.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    all: Mutex<HashMap<ExtensionId, Registered>>,
    /// The number of the newest lease.
    newest: AtomicI64,
}

#[derive(Debug, Default)]
struct Registered {
    leases: Leases,
    signals: HashMap<i64, watch::Sender<Signal>>,
}

/// What the holder of a lease has to be told.
#[derive(Debug, Clone, Default)]
struct Signal {
    /// Grows when something may have changed that concerns it.
    changes: u64,
    stop: Option<StopCause>,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Superseded,
    Removed,
}

/// A lease; it ends when this is dropped.
pub struct Lease {
    broker: Arc<Broker>,
    id: ExtensionId,
    /// Its number.
    pub epoch: i64,
    holder: Holder,
    signal: watch::Receiver<Signal>,
    told: Option<Situation>,
    is_told_to_stop: bool,
}

/// What the holder of a lease is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// What concerns it, as a whole.
    Situation(Situation),
    /// No more calls come.
    StopComing(StopCause),
}

/// What concerns a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// The extension.
    pub extension: ExtensionId,
    /// Its version.
    pub version: String,
    /// Its generation.
    pub generation: i64,
    /// Who the backend is.
    pub holder: Holder,
    /// Names of the grants that it holds.
    pub grants: Vec<String>,
}

impl Registrations {
    fn lock(&self) -> MutexGuard<'_, HashMap<ExtensionId, Registered>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a call goes, as [`Leases::route`] says.
    pub(super) fn route(
        &self,
        id: &ExtensionId,
        endpoint: Option<&str>,
        need: Speech,
        service: Option<&str>,
    ) -> Result<LeaseRoute> {
        match self.lock().get(id) {
            Some(registered) => registered.leases.route(endpoint, need, service),
            None => Leases::default().route(endpoint, need, service),
        }
    }

    /// What is registered, the host's lease first.
    pub(super) fn of(&self, id: &ExtensionId) -> Vec<HeldLease> {
        self.lock().get(id).map(|registered| registered.leases.held()).unwrap_or_default()
    }

    /// The lease of a process on the host.
    pub(super) fn host(&self, id: &ExtensionId) -> Option<HeldLease> {
        self.lock().get(id).and_then(|registered| registered.leases.host().cloned())
    }

    /// How a service says it is, whose containers these are.
    pub(super) fn health(&self, id: &ExtensionId, service: &str, containers: &[&str]) -> Option<Health> {
        self.lock().get(id).and_then(|registered| registered.leases.health(service, containers))
    }

    /// How many leases are held, of all extensions.
    pub(super) fn count(&self) -> usize {
        self.lock().values().map(|registered| registered.leases.count()).sum()
    }

    /// Whether something was ever registered, in this run of the broker.
    pub(super) fn were_granted(&self, id: &ExtensionId) -> bool {
        self.lock().get(id).is_some_and(|registered| registered.leases.were_granted())
    }

    /// Has the holders look whether something has changed that concerns them.
    pub(super) fn touch(&self, id: &ExtensionId) {
        self.signal(id, |_| true, |signal| signal.changes += 1);
    }

    /// Tells the containers that they are about to be stopped.
    pub(super) fn stop_coming(&self, id: &ExtensionId, cause: StopCause) {
        self.signal(id, |held| held.holder != Holder::Host, |signal| signal.stop = Some(cause));
    }

    /// Ends all, for good.
    pub(super) fn remove(&self, id: &ExtensionId) {
        self.signal(id, |_| true, |signal| signal.end = Some(End::Removed));
        self.lock().remove(id);
    }

    fn signal(&self, id: &ExtensionId, concerns: impl Fn(&HeldLease) -> bool, change: impl Fn(&mut Signal)) {
        let all = self.lock();
        let Some(registered) = all.get(id) else { return };
        for held in registered.leases.held().iter().filter(|held| concerns(held)) {
            if let Some(signal) = registered.signals.get(&held.epoch) {
                signal.send_modify(&change);
            }
        }
    }

    /// Grants leases of an extension from now on, until it is removed.
    pub(super) fn expect(&self, id: &ExtensionId) {
        self.lock().entry(id.clone()).or_default();
    }

    fn grant(&self, id: &ExtensionId, holder: Holder, hello: Hello) -> Result<(i64, watch::Receiver<Signal>)> {
        let mut all = self.lock();
        let registered = all.get_mut(id).ok_or_else(|| gone(id))?;
        // Never one that an earlier extension of that id had.
        let epoch = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
        let superseded = registered.leases.grant(epoch, holder, hello)?;
        if let Some(old) = superseded.and_then(|old| registered.signals.remove(&old)) {
            old.send_modify(|signal| signal.end = Some(End::Superseded));
        }
        let (signal, told) = watch::channel(Signal::default());
        registered.signals.insert(epoch, signal);
        Ok((epoch, told))
    }

    fn note(&self, id: &ExtensionId, epoch: i64, change: LeaseChange) -> Result<bool> {
        self.lock().get_mut(id).map_or(Ok(false), |registered| registered.leases.note(epoch, change))
    }

    fn end(&self, id: &ExtensionId, epoch: i64) -> bool {
        let mut all = self.lock();
        let Some(registered) = all.get_mut(id) else { return false };
        registered.signals.remove(&epoch);
        registered.leases.end(epoch)
    }
}

impl Broker {
    /// Who a caller at an extension's socket is to it.
    ///
    /// # Errors
    ///
    /// `CALLER_REFUSED`, `EXTENSION_NOT_FOUND`, `BACKEND_STOPPED` while it is being removed, `ENGINE_UNAVAILABLE`.
    pub async fn identify(&self, id: &ExtensionId, caller: &Caller) -> Result<Holder> {
        let installed = self.installed(id).await?;
        if installed.changing() == Some(ChangeKind::Uninstall) {
            return Err(Error::new(Reason::BackendStopped, id.as_str(), format!("{id} is being removed")));
        }
        match caller {
            Caller::Host => Ok(Holder::Host),
            Caller::Container(container) => {
                match own_container(&self.store, &self.engine, &self.key, &installed, container).await? {
                    Some(service) if service.is_empty() => Ok(Holder::Container(container.clone())),
                    Some(service) => Ok(Holder::Service { service, container: container.clone() }),
                    None => Err(self.refuse(id, container).await),
                }
            }
        }
    }

    /// The error for a caller that is not the extension's own. The log names whom the socket belongs to, and who came.
    async fn refuse(&self, id: &ExtensionId, caller: &str) -> Error {
        let ledger = self.store.ledger(None).await.unwrap_or_default();
        let owner = ledger.iter().find(|entry| entry.kind == ResourceKind::Container && entry.id == caller);
        let owner = owner.map_or_else(|| "nobody".to_owned(), |entry| entry.extension.to_string());
        tracing::warn!(extension = %id, caller, owner, "refused a caller at an extension's socket");
        let message =
            format!("this is the socket of {id}; the caller is none of its containers nor a process of the user");
        Error::new(Reason::CallerRefused, id.as_str(), message)
    }

    /// Grants a lease to a backend, which holds it until what is returned is dropped.
    ///
    /// # Errors
    ///
    /// `ENDPOINT_TAKEN`, `REQUEST_INVALID`, `LIMIT_REACHED`, `EXTENSION_NOT_FOUND`.
    pub async fn register(self: &Arc<Self>, id: &ExtensionId, holder: Holder, hello: Hello) -> Result<Lease> {
        let (instance, software) = (hello.instance.clone(), hello.software.clone());
        let (epoch, signal) = self.registrations.grant(id, holder.clone(), hello)?;
        let (broker, told) = (self.clone(), None);
        // From here on dropping it ends the lease.
        let lease = Lease { broker, id: id.clone(), epoch, holder, signal, told, is_told_to_stop: false };
        tracing::info!(extension = %id, epoch, holder = %lease.holder, instance, software, "registered");
        lease.take_effect();
        Ok(lease)
    }

    /// What concerns the holder of a lease.
    async fn situation(&self, id: &ExtensionId, holder: &Holder) -> Result<Situation> {
        let known = self.known(id).await?;
        let mut grants: Vec<String> = known.decisions.allow.iter().map(ToString::to_string).collect();
        grants.sort();
        Ok(Situation {
            extension: id.clone(),
            version: known.installed.record.version.clone(),
            generation: known.installed.generation,
            holder: holder.clone(),
            grants,
        })
    }
}

impl Lease {
    /// What its holder has to be told next; first of all, what concerns it.
    ///
    /// Errors, with which it ends: REGISTRATION_SUPERSEDED, EXTENSION_NOT_FOUND.
    pub async fn next(&mut self) -> Result<Notice> {
        loop {
            let signal = self.signal.borrow_and_update().clone();
            match signal.end {
                Some(End::Superseded) => return Err(self.superseded()),
                Some(End::Removed) => return Err(self.removed()),
                None => {}
            }
            // What concerns it comes first.
            if let Some(cause) = signal.stop
                && self.told.is_some()
                && !std::mem::replace(&mut self.is_told_to_stop, true)
            {
                return Ok(Notice::StopComing(cause));
            }
            let now = self.broker.situation(&self.id, &self.holder).await?;
            if self.told.as_ref() != Some(&now) {
                self.told = Some(now.clone());
                // It may say more than that.
                self.signal.mark_changed();
                return Ok(Notice::Situation(now));
            }
            if self.signal.changed().await.is_err() && self.signal.borrow().end.is_none() {
                return Err(self.removed());
            }
        }
    }

    /// Whether a process on the host holds it.
    pub fn is_of_host(&self) -> bool {
        self.holder == Holder::Host
    }

    /// Notes what its holder says has changed.
    ///
    /// # Errors
    ///
    /// `ENDPOINT_TAKEN`, `LIMIT_REACHED`, `REQUEST_INVALID`.
    pub fn note(&self, change: LeaseChange) -> Result<()> {
        if self.broker.registrations.note(&self.id, self.epoch, change)? {
            self.take_effect();
        }
        Ok(())
    }

    /// Calls look anew where they go, and whoever watches hears of it.
    fn take_effect(&self) {
        self.broker.pools.close(&self.id);
        self.broker.reconciler.some([self.id.clone()]);
    }

    fn superseded(&self) -> Error {
        let message = format!("a newer instance has registered as {} of {}; do not come back", self.holder, self.id);
        Error::new(Reason::RegistrationSuperseded, self.id.as_str(), message)
    }

    fn removed(&self) -> Error {
        gone(&self.id)
    }
}

fn gone(id: &ExtensionId) -> Error {
    Error::new(Reason::ExtensionNotFound, id.as_str(), format!("{id} is not installed any more"))
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.broker.registrations.end(&self.id, self.epoch) {
            tracing::info!(extension = %self.id, epoch = self.epoch, holder = %self.holder, "a registration has ended");
            self.take_effect();
            if self.is_of_host() {
                // What ended meanwhile was not looked after.
                self.broker.reconciler.one_afresh(self.id.clone());
            }
        }
    }
}
