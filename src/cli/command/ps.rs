//! `longshore ps`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::{
    cli::{
        Options, connect::Connection, console::Console, failure::Failure, pages, table::Table,
        view::resource::ResourceView,
    },
    pb,
};

/// Arguments of `ps`.
#[derive(Debug, Args)]
pub struct Ps {
    /// Only what this extension owns
    pub(super) extension: Option<String>,
    /// Show what nobody owns as well
    #[arg(long, short)]
    all: bool,
    /// Only this kind; can be given again
    #[arg(long = "kind", value_enum, value_name = "KIND")]
    kinds: Vec<Kind>,
    /// Print ids and nothing else
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Container,
    Network,
    Volume,
    Exec,
}

impl Ps {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let resources = self.resources(&Connection::open(options).await?).await?;
        if console.wants_json() {
            console.print_json(&resources).await?;
        } else if self.quiet {
            for resource in &resources {
                console.print(resource.short_id()).await?;
            }
        } else {
            console.print(&table(&resources)).await?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn resources(&self, broker: &Connection) -> Result<Vec<ResourceView>, Failure> {
        pages::read_all(async |page_size, page_token| {
            let request = pb::ListResourcesRequest {
                extension: self.extension.clone().unwrap_or_default(),
                kinds: self.kinds.iter().map(|kind| pb::ResourceKind::from(*kind).into()).collect(),
                owned_only: !self.all,
                page_size,
                page_token,
            };
            let page = broker.ownership().list_resources(request).await?.into_inner();
            Ok((page.resources, page.next_page_token))
        })
        .await
    }
}

impl From<Kind> for pb::ResourceKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Container => pb::ResourceKind::Container,
            Kind::Network => pb::ResourceKind::Network,
            Kind::Volume => pb::ResourceKind::Volume,
            Kind::Exec => pb::ResourceKind::Exec,
        }
    }
}

fn table(resources: &[ResourceView]) -> String {
    let mut table = Table::new(["KIND", "ID", "NAME", "OWNER", "KNOWN BY", "SERVICE", "STATE", "IMAGE"]);
    for resource in resources {
        let (owner, source, service) = match &resource.owner {
            Some(owner) => (owner.extension.as_str(), owner.source.as_str(), owner.service.as_str()),
            None => ("-", "", ""),
        };
        // A volume has no id but its name.
        let id = if resource.id == resource.name { "-" } else { resource.short_id() };
        table.add([
            &resource.kind,
            id,
            &resource.name,
            owner,
            source,
            service,
            &resource.state,
            resource.short_image(),
        ]);
    }
    table.render()
}
