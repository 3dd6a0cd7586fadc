//! Programs that the engine alone runs, in containers that the shim cannot run in: another kernel stands between (gVisor,
//! Kata, a virtual machine), or the binary of this broker needs a loader.
//!
//! A task plays the keeper's part towards the run, so that everything else is as with a shim. What is lost: the engine can
//! neither signal nor kill a program, nor tell a signal from a code, nor say what a program left running.

mod keeper;

use std::sync::Arc;

use self::keeper::Keeper;
use super::{
    execution::{Execution, KeptBy, Parts},
    ids::ExecIds,
    in_container::InContainer,
    instance::{Command, Instance},
    limit::limit,
    living::Living,
    pipes::Pipes,
    program::{Program, Stdin},
    run::Run,
};
use crate::{
    dockerd::Failure,
    model::error::{Error, Reason, Result},
    shim::caller,
};

/// What the engine answers where something cannot be done now.
const CONFLICT: u16 = 409;

/// Starts a program. One that cannot be started is told by the stream.
///
/// # Errors
///
/// `ARGV_INVALID`, `REQUEST_INVALID`, `LIMIT_REACHED`, `CONTAINER_PAUSED`, `BACKEND_STOPPED`, `RESOURCE_NOT_FOUND`,
/// `ENGINE_UNAVAILABLE`, `ENGINE_REFUSED`.
pub(super) async fn run(place: InContainer<'_>, program: &Program, living: &Arc<Living>, ids: &ExecIds) -> Result<Run> {
    // Checks it.
    program.to_start(false)?;
    let instance = Instance::create(place, command(program)).await.map_err(why)?;
    let Pipes { outputs, input, far } = Pipes::open(program.stdin, program.tty.is_none()).map_err(limit)?;
    let (channel, keeper_channel) = caller::pair().map_err(limit)?;
    let stream = instance.attach().await.map_err(why)?;
    if let Some(size) = program.tty {
        instance.resize(size.columns, size.rows).await;
    }
    let info = program.info(ids.next(), Some(place.container.to_owned()), true);
    let keeper = Keeper::new(instance, keeper_channel, far.watched().map_err(limit)?);
    tokio::spawn(keeper.keep(stream));
    let parts =
        Parts { info, kept_by: KeptBy::Engine, channel, input, terminal: None, squeeze: None, grace: program.grace };
    Ok(Run::begin(Arc::new(Execution::new(parts, living)), living, outputs, program))
}

fn command(program: &Program) -> Command<'_> {
    Command {
        argv: program.argv.clone(),
        env: program.env.vars.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        cwd: program.cwd.as_deref(),
        has_stdin: program.stdin == Stdin::Piped,
        has_terminal: program.tty.is_some(),
    }
}

/// Why there is no program. That none can be had where nothing runs is said in words only.
fn why(failure: Failure) -> Error {
    match failure {
        Failure::Refused(refusal) if refusal.status == CONFLICT => {
            let is_paused = refusal.message.contains("paused");
            let reason = if is_paused { Reason::ContainerPaused } else { Reason::BackendStopped };
            let message = refusal.to_string();
            Error::new(reason, refusal.subject, message)
        }
        other => other.into(),
    }
}
