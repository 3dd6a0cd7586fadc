//! `longshore sessions`.

use std::process::ExitCode;

use clap::Args;

use crate::{
    cli::{
        Options, connect::Broker, console::Console, failure::Failure, table::Table, text::age,
        view::session::SessionView,
    },
    pb,
};

/// Sessions asked for at a time, the most that one page holds.
const PAGE_SIZE: i32 = 1000;

/// Arguments of `sessions`.
#[derive(Debug, Args)]
pub struct Sessions {
    /// Only those of this extension
    pub(super) extension: Option<String>,
}

impl Sessions {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let sessions = self.list(&Broker::connect(options).await?).await?;
        match console.wants_json() {
            true => console.print_json(&sessions).await?,
            false => console.print(&table(&sessions)).await?,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn list(self, broker: &Broker) -> Result<Vec<SessionView>, Failure> {
        let mut request = pb::SessionServiceListRequest {
            extension: self.extension.unwrap_or_default(),
            page_size: PAGE_SIZE,
            page_token: String::new(),
        };
        let mut sessions = Vec::new();
        loop {
            let page = broker.sessions().list(request.clone()).await?.into_inner();
            sessions.extend(page.sessions.into_iter().map(SessionView::from));
            if page.next_page_token.is_empty() {
                return Ok(sessions);
            }
            request.page_token = page.next_page_token;
        }
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
