//! `longshore inspect`.

use std::{path::Path, process::ExitCode};

use clap::Args;

use crate::{
    cli::{
        Options,
        connect::{Connection, socket_path},
        console::Console,
        failure::Failure,
        source::{Pull, find_installed, is_source, read_source},
        table::Table,
        view::{extension::ExtensionView, inspection::InspectionView},
    },
    model::shell,
    pb,
};

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Installed extension, or what could be installed: an image, an archive or a directory
    #[arg(value_name = "EXTENSION|SOURCE")]
    pub(super) subject: String,
    /// When to ask the registry for an image that is not installed
    #[arg(long, value_enum, default_value_t)]
    pull: Pull,
}

impl Inspect {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let broker = Connection::open(options).await?;
        let installed = match is_source(&self.subject) {
            true => None,
            false => find_installed(&broker, &self.subject).await?.map(ExtensionView::from),
        };
        match installed {
            Some(extension) if console.wants_json() => console.print_json(&extension).await?,
            Some(extension) => console.print(&extension_text(&extension, &socket_path(options).0)).await?,
            None => {
                let inspection = self.look_at_source(&broker).await?;
                match console.wants_json() {
                    true => console.print_json(&inspection).await?,
                    false => console.print(&inspection_text(&inspection)).await?,
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn look_at_source(&self, broker: &Connection) -> Result<InspectionView, Failure> {
        let request = pb::InspectRequest { source: Some(read_source(&self.subject, None, self.pull)?) };
        Ok(broker.extensions().inspect(request).await?.into_inner().into())
    }
}

fn extension_text(it: &ExtensionView, control: &Path) -> String {
    let mut table = Table::of_pairs();
    table.add(["Extension:", &it.id]);
    add_texts(&mut table, &it.version, &it.title, &it.description, &it.vendor);
    table.add(["State:", &it.state_text()]);
    if !it.state_message.is_empty() {
        table.add(["", &it.state_message]);
    }
    table.add(["Enabled:", if it.enabled { "yes" } else { "no" }]);
    table.add(["Installed:", it.installed_at.as_deref().unwrap_or("-")]);
    table.add(["Reference:", &it.reference]);
    table.add(["Image:", or_dash(&it.image_id)]);
    table.add(["Generation:", &it.generation.to_string()]);
    if let Some(ui) = &it.ui {
        table.add(["UI:", &format!("{} ({}/{})", ui.title, ui.root_dir, ui.entry)]);
    }
    if let Some(backend) = &it.backend {
        table.add(["Backend:", &format!("service {}, project {}", or_dash(&backend.service), backend.project)]);
        table.add(["Socket:", or_dash(&backend.socket)]);
        if !backend.socket.is_empty() {
            table.add(["If gRPC:", &grpcurl(&it.id, control)]);
        }
        if backend.attached {
            table.add(["", "a local process stands in for the containers"]);
        }
        for container in &backend.containers {
            let code = if container.state == "exited" { format!(" ({})", container.exit_code) } else { String::new() };
            table.add(["Container:", &format!("{}: {}{code}", container.name, container.state)]);
        }
    }
    for registered in &it.registrations {
        table.add(["Registered:", &registered.text()]);
    }
    table.add(["Programs:", or_dash(&it.host_binaries.join(", "))]);
    for warning in &it.warnings {
        table.add(["Warning:", warning]);
    }
    table.render()
}

/// A line that lists the services of a backend which speaks gRPC, to be copied.
fn grpcurl(id: &str, control: &Path) -> String {
    let control = control.display().to_string();
    format!("grpcurl -plaintext -unix -H 'longshore-extension: {id}' {} list", shell::word(&control))
}

fn inspection_text(it: &InspectionView) -> String {
    let mut table = Table::of_pairs();
    table.add(["Extension:", &format!("{} (not installed)", it.id)]);
    add_texts(&mut table, &it.version, &it.title, &it.description, &it.vendor);
    table.add(["Reference:", &it.reference]);
    table.add(["Image:", or_dash(&it.image_id)]);
    if let Some(ui) = &it.ui {
        table.add(["UI:", &format!("{} ({}/{})", ui.title, ui.root_dir, ui.entry)]);
    }
    table.add(["Services:", or_dash(&it.services.join(", "))]);
    table.add(["Programs:", or_dash(&it.host_binaries.join(", "))]);
    for need in &it.needed_grants {
        table.add(["Needs:", &format!("{}: {} ({})", need.name, need.summary, need.place())]);
    }
    for problem in &it.problems {
        table.add(["Problem:", &problem.text()]);
    }
    table.render()
}

fn add_texts(table: &mut Table, version: &str, title: &str, description: &str, vendor: &str) {
    table.add(["Version:", version]);
    for (name, text) in [("Title:", title), ("Description:", description), ("Vendor:", vendor)] {
        if !text.is_empty() {
            table.add([name, text]);
        }
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
