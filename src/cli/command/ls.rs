//! `longshore ls`.

use std::process::ExitCode;

use clap::Args;

use crate::{
    cli::{
        Options, connect::Connection, console::Console, failure::Failure, pages, table::Table,
        view::extension::ExtensionView,
    },
    pb,
};

/// Arguments of `ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// Print ids and nothing else
    #[arg(long, short)]
    quiet: bool,
}

impl Ls {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let extensions = all(&Connection::open(options).await?).await?;
        if console.wants_json() {
            console.print_json(&extensions).await?;
        } else if self.quiet {
            for extension in &extensions {
                console.print(&extension.id).await?;
            }
        } else {
            console.print(&table(&extensions)).await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn all(broker: &Connection) -> Result<Vec<ExtensionView>, Failure> {
    pages::read_all(async |page_size, page_token| {
        let request = pb::ExtensionServiceListRequest { page_size, page_token };
        let page = broker.extensions().list(request).await?.into_inner();
        Ok((page.extensions, page.next_page_token))
    })
    .await
}

fn table(extensions: &[ExtensionView]) -> String {
    let mut table = Table::new(["EXTENSION", "VERSION", "STATE", "UI", "BACKEND", "HOST", "VENDOR"]);
    for extension in extensions {
        table.add([
            &extension.id,
            &extension.version,
            &extension.state_text(),
            extension.ui.as_ref().map_or("-", |ui| ui.title.as_str()),
            &extension.backend_text(),
            &host_text(extension),
            &extension.vendor,
        ]);
    }
    table.render()
}

fn host_text(extension: &ExtensionView) -> String {
    match extension.host_binaries.len() {
        0 => "-".into(),
        number => crate::cli::text::count(number, "program"),
    }
}
