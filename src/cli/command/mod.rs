//! The commands that ask a running broker. Each file holds one: its arguments and what it does.

mod audit;
mod call;
#[cfg(unix)]
mod dev;
mod enable;
mod events;
mod exec;
mod execs;
mod grants;
mod info;
mod inspect;
mod install;
mod kill;
mod logs;
mod ls;
mod ps;
mod rm;
mod sessions;
mod validate;
mod version;

use std::process::ExitCode;

use clap::Subcommand;

use super::{Options, console::Console, failure::Failure};

/// A command that is a call, or some calls, to the broker.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Install an extension from an image, an archive or a directory
    Install(install::Install),
    /// Put another image in the place of an installed extension; where that fails, the old one is back
    Update(install::Update),
    /// List the installed extensions
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    /// Remove extensions; named volumes stay unless --volumes is given
    #[command(visible_alias = "uninstall")]
    Rm(rm::Rm),
    /// Start the containers of a disabled extension
    Enable(enable::Enable),
    /// Stop the containers of an extension; its files and volumes stay
    Disable(enable::Disable),
    /// Show what an extension is and what it would be granted
    Inspect(inspect::Inspect),
    /// Report every problem of an extension or of a metadata.json
    Validate(validate::Validate),
    /// Send an HTTP request to an extension's backend
    Call(call::Call),
    /// Run a program in an extension's backend, or on this machine for it
    Exec(exec::Exec),
    /// List the programs that run
    Execs(execs::Execs),
    /// End programs with everything they started, or send them a signal
    Kill(kill::Kill),
    /// List the open views of extensions
    Sessions(sessions::Sessions),
    /// Show which extension owns which container, network, volume and running program
    Ps(ps::Ps),
    /// Show what happens to extensions, as it happens
    Events(events::Events),
    /// Show what an extension's containers wrote
    Logs(logs::Logs),
    /// Show or change what an extension may do
    Grants(grants::Grants),
    /// Show what extensions did with what they were granted
    Audit(audit::Audit),
    /// Let a local process stand in for an extension's backend
    #[cfg(unix)]
    Dev(dev::Dev),
    /// Show versions, engine, capabilities and limits of the broker
    Info(info::Info),
    /// Show the versions of this program and of the broker
    Version(version::Version),
}

impl ClientCommand {
    /// The extension or source that the command is about; empty where there is none, or more than one.
    pub(super) fn subject(&self) -> String {
        match self {
            ClientCommand::Install(install) => install.source.clone(),
            ClientCommand::Update(update) => update.to.source.clone(),
            ClientCommand::Inspect(inspect) => inspect.subject.clone(),
            ClientCommand::Validate(validate) => validate.subject.clone(),
            ClientCommand::Enable(enable) => enable.extension.clone(),
            ClientCommand::Disable(disable) => disable.extension.clone(),
            ClientCommand::Call(call) => call.extension.clone(),
            ClientCommand::Exec(exec) => exec.extension.clone(),
            ClientCommand::Logs(logs) => logs.extension.clone(),
            ClientCommand::Grants(grants) => grants.extension.clone(),
            #[cfg(unix)]
            ClientCommand::Dev(dev) => dev.extension.clone(),
            ClientCommand::Audit(audit) => audit.extension.clone().unwrap_or_default(),
            ClientCommand::Ps(ps) => ps.extension.clone().unwrap_or_default(),
            ClientCommand::Events(events) => events.extension.clone().unwrap_or_default(),
            ClientCommand::Execs(execs) => execs.extension.clone().unwrap_or_default(),
            ClientCommand::Sessions(sessions) => sessions.extension.clone().unwrap_or_default(),
            ClientCommand::Ls(_)
            | ClientCommand::Rm(_)
            | ClientCommand::Kill(_)
            | ClientCommand::Info(_)
            | ClientCommand::Version(_) => String::new(),
        }
    }

    /// What becomes of the work when Ctrl-C ends the command.
    pub(super) fn interrupt_note(&self) -> Option<&'static str> {
        match self {
            ClientCommand::Install(install) if install.detach => Some("interrupted; the broker goes on installing"),
            ClientCommand::Update(update) if update.to.detach => Some("interrupted; the broker goes on updating"),
            ClientCommand::Install(_) | ClientCommand::Update(_) => {
                Some("interrupted; the broker undoes what was begun")
            }
            _ => None,
        }
    }

    /// Whether the command sees to Ctrl-C itself.
    pub(super) fn ends_itself(&self) -> bool {
        #[cfg(unix)]
        return matches!(self, ClientCommand::Dev(_));
        #[cfg(windows)]
        false
    }

    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        match self {
            ClientCommand::Install(install) => install.run(console, options).await,
            ClientCommand::Update(update) => update.run(console, options).await,
            ClientCommand::Ls(ls) => ls.run(console, options).await,
            ClientCommand::Rm(rm) => rm.run(console, options).await,
            ClientCommand::Enable(enable) => enable.run(console, options).await,
            ClientCommand::Disable(disable) => disable.run(console, options).await,
            ClientCommand::Inspect(inspect) => inspect.run(console, options).await,
            ClientCommand::Validate(validate) => validate.run(console, options).await,
            ClientCommand::Call(call) => call.run(console, options).await,
            ClientCommand::Exec(exec) => exec.run(console, options).await,
            ClientCommand::Execs(execs) => execs.run(console, options).await,
            ClientCommand::Kill(kill) => kill.run(console, options).await,
            ClientCommand::Sessions(sessions) => sessions.run(console, options).await,
            ClientCommand::Ps(ps) => ps.run(console, options).await,
            ClientCommand::Events(events) => events.run(console, options).await,
            ClientCommand::Logs(logs) => logs.run(console, options).await,
            ClientCommand::Grants(grants) => grants.run(console, options).await,
            ClientCommand::Audit(audit) => audit.run(console, options).await,
            #[cfg(unix)]
            ClientCommand::Dev(dev) => dev.run(console, options).await,
            ClientCommand::Info(info) => info.run(console, options).await,
            ClientCommand::Version(version) => version.run(console, options).await,
        }
    }
}
