//! `longshore kill`.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;

use crate::{
    cli::{
        Options,
        connect::Connection,
        console::Console,
        failure::Failure,
        text::{count, parse_span},
        view::exec::TerminationView,
    },
    pb::{self, signal_request::Action},
};

/// Arguments of `kill`.
#[derive(Debug, Args)]
#[command(after_help = "\
A program is ended with everything it started: SIGTERM, and after the grace time
SIGKILL, until all of it is gone. The exit code is 1 where something is left.
With --signal only the program itself gets a signal, and nothing is waited for.")]
pub struct Kill {
    /// Programs to end, as `longshore execs` names them
    #[arg(required = true, value_name = "EXEC")]
    execs: Vec<String>,
    /// Send this signal to the program itself instead, such as HUP
    #[arg(long, short, value_name = "NAME", conflicts_with = "grace")]
    signal: Option<String>,
    /// Time between SIGTERM and SIGKILL [default: what it was started with]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    grace: Option<Duration>,
}

impl Kill {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let broker = Connection::open(options).await?;
        let mut code = ExitCode::SUCCESS;
        for exec in &self.execs {
            // The others are still to be ended.
            let outcome = match self.end(&broker, exec).await {
                Ok(termination) => report(console, exec, termination).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = outcome {
                console.failure(&failure.about("")).await?;
                code = ExitCode::FAILURE;
            }
        }
        Ok(code)
    }

    async fn end(&self, broker: &Connection, exec: &str) -> Result<Option<pb::Termination>, Failure> {
        let action = match &self.signal {
            Some(name) => Action::Signal(name.clone()),
            None => Action::End(pb::EndTree { grace: self.grace.and_then(|grace| grace.try_into().ok()) }),
        };
        let request = pb::SignalRequest { exec_id: exec.to_owned(), action: Some(action) };
        Ok(broker.exec().signal(request).await?.into_inner().termination)
    }
}

async fn report(console: &mut Console, exec: &str, termination: Option<pb::Termination>) -> Result<(), Failure> {
    let view = termination.as_ref().map(TerminationView::of);
    let left = view.as_ref().and_then(|view| view.survivors).filter(|left| *left > 0);
    if console.wants_json() {
        console.print_json(&json!({ "exec_id": exec, "termination": view })).await?;
    } else if left.is_none() {
        let text = match &view {
            None => format!("signalled {exec}"),
            Some(view) if view.escalated => format!("ended {exec}; some of it had to be killed"),
            Some(_) => format!("ended {exec}"),
        };
        console.print(&text).await?;
    }
    match left {
        Some(left) => {
            let processes = count(left.try_into().unwrap_or(usize::MAX), "process");
            Err(Failure::new(format!("{processes} of {exec} could not be ended")))
        }
        None => Ok(()),
    }
}
