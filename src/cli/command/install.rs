//! `longshore install` and `longshore update`.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;

use crate::{
    cli::{
        Options,
        connect::Connection,
        consent,
        console::Console,
        failure::Failure,
        progress::Progress,
        source::{Pull, read_source},
        text::parse_span,
        view::{extension::ExtensionView, grant::NeedView, progress::ProgressView},
    },
    pb::{self, install_response::Event, update_response},
};

/// How many lists of missing permissions are gone through, one after the other.
const MOST_LISTS: usize = 64;

/// Arguments of `install`.
#[derive(Debug, Args)]
pub struct Install {
    /// Image such as org/name:1.0, or the path of an archive (docker save) or of a directory with a metadata.json
    pub(super) source: String,
    /// Reference to install an archive or a directory under
    #[arg(long = "as", value_name = "REF")]
    reference: Option<String>,
    /// When to ask the registry for the image
    #[arg(long, value_enum, default_value_t)]
    pull: Pull,
    /// Accept this grant, such as host.exec:kubectl; can be given again
    #[arg(long = "grant", value_name = "NAME")]
    grants: Vec<String>,
    /// Accept everything, as Docker Desktop does: the engine, the host, privileged containers
    #[arg(long)]
    trust: bool,
    /// Accept what the extension needs and nothing more, without asking
    #[arg(long, short)]
    yes: bool,
    /// Let the broker finish even when this command is ended
    #[arg(long)]
    pub(super) detach: bool,
    /// How long to wait until the backend is ready [default: the broker's ready_timeout, 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    ready_timeout: Option<Duration>,
    /// Print the extension's id and nothing else
    #[arg(long, short)]
    quiet: bool,
}

/// Arguments of `update`: those of `install`.
#[derive(Debug, Args)]
pub struct Update {
    #[command(flatten)]
    pub(super) to: Install,
}

impl Update {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let broker = Connection::open(options).await?;
        let mut progress = Progress::new(console, self.to.quiet);
        let attempt = async |console: &mut Console, progress: &mut Progress, request: pb::InstallRequest| {
            let request = pb::UpdateRequest {
                source: request.source,
                accept_grants: request.accept_grants,
                trust: request.trust,
                detach: request.detach,
                ready_timeout: request.ready_timeout,
            };
            let mut events = broker.extensions().update(request).await?.into_inner();
            while let Some(message) = events.message().await? {
                match message.event {
                    Some(update_response::Event::Progress(step)) => {
                        progress.show(console, &ProgressView::from(step)).await?;
                    }
                    Some(update_response::Event::Updated(updated)) => return Ok(updated),
                    None => {}
                }
            }
            Err(Failure::new("the broker ended the update without a result"))
        };
        let updated = self.to.with_consent(console, &mut progress, attempt).await?;
        drop(progress);
        self.report(console, updated).await?;
        Ok(ExitCode::SUCCESS)
    }

    async fn report(&self, console: &mut Console, updated: pb::Updated) -> Result<(), Failure> {
        let pb::Updated { extension, previous_version, changed, kept_volumes } = updated;
        let extension = ExtensionView::from(extension.unwrap_or_default());
        if console.wants_json() {
            let result = json!({
                "event": "updated",
                "extension": extension,
                "previous_version": previous_version,
                "changed": changed,
                "kept_volumes": kept_volumes,
            });
            return Ok(console.print_json(&result).await?);
        }
        if changed && !self.to.quiet && !kept_volumes.is_empty() {
            console.note(&format!("kept its volumes: {}", kept_volumes.join(" "))).await?;
        }
        let text = match changed {
            true => format!("updated {} {previous_version} to {}", extension.id, extension.version),
            false => format!("{} {previous_version} is what it was", extension.id),
        };
        self.to.report(console, &text, &extension).await
    }
}

impl Install {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let broker = Connection::open(options).await?;
        let mut progress = Progress::new(console, self.quiet);
        let installed = self
            .with_consent(console, &mut progress, async |console, progress, request| {
                self.attempt(console, progress, &broker, request).await
            })
            .await?;
        drop(progress);
        if console.wants_json() {
            console.print_json(&json!({ "event": "installed", "extension": installed })).await?;
        } else {
            let text = format!("installed {} {}", installed.id, installed.version);
            self.report(console, &text, &installed).await?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Tries, and where permission is missing and given, tries again: a refusal lists no more than fits into an error, and
    /// what was accepted may lead to more that is needed.
    async fn with_consent<T>(
        &self,
        console: &mut Console,
        progress: &mut Progress,
        attempt: impl AsyncFn(&mut Console, &mut Progress, pb::InstallRequest) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut request = self.request()?;
        let mut outcome = attempt(console, progress, request.clone()).await;
        for _ in 0..MOST_LISTS {
            let is_new = |need: &NeedView| !request.accept_grants.contains(&need.name);
            match outcome {
                Err(failure) if failure.missing_grants().iter().any(is_new) => {
                    progress.set_aside();
                    request.accept_grants.extend(self.consent(console, failure).await?);
                    outcome = attempt(console, progress, request.clone()).await;
                }
                _ => break,
            }
        }
        outcome.map_err(|failure| self.explained(failure))
    }

    fn request(&self) -> Result<pb::InstallRequest, Failure> {
        Ok(pb::InstallRequest {
            source: Some(read_source(&self.source, self.reference.as_deref(), self.pull)?),
            accept_grants: self.grants.clone(),
            trust: self.trust,
            detach: self.detach,
            ready_timeout: self.ready_timeout.and_then(|time| time.try_into().ok()),
        })
    }

    async fn attempt(
        &self,
        console: &mut Console,
        progress: &mut Progress,
        broker: &Connection,
        request: pb::InstallRequest,
    ) -> Result<ExtensionView, Failure> {
        let mut events = broker.extensions().install(request).await?.into_inner();
        while let Some(message) = events.message().await? {
            match message.event {
                Some(Event::Progress(step)) => progress.show(console, &ProgressView::from(step)).await?,
                Some(Event::Installed(extension)) => return Ok(extension.into()),
                None => {}
            }
        }
        Err(Failure::new("the broker ended the install without a result"))
    }

    /// The grants that the user accepts. The failure that asked for them stands where nobody can be asked.
    async fn consent(&self, console: &mut Console, failure: Failure) -> Result<Vec<String>, Failure> {
        if !self.yes && !console.can_ask() {
            return Err(self.explained(failure));
        }
        consent::obtain(console, self.yes, &self.source, failure.missing_grants()).await
    }

    fn explained(&self, failure: Failure) -> Failure {
        if failure.missing_grants().is_empty() {
            return failure;
        }
        let list = consent::list(&self.source, failure.missing_grants());
        let advice = format!("to accept this, add: {}", consent::flags(failure.missing_grants()));
        failure.saying(format!("permission is needed\n{list}")).advising(advice)
    }

    async fn report(&self, console: &mut Console, text: &str, extension: &ExtensionView) -> Result<(), Failure> {
        if self.quiet {
            return Ok(console.print(&extension.id).await?);
        }
        for warning in &extension.warnings {
            console.note(&format!("warning: {warning}")).await?;
        }
        if !extension.state_message.is_empty() {
            console.note(&format!("{}: {}", extension.state, extension.state_message)).await?;
        }
        Ok(console.print(&format!("{text}: {}", extension.state_text())).await?)
    }
}
