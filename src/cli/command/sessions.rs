//! `longshore sessions`.

use std::process::ExitCode;

use clap::Args;

use crate::{
    cli::{
        Options, connect::Connection, console::Console, failure::Failure, pages, table::Table, text::age,
        view::session::SessionView,
    },
    pb,
};

/// Arguments of `sessions`.
#[derive(Debug, Args)]
pub struct Sessions {
    /// Only those of this extension
    pub(super) extension: Option<String>,
}

impl Sessions {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let sessions = self.list(&Connection::open(options).await?).await?;
        match console.wants_json() {
            true => console.print_json(&sessions).await?,
            false => console.print(&table(&sessions)).await?,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn list(&self, broker: &Connection) -> Result<Vec<SessionView>, Failure> {
        pages::read_all(async |page_size, page_token| {
            let extension = self.extension.clone().unwrap_or_default();
            let request = pb::SessionServiceListRequest { extension, page_size, page_token };
            let page = broker.sessions().list(request).await?.into_inner();
            Ok((page.sessions, page.next_page_token))
        })
        .await
    }
}

fn table(sessions: &[SessionView]) -> String {
    let mut table = Table::new(["SESSION", "EXTENSION", "GENERATION", "PROGRAMS", "AGE"]);
    for session in sessions {
        table.add([
            &session.session_id,
            &session.extension,
            &session.generation.to_string(),
            &session.execs.to_string(),
            &session.since.map(age).unwrap_or_default(),
        ]);
    }
    table.render()
}
