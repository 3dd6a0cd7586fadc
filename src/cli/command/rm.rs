//! `longshore rm`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::{
    cli::{Options, connect::Connection, console::Console, failure::Failure},
    model::shell,
    pb,
};

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// Extensions to remove
    #[arg(required = true, value_name = "EXTENSION")]
    extensions: Vec<String>,
    /// Remove their named volumes as well: the data in them is lost
    #[arg(long, short)]
    volumes: bool,
}

impl Rm {
    /// Removes one after the other; one that fails does not keep the others.
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let broker = Connection::open(options).await?;
        let mut code = ExitCode::SUCCESS;
        for extension in &self.extensions {
            let request = pb::UninstallRequest { extension: extension.clone(), volumes: self.volumes };
            match broker.extensions().uninstall(request).await {
                Ok(response) => report(console, extension, &response.into_inner()).await?,
                Err(status) => {
                    console.failure(&Failure::from(status).about(extension)).await?;
                    code = ExitCode::FAILURE;
                }
            }
        }
        Ok(code)
    }
}

async fn report(console: &mut Console, extension: &str, removed: &pb::UninstallResponse) -> Result<(), Failure> {
    if console.wants_json() {
        let value = json!({
            "extension": extension,
            "kept_volumes": removed.kept_volumes,
            "removed_volumes": removed.removed_volumes,
            "image_removed": removed.image_removed,
            "pending": removed.pending,
        });
        return Ok(console.print_json(&value).await?);
    }
    if removed.pending {
        let text = format!("{extension} will be removed when the engine answers again");
        return Ok(console.print(&text).await?);
    }
    console.print(&format!("removed {extension}")).await?;
    for volume in &removed.removed_volumes {
        console.print(&format!("removed volume {volume}")).await?;
    }
    if !removed.kept_volumes.is_empty() {
        let volumes: Vec<_> = removed.kept_volumes.iter().map(|volume| shell::word(volume)).collect();
        console.print(&format!("kept its volumes; remove them with: docker volume rm {}", volumes.join(" "))).await?;
    }
    Ok(())
}
