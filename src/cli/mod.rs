//! The command line: a client of the API and of nothing else.
//!
//! [`parse`] reads the arguments, [`run`] carries out every command that is a call to the broker. `serve`, `repair`, `doctor`,
//! `completions` and `shim` are parsed here as well, and run by whoever called [`parse`].

mod advice;
mod command;
pub mod completions;
mod connect;
mod consent;
mod console;
pub mod doctor;
mod failure;
mod pages;
mod progress;
#[cfg_attr(windows, path = "signals_windows.rs")]
mod signals;
mod source;
mod table;
#[cfg_attr(windows, path = "terminal_windows.rs")]
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod view;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::config::{DoctorArgs, RepairArgs, ServeArgs};

pub use self::command::ClientCommand;
use self::{console::Console, failure::Failure};

/// What shells add to the number of a signal that ended a program.
const SIGNAL_BASE: u8 = 128;
/// Exit code after Ctrl-C, as a shell reports a death by SIGINT.
const INTERRUPTED: u8 = SIGNAL_BASE + 2;
/// Exit code when the program is there and cannot be executed, as shells have it.
const NOT_EXECUTABLE: u8 = 126;
/// Exit code when there is no such program, as shells have it.
const NOT_FOUND: u8 = 127;

/// Runs Docker Desktop extensions on any Docker engine
#[derive(Debug, Parser)]
#[command(name = "longshore", version, propagate_version = false, max_term_width = 100, after_help = EXIT_CODES)]
#[command(disable_help_subcommand = true, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Options that every command has.
    #[command(flatten)]
    pub options: Options,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  0    done
  1    failed; standard error says why and what to do
  2    the command line is wrong
  22   call: the backend answered with a status of 400 or above
  124  exec: --timeout ended the program
  125  exec: the program was not run
  126  exec, dev: the program cannot be executed (127: not found)
  130  interrupted with Ctrl-C
exec and dev pass on the program's exit code, 128 + n when signal n ended it.";

/// Options that every command has.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The broker's socket [default: $LONGSHORE_SOCKET, else where `serve` puts it]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Global options")]
    pub socket: Option<PathBuf>,
    /// Print JSON: one document, or one line for each event
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker
    Serve(ServeArgs),
    /// List what a lost or damaged store held and can be found again; no broker may run meanwhile
    ///
    /// Of a broker for several users, one user's is repaired at a time: --data-dir is `users/UID` in its data directory.
    Repair(RepairArgs),
    /// Look what is wrong on this machine and say what to do; changes nothing, and needs neither broker nor engine
    Doctor(DoctorArgs),
    /// Print what makes a shell complete the command line
    Completions(completions::Completions),
    /// Stand between the broker and its programs
    #[command(hide = true)]
    Shim(ShimArgs),
    /// Anything that a running broker is asked to do.
    #[command(flatten)]
    Client(ClientCommand),
}

/// Arguments of the hidden `shim` command; the shim reads them itself.
#[derive(Debug, Args)]
pub struct ShimArgs {
    /// Passed through as they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// Reads the arguments of this process. Prints help, version and usage errors itself, and ends the process for them.
pub fn parse() -> Cli {
    Cli::parse()
}

/// Carries out one command in a runtime of its own.
pub fn main(options: Options, command: ClientCommand) -> ExitCode {
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let code = runtime.block_on(run(options, command));
    // A read of the terminal, or a write to a reader who stalls, would hold the exit for ever.
    runtime.shutdown_background();
    code
}

/// Carries out one command against the broker and says with which code to exit.
pub async fn run(options: Options, command: ClientCommand) -> ExitCode {
    let mut console = Console::of_process(options.json);
    match run_on(&mut console, options, command).await {
        Ok(code) => code,
        Err(failure) => {
            // Nobody is left to tell when this fails as well.
            let _ = console.failure(&failure).await;
            failure.exit_code()
        }
    }
}

/// The same on a given console. Ctrl-C drops the command, and with it the call: the broker undoes or kills.
async fn run_on(console: &mut Console, options: Options, command: ClientCommand) -> Result<ExitCode, Failure> {
    let subject = command.subject();
    if command.ends_itself() {
        return command.run(console, &options).await.map_err(|failure| failure.about(&subject));
    }
    let note = command.interrupt_note();
    let outcome = tokio::select! {
        outcome = command.run(console, &options) => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted(note)),
    };
    outcome.map_err(|failure| failure.about(&subject))
}
