//! `longshore version`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::{
    cli::{Options, connect::Connection, console::Console, failure::Failure, table::Table},
    pb,
};

/// Arguments of `version`.
#[derive(Debug, Args)]
pub struct Version {}

impl Version {
    /// Prints both versions; that no broker answers is no failure here.
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let client = env!("CARGO_PKG_VERSION");
        let broker = broker_version(options).await.ok();
        if console.wants_json() {
            console.print_json(&json!({ "client": client, "broker": broker })).await?;
        } else {
            let mut table = Table::of_pairs();
            table.add(["longshore", client]);
            table.add(["broker", broker.as_deref().unwrap_or("does not answer")]);
            console.print(&table.render()).await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn broker_version(options: &Options) -> Result<String, Failure> {
    let broker = Connection::open(options).await?;
    Ok(broker.system().get_info(pb::GetInfoRequest {}).await?.into_inner().version)
}
