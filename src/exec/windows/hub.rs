//! All programs: on the host each in a job of its own, in containers by the engine alone.

use std::{path::Path, sync::Arc};

use super::{
    engine_only,
    ids::ExecIds,
    in_container::InContainer,
    link::Link,
    living::{ExecFilter, Left, Living},
    program::{Cause, Containment, Program},
    run::Run,
    tunnel::Visits,
};
use crate::model::error::{Error, Reason, Result};

/// What a hub needs to know.
#[derive(Debug, Default)]
pub struct HubOptions {
    /// Where those would be handed that come to the doors of tunnels.
    pub visits: Option<Visits>,
}

/// All programs. Dropped, it ends what it runs.
#[derive(Debug)]
pub struct Hub {
    pub(super) living: Arc<Living>,
    ids: Arc<ExecIds>,
    host: Arc<Link>,
    _visits: Option<Visits>,
}

impl Hub {
    /// A hub that runs nothing yet.
    pub fn new(options: HubOptions) -> Self {
        let (living, ids) = (Arc::<Living>::default(), Arc::new(ExecIds::new()));
        let host = Arc::new(Link::new(living.clone(), ids.clone()));
        Hub { host, living, ids, _visits: options.visits }
    }

    /// The way to programs on the host.
    ///
    /// # Errors
    ///
    /// None here.
    pub fn host(&self) -> Result<Arc<Link>> {
        Ok(self.host.clone())
    }

    /// What holds programs on the host together.
    pub fn host_containment(&self) -> (Containment, Option<String>) {
        (Containment::Job, None)
    }

    /// The link to a shim in a container, which cannot be there.
    ///
    /// # Errors
    ///
    /// `SHIM_UNAVAILABLE`.
    #[expect(clippy::unused_async, reason = "as where there is one")]
    pub async fn container(&self, _place: InContainer<'_>) -> Result<Arc<Link>> {
        self.runs_in_containers().map(|()| self.host.clone())
    }

    /// Runs a program in a container, by the engine alone, which [`crate::exec::ExecInfo::engine_only`] says.
    ///
    /// # Errors
    ///
    /// `ARGV_INVALID`, `REQUEST_INVALID`, `LIMIT_REACHED`, `BACKEND_STOPPED`, `CONTAINER_PAUSED`, `RESOURCE_NOT_FOUND`,
    /// `ENGINE_UNAVAILABLE`, `ENGINE_REFUSED`.
    pub async fn run_in_container(&self, place: InContainer<'_>, program: &Program) -> Result<Run> {
        engine_only::run(place, program, &self.living, &self.ids).await
    }

    /// Puts nothing into an extension's broker directory.
    ///
    /// # Errors
    ///
    /// None here.
    #[expect(clippy::unused_async, reason = "as where there is a shim")]
    pub async fn place_copy(&self, _broker_dir: &Path) -> Result<()> {
        Ok(())
    }

    /// Ends every program.
    pub async fn shutdown(&self) -> Left {
        self.living.end(ExecFilter::All, Cause::BrokerStopping).await
    }

    /// The binary that would be the shim.
    pub fn shim(&self) -> &Path {
        Path::new("")
    }

    /// Whether the shim can run in containers at all.
    ///
    /// # Errors
    ///
    /// `SHIM_UNAVAILABLE`: it needs the kernel that containers run on.
    pub fn runs_in_containers(&self) -> Result<()> {
        let message = "the helper is a Linux program, and this broker runs on Windows";
        Err(Error::new(Reason::ShimUnavailable, "", message))
    }

    /// Whether a process is a program that we run on the host, or was started by one.
    pub fn is_descendant(&self, pid: i32) -> bool {
        self.host.keeps(pid.cast_unsigned())
    }
}
