//! `longshore enable` and `longshore disable`.

use std::process::ExitCode;

use clap::Args;

use crate::{
    cli::{Options, connect::Connection, console::Console, failure::Failure, view::extension::ExtensionView},
    pb,
};

/// Arguments of `enable`.
#[derive(Debug, Args)]
pub struct Enable {
    /// Extension to start
    pub(super) extension: String,
}

/// Arguments of `disable`.
#[derive(Debug, Args)]
pub struct Disable {
    /// Extension to stop
    pub(super) extension: String,
}

impl Enable {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let request = pb::EnableRequest { extension: self.extension };
        let response = Connection::open(options).await?.extensions().enable(request).await?.into_inner();
        report(console, response.extension).await
    }
}

impl Disable {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let request = pb::DisableRequest { extension: self.extension };
        let response = Connection::open(options).await?.extensions().disable(request).await?.into_inner();
        report(console, response.extension).await
    }
}

async fn report(console: &mut Console, extension: Option<pb::Extension>) -> Result<ExitCode, Failure> {
    let extension = ExtensionView::from(extension.unwrap_or_default());
    if console.wants_json() {
        console.print_json(&extension).await?;
    } else {
        console.print(&format!("{}: {}", extension.id, extension.state_text())).await?;
    }
    Ok(ExitCode::SUCCESS)
}
