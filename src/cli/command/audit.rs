//! `longshore audit`.

use std::process::ExitCode;

use clap::Args;

use crate::{
    cli::{
        Options, connect::Connection, console::Console, failure::Failure, pages, table::Table, text::parse_time,
        view::audit::AuditView,
    },
    pb,
};

/// Arguments of `audit`.
#[derive(Debug, Args)]
#[command(after_help = "\
The newest come last. What is written of a program is its name, or with the
broker's setting audit = \"argv\" its whole command line, secrets masked.")]
pub struct Audit {
    /// Only what this extension did or what was done to it; it need not be installed
    pub(super) extension: Option<String>,
    /// Only the newest; 0 for all
    #[arg(long = "tail", short = 'n', value_name = "N", default_value = "50")]
    tail: usize,
    /// Only since: a time such as 2026-01-31T10:00:00Z, or how long ago, such as 10m
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<prost_types::Timestamp>,
    /// Only before: a time, or how long ago
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<prost_types::Timestamp>,
}

impl Audit {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let mut entries = self.list(&Connection::open(options).await?).await?;
        entries.reverse();
        match console.wants_json() {
            true => console.print_json(&entries).await?,
            false => console.print(&table(&entries)).await?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The newest first.
    async fn list(&self, broker: &Connection) -> Result<Vec<AuditView>, Failure> {
        let wanted = if self.tail == 0 { usize::MAX } else { self.tail };
        pages::read(wanted, async |page_size, page_token| {
            let extension = self.extension.clone().unwrap_or_default();
            let (since, until) = (self.since, self.until);
            let request = pb::ListAuditRequest { extension, since, until, page_size, page_token };
            let page = broker.grants().list_audit(request).await?.into_inner();
            Ok((page.entries, page.next_page_token))
        })
        .await
    }
}

fn table(entries: &[AuditView]) -> String {
    let mut table = Table::new(["TIME", "EXTENSION", "BY", "ACT", "SUBJECT", "DECISION", "RESULT"]);
    for entry in entries {
        // Who asked: a view of the extension, or the user's own front end.
        let by = match (entry.session_id.as_str(), entry.uid) {
            ("", Some(uid)) => format!("uid {uid}"),
            ("", None) => "-".into(),
            (session, _) => format!("session {session}"),
        };
        let at = entry.at.as_deref().unwrap_or("-");
        let result = if entry.result.is_empty() { "-" } else { &entry.result };
        table.add([at, &entry.extension, &by, &entry.act, &entry.subject, &entry.decision, result]);
    }
    table.render()
}
