//! What programs on the host are started over. There is no shim: a job does its part.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{
    connect::ConnectError,
    execution::{Execution, KeptBy, Parts},
    ids::ExecIds,
    job::Job,
    keeper::Keeper,
    limit::limit,
    living::Living,
    pipes::Pipes,
    program::Program,
    run::Run,
};
use crate::{
    local::Stream,
    model::error::{Error, Reason, Result},
    shim::{caller, wire::StartReason},
};

/// The longest command line that the system takes, with its quotes.
const MAX_COMMAND_BYTES: usize = 32_000;

/// The way to programs on the host.
#[derive(Debug)]
pub struct Link {
    living: Arc<Living>,
    ids: Arc<ExecIds>,
    jobs: Mutex<Vec<Weak<Job>>>,
}

impl Link {
    pub(super) fn new(living: Arc<Living>, ids: Arc<ExecIds>) -> Self {
        Link { living, ids, jobs: Mutex::default() }
    }

    /// Starts a program. A program that cannot be started is told by the stream, not by an error.
    ///
    /// # Errors
    ///
    /// `ARGV_INVALID`, `REQUEST_INVALID`, also for one that is to have a terminal; `LIMIT_REACHED` where no pipes or no
    /// job can be made.
    pub async fn run(&self, program: &Program) -> Result<Run> {
        if program.tty.is_some() {
            let message = "programs on the host get no terminal on Windows; run it without";
            return Err(Error::new(Reason::RequestInvalid, "tty", message));
        }
        let start = program.to_start(false)?;
        let id = self.ids.next();
        if start.argv.iter().map(|argument| argument.len() + 3).sum::<usize>() > MAX_COMMAND_BYTES {
            let message = "the arguments are longer than the system takes".to_owned();
            return Ok(Run::not_started(id, StartReason::ArgumentsTooLong, message));
        }
        let Pipes { outputs, input, far } = Pipes::open(program.stdin, true).map_err(limit)?;
        let (channel, keeper_channel) = caller::pair().map_err(limit)?;
        let job = Arc::new(Job::new().map_err(limit)?);
        self.enter(&job);
        Keeper::start(&start, far, job, keeper_channel);
        let info = program.info(id, None, false);
        let grace = program.grace;
        let parts = Parts { info, kept_by: KeptBy::Host, channel, input, terminal: None, squeeze: None, grace };
        Ok(Run::begin(Arc::new(Execution::new(parts, &self.living)), &self.living, outputs, program))
    }

    fn enter(&self, job: &Arc<Job>) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.retain(|job| job.strong_count() > 0);
        jobs.push(Arc::downgrade(job));
    }

    /// Whether a process is in the job of one of the programs; also true, once one runs, where that cannot be told.
    pub(super) fn keeps(&self, pid: u32) -> bool {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.iter().filter_map(Weak::upgrade).any(|job| job.has(pid).unwrap_or(true))
    }

    /// Completes when the shim has gone: there is none.
    #[expect(clippy::unused_async, reason = "as where there is one")]
    pub async fn closed(&self) {}

    /// Connects to a socket in a container, which cannot be done from here.
    ///
    /// # Errors
    ///
    /// Always.
    #[expect(clippy::unused_async, reason = "as where it can be")]
    pub async fn connect(&self, _dir: &str, _name: &str) -> Result<Stream, ConnectError> {
        let message = "sockets in containers are not reached from Windows".to_owned();
        Err(ConnectError::other(message))
    }
}
