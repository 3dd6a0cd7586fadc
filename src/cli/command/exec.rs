//! `longshore exec`.

use std::{collections::HashMap, env, process::ExitCode};

use clap::Args;

use crate::{
    cli::{Options, connect::Broker, console::Console, failure::Failure, view::run::event_json},
    pb::{self, exited::Outcome, run_response::Event},
};

/// Exit code when the broker refused, or the end is not known; that of `docker run`.
const NOT_RUN: u8 = 125;
/// Exit code when the program is there and cannot be executed, as shells have it.
const NOT_EXECUTABLE: u8 = 126;
/// Exit code when there is no such program, as shells have it.
const NOT_FOUND: u8 = 127;
/// What shells add to the number of a signal.
const SIGNAL_BASE: i32 = 128;

/// Arguments of `exec`.
#[derive(Debug, Args)]
#[command(after_help = "\
The program's exit code is passed on, 128 + n when signal n ended it.
125: it was not run; 126: it cannot be executed; 127: it was not found.
Ctrl-C ends it, with everything it started; the exit code is 130 then.")]
pub struct Exec {
    /// Extension to run it for
    pub(super) extension: String,
    /// Run it in a container of the backend (the default)
    #[arg(long, conflicts_with = "host")]
    backend: bool,
    /// Run it on this machine: a program of the extension, or one that it was granted
    #[arg(long)]
    host: bool,
    /// Service to run it in [default: the backend service]
    #[arg(long, short, value_name = "NAME", conflicts_with = "host")]
    service: Option<String>,
    /// Working directory, absolute
    #[arg(long, short = 'w', value_name = "DIR")]
    cwd: Option<String>,
    /// Set a variable; without a value, pass on the one of this shell; can be given again
    #[arg(long = "env", short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    argv: Vec<String>,
}

impl Exec {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        self.stream(console, options).await.map_err(|failure| failure.exiting_unless_silent(NOT_RUN))
    }

    async fn stream(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let request = pb::RunRequest {
            target: self.target().into(),
            env: variables(&self.env),
            extension: self.extension,
            argv: self.argv,
            cwd: self.cwd.unwrap_or_default(),
            service: self.service.unwrap_or_default(),
            ..Default::default()
        };
        let broker = Broker::connect(options).await?;
        let mut events = broker.exec().run(request).await?.into_inner();
        let mut code = None;
        while let Some(message) = events.message().await? {
            let Some(event) = message.event else { continue };
            if console.wants_json() {
                console.print_json(&event_json(&event)).await?;
            }
            match event {
                Event::Output(output) if !console.wants_json() => write(console, &output).await?,
                Event::Exited(exited) => code = Some(end(console, exited).await?),
                Event::Output(_) | Event::Started(_) | Event::Drained(_) => {}
            }
        }
        code.ok_or_else(|| Failure::new("the broker did not say how the program ended"))
    }

    fn target(&self) -> pb::ExecTarget {
        if self.host { pb::ExecTarget::Host } else { pb::ExecTarget::Backend }
    }
}

fn variables(arguments: &[String]) -> HashMap<String, String> {
    let read = |argument: &String| match argument.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => env::var(argument).ok().map(|value| (argument.clone(), value)),
    };
    arguments.iter().filter_map(read).collect()
}

async fn write(console: &mut Console, output: &pb::Output) -> Result<(), Failure> {
    match output.stream() {
        pb::OutputStream::Stderr => console.write_err(&output.data).await?,
        _ => console.write_out(&output.data).await?,
    }
    Ok(())
}

/// The exit code for the end of the program. What only we can tell goes to standard error.
async fn end(console: &mut Console, exited: pb::Exited) -> Result<ExitCode, Failure> {
    let (code, message) = match exited.outcome {
        Some(Outcome::Code(code)) => (code.try_into().unwrap_or(NOT_RUN), None),
        Some(Outcome::CodeOrSignal(code)) => (code.try_into().unwrap_or(NOT_RUN), None),
        Some(Outcome::Signal(death)) => ((SIGNAL_BASE + death.number).try_into().unwrap_or(u8::MAX), None),
        Some(Outcome::StartFailure(failure)) => (start_code(&failure.reason), Some(start_text(&failure))),
        Some(Outcome::Unknown(unknown)) => (NOT_RUN, Some(format!("how it ended is not known: {}", unknown.message))),
        None => (NOT_RUN, Some("how it ended is not known".into())),
    };
    if let Some(message) = message.filter(|_| !console.wants_json()) {
        console.failure(&Failure::new(message)).await?;
    }
    Ok(ExitCode::from(code))
}

/// What the system says, without the number that Rust adds.
fn start_text(failure: &pb::StartFailure) -> String {
    let text = failure.message.split(" (os error").next().unwrap_or_default();
    if failure.reason == "DIRECTORY_NOT_FOUND" { format!("working directory {text}") } else { text.to_owned() }
}

fn start_code(reason: &str) -> u8 {
    match reason {
        "PROGRAM_NOT_FOUND" => NOT_FOUND,
        "NOT_EXECUTABLE" | "WRONG_FORMAT" => NOT_EXECUTABLE,
        _ => NOT_RUN,
    }
}
