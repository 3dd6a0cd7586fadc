//! What this process asks of the system for itself.

use std::{future::Future, sync::Arc};

use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};

use crate::{
    exec::{HubOptions, Visits},
    model::error::{Error, Result},
    store::Store,
    user::User,
};

/// What programs need to know, most of which means nothing here.
#[expect(dead_code, reason = "it is the same struct elsewhere")]
pub(super) struct Needs<'a> {
    pub(super) open_files: Option<u64>,
    pub(super) store: &'a Store,
    pub(super) run: &'a str,
    pub(super) run_as: Option<Arc<User>>,
    pub(super) visits: Visits,
}

/// How programs are run.
pub(super) fn hub_options(needs: Needs<'_>) -> HubOptions {
    HubOptions { visits: Some(needs.visits) }
}

/// Completes at the first Ctrl-C or Ctrl-Break, when the console is closed, or when the machine is shut down.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>> {
    let failed = |e| Error::bug("cannot listen for signals").caused_by(e);
    let (mut c, mut brk) = (ctrl_c().map_err(failed)?, ctrl_break().map_err(failed)?);
    let (mut close, mut shutdown) = (ctrl_close().map_err(failed)?, ctrl_shutdown().map_err(failed)?);
    Ok(async move {
        tokio::select! {
            _ = c.recv() => {}
            _ = brk.recv() => {}
            _ = close.recv() => {}
            _ = shutdown.recv() => {}
        }
    })
}

/// Nothing to be done: a job keeps what a program starts.
pub(super) fn adopt_orphans() {}

/// Nothing to be done.
pub(super) fn keep_memory() {}

/// There is no such limit.
pub(super) fn raise_descriptor_limit() -> Option<u64> {
    None
}
