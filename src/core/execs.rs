//! Programs that run: listed and found.

use super::Broker;
use crate::{
    exec::{ExecFilter, ExecHandle, ExecView},
    model::{
        error::{Error, Reason, Result},
        reference::ExtensionId,
    },
};

impl Broker {
    /// The programs that run, or whose children or output do: all, or those of an extension, or of a session.
    pub fn execs(&self, extension: Option<&ExtensionId>, session: Option<&str>) -> Vec<ExecView> {
        let mut execs = match (extension, session) {
            (_, Some(session)) => self.hub.execs(ExecFilter::Session(session)),
            (Some(extension), None) => self.hub.execs(ExecFilter::Owner(extension.as_str())),
            (None, None) => self.hub.execs(ExecFilter::All),
        };
        execs.retain(|exec| extension.is_none_or(|extension| exec.info.owner == extension.as_str()));
        execs
    }

    /// One of them by its id; of `extension` only, where that is given.
    ///
    /// # Errors
    ///
    /// `EXEC_NOT_FOUND`.
    pub fn exec(&self, extension: Option<&ExtensionId>, exec_id: &str) -> Result<ExecHandle> {
        let found = self.hub.find(exec_id);
        found.filter(|exec| extension.is_none_or(|extension| exec.info().owner == extension.as_str())).ok_or_else(
            || {
                let message = format!("no program {exec_id:?} runs: it has ended, or never was");
                Error::new(Reason::ExecNotFound, exec_id, message)
            },
        )
    }
}
