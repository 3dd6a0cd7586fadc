//! `longshore events`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::{
    cli::{
        Options,
        connect::Connection,
        console::Console,
        failure::Failure,
        text::{enum_name, plain},
    },
    pb::{self, event_service_watch_response::Event},
};

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Only this extension
    pub(super) extension: Option<String>,
    /// Go on from the token of an earlier event (see --json) instead of from now on
    #[arg(long, value_name = "TOKEN")]
    resume: Option<String>,
}

impl Events {
    /// Prints what happens until Ctrl-C, or until the broker ends.
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let broker = Connection::open(options).await?;
        let request = pb::EventServiceWatchRequest {
            resume_token: self.resume.unwrap_or_default(),
            extension: self.extension.unwrap_or_default(),
            heartbeat_interval: None,
        };
        let mut told = broker.events().watch(request).await?.into_inner();
        while let Some(message) = told.message().await? {
            let Some(Event::Extension(event)) = message.event else { continue };
            if console.wants_json() {
                console.print_json(&as_json(&event, &message.resume_token)).await?;
            } else {
                console.print(&line(&event)).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn time(event: &pb::ExtensionEvent) -> String {
    let at = event.at.and_then(|at| std::time::SystemTime::try_from(at).ok());
    at.map(|at| humantime::format_rfc3339_millis(at).to_string()).unwrap_or_default()
}

fn kind(event: &pb::ExtensionEvent) -> String {
    enum_name(event.kind().as_str_name(), "EXTENSION_EVENT_KIND_")
}

/// The state, where the event is about one.
fn state(event: &pb::ExtensionEvent) -> Option<String> {
    let is_state = event.kind() == pb::ExtensionEventKind::State;
    is_state.then(|| enum_name(event.state().as_str_name(), "EXTENSION_STATE_"))
}

fn line(event: &pb::ExtensionEvent) -> String {
    let mut line = format!("{} {} {}", time(event), event.extension, kind(event).replace('_', " "));
    if let Some(state) = state(event) {
        line.push_str(&format!(" {state}"));
    }
    if !event.state_reason.is_empty() {
        line.push_str(&format!(" ({}): {}", event.state_reason, event.state_message));
    }
    if event.observed_late {
        line.push_str(" [observed late]");
    }
    plain(&line)
}

fn as_json(event: &pb::ExtensionEvent, token: &str) -> Value {
    json!({
        "at": time(event),
        "extension": event.extension,
        "generation": event.generation,
        "version": event.version,
        "kind": kind(event),
        "state": state(event),
        "state_reason": event.state_reason,
        "state_message": event.state_message,
        "observed_late": event.observed_late,
        "resume_token": token,
    })
}
