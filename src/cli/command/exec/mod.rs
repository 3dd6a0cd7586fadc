//! `longshore exec`.

mod end;
mod talk;

use std::{collections::HashMap, env, process::ExitCode, time::Duration};

use clap::Args;

use self::{end::NOT_RUN, talk::Talk};
use crate::{
    cli::{Options, connect::Connection, console::Console, failure::Failure, terminal::Terminal, text::parse_limit},
    pb,
};

/// What programs look at to know what their terminal understands.
const TERMINAL_VARIABLE: &str = "TERM";

/// Arguments of `exec`.
#[derive(Debug, Args)]
#[command(after_help = "\
The program's exit code is passed on, 128 + n when signal n ended it.
124: --timeout ended it; 125: it was not run; 126: it cannot be executed;
127: it was not found.
Ctrl-C ends it, with everything it started; the exit code is 130 then. With -it
Ctrl-C is typed to the program like any other key, and the program ends when
this command does, whatever ends it.")]
pub struct Exec {
    /// Extension to run it for
    pub(super) extension: String,
    /// Run it in a container of the backend (the default)
    #[arg(long, conflicts_with_all = ["host", "docker"])]
    backend: bool,
    /// Run it on this machine: a program of the extension, or one that it was granted
    #[arg(long, conflicts_with = "docker")]
    host: bool,
    /// Run the docker CLI as the extension does; COMMAND is its arguments
    #[arg(long)]
    docker: bool,
    /// Pass standard input on to it
    #[arg(long, short)]
    interactive: bool,
    /// Give it a terminal; with -i, this one
    #[arg(long, short)]
    tty: bool,
    /// Service to run it in [default: the backend service]
    #[arg(long, short, value_name = "NAME", conflicts_with_all = ["host", "docker"])]
    service: Option<String>,
    /// Working directory, absolute
    #[arg(long, short = 'w', value_name = "DIR")]
    cwd: Option<String>,
    /// Set a variable; without a value, pass on the one of this shell; can be given again
    #[arg(long = "env", short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// How long it may run; then it is ended, with everything it started [default: as long as it likes]
    #[arg(long, value_name = "TIME", value_parser = parse_limit)]
    timeout: Option<Duration>,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    argv: Vec<String>,
}

impl Exec {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        self.carry_out(console, options).await.map_err(|failure| failure.exiting_unless_silent(NOT_RUN))
    }

    async fn carry_out(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let terminal = self.terminal(console)?;
        let input = self.interactive.then(|| console.take_input());
        let timeout = self.timeout;
        let start = self.start(terminal.as_ref());
        let broker = Connection::open(options).await?;
        let end = Talk { start, input, terminal }.hold(console, &broker).await?;
        end.report(console, timeout).await
    }

    /// The terminal whose place the program's takes, where it shall have one.
    fn terminal(&self, console: &Console) -> Result<Option<Terminal>, Failure> {
        if !self.tty {
            return Ok(None);
        }
        if console.wants_json() {
            return Err(Failure::with_advice("a terminal shows no JSON", "leave out --tty or --json"));
        }
        if !self.interactive {
            return Ok(Some(Terminal::to_look_at()));
        }
        let terminal = if console.reads_terminal() { Terminal::to_type_at() } else { None };
        match terminal {
            Some(terminal) => Ok(Some(terminal)),
            None => Err(Failure::with_advice("standard input is no terminal", "leave out --tty (-t)")),
        }
    }

    fn start(self, terminal: Option<&Terminal>) -> pb::ExecStart {
        let mut variables = variables(&self.env);
        if let (Some(_), Ok(kind)) = (terminal, env::var(TERMINAL_VARIABLE)) {
            variables.entry(TERMINAL_VARIABLE.into()).or_insert(kind);
        }
        let limits = self.timeout.map(|timeout| pb::ExecLimits { wall: timeout.try_into().ok(), ..Default::default() });
        pb::ExecStart {
            target: self.target().into(),
            extension: self.extension,
            argv: self.argv,
            cwd: self.cwd.unwrap_or_default(),
            env: variables,
            service: self.service.unwrap_or_default(),
            stdin: self.interactive,
            terminal: terminal.map(Terminal::size),
            limits,
            ..Default::default()
        }
    }

    fn target(&self) -> pb::ExecTarget {
        match (self.host, self.docker) {
            (true, _) => pb::ExecTarget::Host,
            (_, true) => pb::ExecTarget::Docker,
            _ => pb::ExecTarget::Backend,
        }
    }
}

fn variables(arguments: &[String]) -> HashMap<String, String> {
    let read = |argument: &String| match argument.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => env::var(argument).ok().map(|value| (argument.clone(), value)),
    };
    arguments.iter().filter_map(read).collect()
}
