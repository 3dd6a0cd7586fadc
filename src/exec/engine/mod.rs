//! Programs that the engine alone runs, in containers that the shim cannot run in: another kernel stands between (gVisor,
//! Kata, a virtual machine), or the binary of this broker needs a loader.
//!
//! A task plays the keeper's part towards the run, so that everything else is as with a shim. What is lost: the engine can
//! neither signal nor kill a program, nor tell a signal from a code, nor say what a program left running.

pub(super) mod client;
pub(super) mod frames;
mod keeper;

use std::{path::Path, sync::Arc};

use serde_json::json;

use self::{client::Client, keeper::Keeper};
use super::{
    execution::{Execution, Parts, Place},
    ids::ExecIds,
    limit::limit,
    living::Living,
    pipes::Pipes,
    program::{Program, Stdin},
    run::Run,
};
use crate::{
    model::error::{Error, Reason, Result},
    shim::caller,
};

/// Gives a container a process limit by Podman's own API: of Docker's, Podman 4 has no `update`. 0 is none.
///
/// Errors: RESOURCE_NOT_FOUND where the container is not there, or the engine is not Podman; ENGINE_REFUSED,
/// ENGINE_UNAVAILABLE.
pub(super) async fn podman_pids_limit(socket: &Path, container: &str, limit: i64) -> Result<()> {
    let limit = if limit == 0 { -1 } else { limit };
    let mut client = Client::connect(socket).await?;
    client.post_to_podman(&format!("/containers/{container}/update"), &json!({"pids": {"limit": limit}})).await
}

/// Where to run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order<'a> {
    /// The engine's socket.
    pub(super) socket: &'a Path,
    /// The container's full id.
    pub(super) container: &'a str,
    /// As whom; `None` is the container's own user.
    pub(super) user: Option<&'a str>,
}

/// Starts a program. One that cannot be started is told by the stream.
///
/// # Errors
///
/// `ARGV_INVALID`, `REQUEST_INVALID`, `LIMIT_REACHED`, `CONTAINER_PAUSED`, `BACKEND_STOPPED`, `RESOURCE_NOT_FOUND`,
/// `ENGINE_UNAVAILABLE`, `ENGINE_REFUSED`.
pub(super) async fn run(order: Order<'_>, program: &Program, living: &Arc<Living>, ids: &ExecIds) -> Result<Run> {
    // Checks it.
    program.to_start(false)?;
    let mut client = Client::connect(order.socket).await?;
    let exec = create(&mut client, order, program).await?;
    let Pipes { outputs, input, far } = Pipes::open(program.stdin, program.tty.is_none()).map_err(limit)?;
    let (channel, keeper_channel) = caller::pair().map_err(limit)?;
    let stream = client.attach(&exec, program.tty.is_some()).await?;
    if let Some(size) = program.tty {
        client.resize(&exec, size.columns, size.rows).await;
    }
    let info = program.info(ids.next(), Some(order.container.to_owned()), true);
    let keeper = Keeper::new(client, exec, keeper_channel, far.watched().map_err(limit)?);
    tokio::spawn(keeper.keep(stream));
    let parts =
        Parts { info, place: Place::Engine, channel, input, terminal: None, squeeze: None, grace: program.grace };
    Ok(Run::begin(Arc::new(Execution::new(parts, living)), living, outputs, program))
}

async fn create(client: &mut Client, order: Order<'_>, program: &Program) -> Result<String> {
    let env: Vec<_> = program.env.vars.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut body = json!({
        "AttachStdin": program.stdin == Stdin::Piped,
        "AttachStdout": true,
        "AttachStderr": true,
        "Tty": program.tty.is_some(),
        "Cmd": program.argv,
        "Env": env,
    });
    for (field, value) in [("User", order.user), ("WorkingDir", program.cwd.as_deref())] {
        if let Some(value) = value {
            body[field] = value.into();
        }
    }
    let created = client.post(&format!("/containers/{}/exec", order.container), &body, order.container).await?;
    let id = created.get("Id").and_then(|id| id.as_str()).map(ToOwned::to_owned);
    id.ok_or_else(|| Error::new(Reason::EngineRefused, order.container, "the engine made an exec without an id"))
}
