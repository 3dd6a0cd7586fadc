//! What a hub says of the programs that live, and how it ends some of them: the same wherever they run.

use super::{
    execution::{ExecInfo, ExecView},
    handle::ExecHandle,
    hub::Hub,
    living::{ExecCounts, ExecFilter, Left, Life},
    program::Cause,
};

impl Hub {
    /// Has `listener` told of every exec that comes or is gone from now on. It must neither wait nor ask for execs.
    pub fn listen(&self, listener: impl Fn(&ExecInfo, Life<'_>) + Send + Sync + 'static) {
        self.living.listen(listener);
    }

    /// The execs that live, the oldest first: those whose call goes on, and those whose tree outlived it. How each
    /// program ended is shown at once.
    pub fn execs(&self, filter: ExecFilter<'_>) -> Vec<ExecView> {
        self.living.list(filter)
    }

    /// How many execs there were and are.
    pub fn counts(&self) -> ExecCounts {
        self.living.counts()
    }

    /// A living exec by its id.
    pub fn find(&self, exec_id: &str) -> Option<ExecHandle> {
        self.living.find(exec_id).map(ExecHandle)
    }

    /// Ends every program of a session, and what its programs left running, all at once, and waits until they are gone.
    /// What is started meanwhile is not among them: stop accepting first.
    pub async fn end_session(&self, session: &str) -> Left {
        self.living.end(ExecFilter::Session(session), Cause::SessionEnded).await
    }

    /// The same for every program of an extension.
    pub async fn end_all_of(&self, extension: &str) -> Left {
        self.living.end(ExecFilter::Owner(extension), Cause::OwnerEnded).await
    }
}
