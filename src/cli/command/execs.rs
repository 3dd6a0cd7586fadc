//! `longshore execs`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value};

use crate::{
    cli::{
        Options,
        connect::Connection,
        console::Console,
        failure::Failure,
        pages,
        table::Table,
        text::age,
        view::{exec::ExecView, resource::shortened},
    },
    pb,
};

/// Arguments of `execs`.
#[derive(Debug, Args)]
pub struct Execs {
    /// Only those of this extension
    pub(super) extension: Option<String>,
    /// Print ids and nothing else
    #[arg(long, short)]
    quiet: bool,
}

impl Execs {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let execs = self.list(&Connection::open(options).await?).await?;
        if console.wants_json() {
            console.print_json(&execs).await?;
        } else if self.quiet {
            for exec in &execs {
                console.print(&exec.exec_id).await?;
            }
        } else {
            console.print(&table(&execs)).await?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn list(&self, broker: &Connection) -> Result<Vec<ExecView>, Failure> {
        pages::read_all(async |page_size, page_token| {
            let extension = self.extension.clone().unwrap_or_default();
            let request = pb::ExecServiceListRequest { extension, page_size, page_token };
            let page = broker.exec().list(request).await?.into_inner();
            Ok((page.execs, page.next_page_token))
        })
        .await
    }
}

fn table(execs: &[ExecView]) -> String {
    let mut table =
        Table::new(["EXEC", "EXTENSION", "TARGET", "PROGRAM", "PID", "CONTAINER", "SESSION", "STATE", "AGE"]);
    for exec in execs {
        let pid = if exec.pid == 0 { "-".to_owned() } else { exec.pid.to_string() };
        let shown = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        table.add([
            &exec.exec_id,
            &exec.extension,
            &exec.target,
            &exec.program,
            &pid,
            &shown(shortened(&exec.container_id).unwrap_or(&exec.container_id)),
            &shown(&exec.session_id),
            &state(exec.exited.as_ref()),
            &exec.since.map(age).unwrap_or_default(),
        ]);
    }
    table.render()
}

/// Whether it runs, or how it has ended while something of it is left.
fn state(exited: Option<&Map<String, Value>>) -> String {
    let Some(exited) = exited else { return "running".into() };
    let named = |name: &str| exited.get(name);
    match (named("code").or_else(|| named("code_or_signal")), named("signal")) {
        (Some(code), _) => format!("exited ({code})"),
        (_, Some(signal)) => format!("ended by {}", signal["name"].as_str().unwrap_or("a signal")),
        _ => "ended".into(),
    }
}
