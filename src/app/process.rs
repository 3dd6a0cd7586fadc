//! What this process asks of the system for itself.

use std::{future::Future, sync::Arc};

use rustix::process::{getpid, set_child_subreaper};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    exec::{HubOptions, SqueezeJournal, Visits, look_after_adopted},
    model::error::{Error, Result},
    store::Store,
    user::User,
};

/// Freed memory that is kept for the next pieces of bodies: to have it from the kernel anew costs more than to fill it.
const KEPT_BYTES: libc::c_int = 4 << 20;

/// What programs need to know.
pub(super) struct Needs<'a> {
    /// The soft limit of descriptors that those on the host get.
    pub(super) open_files: Option<u64>,
    pub(super) store: &'a Store,
    /// The name of this run.
    pub(super) run: &'a str,
    /// As whom those on the host run, where that is not our own user.
    pub(super) run_as: Option<Arc<User>>,
    /// Where those are handed that come through tunnels.
    pub(super) visits: Visits,
}

/// How programs are run.
pub(super) fn hub_options(needs: Needs<'_>) -> HubOptions {
    HubOptions {
        max_open_files: needs.open_files,
        is_subreaper: is_subreaper(),
        squeeze_journal: Some(squeeze_journal(needs.store, needs.run)),
        run_as: needs.run_as,
        visits: Some(needs.visits),
        ..HubOptions::default()
    }
}

/// Squeezed process limits are written down in the store.
fn squeeze_journal(store: &Store, run: &str) -> SqueezeJournal {
    let (notes, settles, run) = (store.clone(), store.clone(), run.to_owned());
    SqueezeJournal {
        note: Box::new(move |container, limit| {
            let (store, run) = (notes.clone(), run.clone());
            Box::pin(async move { store.note_squeezed(container, limit, run).await })
        }),
        settle: Box::new(move |container| {
            let store = settles.clone();
            Box::pin(async move { store.settle_squeezed(container).await })
        }),
    }
}

/// Whether `app` had the kernel hand orphans to this process: not where a broker runs inside another program.
fn is_subreaper() -> bool {
    rustix::process::child_subreaper().is_ok_and(|set| set.is_some())
}

/// Completes at the first SIGTERM or SIGINT.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).map_err(|e| Error::bug("cannot listen for signals").caused_by(e));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Makes this process the parent of programs that killed those that were to keep them.
pub(super) fn adopt_orphans() {
    let adopting = look_after_adopted().and_then(|()| Ok(set_child_subreaper(Some(getpid()))?));
    if let Err(error) = adopting {
        tracing::warn!(%error, "programs that kill their keeper cannot be held");
    }
}

/// Has the C library keep freed memory, up to [`KEPT_BYTES`], and in one place for all threads.
pub(super) fn keep_memory() {
    // SAFETY: these set numbers inside the C library, before there are other threads.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Raises the soft limit of open descriptors to the hard one and returns what it was, for the programs we run.
pub(super) fn raise_descriptor_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open descriptors stays as it is");
    }
    before.current
}
