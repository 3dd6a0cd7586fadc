//! Between protobuf and the domain. Nothing here decides: it translates, refuses what cannot be translated, and
//! has the trace note whom a call is about.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::trace;
use crate::{
    core::{
        ContainerView, HeldLease, InstallPhase, Observed, Progress, PullPolicy, Resource, Source, State, UiView, View,
    },
    model::{
        error::{Error, Reason, Result},
        extension::{Owner, OwnerSource, ResourceKind},
        grant::{Grant, Need},
        problem::{Problem, Severity},
        reference::{ExtensionId, Reference},
        registration::Holder,
    },
    pb,
    proxy::HeaderLine,
    store::StoredGrant,
};

// === into the domain ===

/// What a request names an extension with, which must be there.
pub(super) fn named(text: &str) -> Result<&str> {
    match text {
        "" => Err(invalid("extension", "say which extension: its id, such as org/name")),
        text => Ok(text),
    }
}

/// An extension id of a request.
pub(super) fn extension_id(text: &str) -> Result<ExtensionId> {
    let id = named(text)?.parse()?;
    trace::note_extension(&id);
    Ok(id)
}

/// A request that is wrong in one field.
pub(super) fn invalid(field: &str, message: impl Into<String>) -> Error {
    Error::new(Reason::RequestInvalid, field, message)
}

/// A duration of a request, which must lie between `least` and `most`.
pub(super) fn duration(
    field: &str,
    value: Option<prost_types::Duration>,
    least: Duration,
    most: Duration,
) -> Result<Option<Duration>> {
    let Some(value) = value else { return Ok(None) };
    let wrong = || {
        let [least, most] = [least, most].map(humantime::format_duration);
        invalid(field, format!("{field} must lie between {least} and {most}"))
    };
    let value = Duration::try_from(value).map_err(|_| wrong())?;
    if value < least || value > most {
        return Err(wrong());
    }
    Ok(Some(value))
}

/// A path of a request, which must be absolute.
pub(super) fn absolute_path(field: &str, text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    if !path.is_absolute() || text.contains('\0') {
        return Err(Error::new(Reason::PathInvalid, field, format!("{field} must be an absolute path, not {text:?}")));
    }
    Ok(path)
}

/// Where an extension comes from.
pub(super) fn source(source: Option<pb::Source>) -> Result<Source> {
    use pb::source::Source as Pb;
    let reference = |text: &str| (!text.is_empty()).then(|| text.parse::<Reference>()).transpose();
    match source.and_then(|source| source.source) {
        None => Err(invalid("source", "say where the extension comes from: an image, an archive or a directory")),
        Some(Pb::Image(image)) => {
            let pull = match image.pull() {
                pb::PullPolicy::Unspecified | pb::PullPolicy::Missing => PullPolicy::Missing,
                pb::PullPolicy::Always => PullPolicy::Always,
                pb::PullPolicy::Never => PullPolicy::Never,
            };
            Ok(Source::Image { reference: image.reference.parse()?, pull })
        }
        Some(Pb::Archive(archive)) => Ok(Source::Archive {
            path: absolute_path("source.archive.path", &archive.path)?,
            reference: reference(&archive.reference)?,
        }),
        Some(Pb::Directory(directory)) => Ok(Source::Directory {
            path: absolute_path("source.directory.path", &directory.path)?,
            reference: reference(&directory.reference)?,
        }),
    }
}

/// Names of grants.
pub(super) fn grants(names: &[String]) -> Result<Vec<Grant>> {
    names.iter().map(|name| name.parse()).collect()
}

/// Header lines of a request.
pub(super) fn header_lines(headers: Vec<pb::Header>) -> Vec<HeaderLine> {
    use pb::header::Content;
    let line = |header: pb::Header| {
        let value = match header.content {
            None => Bytes::new(),
            Some(Content::Value(text)) => Bytes::from(text),
            Some(Content::ValueBytes(bytes)) => bytes,
        };
        HeaderLine { name: header.name, value }
    };
    headers.into_iter().map(line).collect()
}

/// The kind of an engine's object; `None` means any.
pub(super) fn kind(kind: pb::ResourceKind) -> Option<ResourceKind> {
    match kind {
        pb::ResourceKind::Unspecified => None,
        pb::ResourceKind::Container => Some(ResourceKind::Container),
        pb::ResourceKind::Network => Some(ResourceKind::Network),
        pb::ResourceKind::Volume => Some(ResourceKind::Volume),
        pb::ResourceKind::Exec => Some(ResourceKind::Exec),
    }
}

// === out of the domain ===

/// One header line; its value travels as text where it is text.
pub(super) fn header(name: String, value: impl Into<Vec<u8>>) -> pb::Header {
    use pb::header::Content;
    let content = match String::from_utf8(value.into()) {
        Ok(text) => Content::Value(text),
        Err(bytes) => Content::ValueBytes(bytes.into_bytes().into()),
    };
    pb::Header { name, content: Some(content) }
}

/// Header lines of a response.
pub(super) fn headers(lines: Vec<HeaderLine>) -> Vec<pb::Header> {
    lines.into_iter().map(|line| header(line.name, line.value)).collect()
}

/// A permission that is needed.
pub(super) fn need(need: &Need, held: bool) -> pb::NeededGrant {
    pb::NeededGrant { name: need.grant.to_string(), summary: need.grant.summary(), origin: need.origin.clone(), held }
}

/// A decision.
pub(super) fn grant(stored: &StoredGrant) -> pb::Grant {
    let decision = if stored.allow { pb::GrantDecision::Allow } else { pb::GrantDecision::Deny };
    pb::Grant {
        name: stored.grant.to_string(),
        decision: decision.into(),
        decided_at: Some(timestamp(stored.decided_at_ms)),
    }
}

/// A finding.
pub(super) fn problem(problem: Problem) -> pb::Problem {
    let severity = match problem.severity {
        Severity::Error => pb::Severity::Error,
        Severity::Warning => pb::Severity::Warning,
        Severity::Note => pb::Severity::Note,
    };
    pb::Problem {
        severity: severity.into(),
        file: problem.file,
        field: problem.field,
        line: i32::try_from(problem.line).unwrap_or(i32::MAX),
        column: i32::try_from(problem.column).unwrap_or(i32::MAX),
        message: problem.message,
    }
}

/// A time, from milliseconds since 1970.
pub(super) fn timestamp(ms: i64) -> prost_types::Timestamp {
    let since = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    prost_types::Timestamp::from(SystemTime::UNIX_EPOCH + since)
}

/// Milliseconds since 1970, from a time.
pub(super) fn time(field: &str, asked: Option<prost_types::Timestamp>) -> Result<Option<i64>> {
    let Some(asked) = asked else { return Ok(None) };
    let nanos = u32::try_from(asked.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let ms = nanos.and_then(|nanos| asked.seconds.checked_mul(1000)?.checked_add(i64::from(nanos / 1_000_000)));
    ms.map(Some).ok_or_else(|| invalid(field, format!("{field} is no time that there is")))
}

/// How far an install is.
pub(super) fn progress(progress: Progress) -> pb::Progress {
    let phase = match progress.phase {
        InstallPhase::FetchingImage => pb::InstallPhase::FetchingImage,
        InstallPhase::Reading => pb::InstallPhase::Reading,
        InstallPhase::Staging => pb::InstallPhase::Staging,
        InstallPhase::Starting => pb::InstallPhase::Starting,
        InstallPhase::Waiting => pb::InstallPhase::Waiting,
    };
    pb::Progress {
        phase: phase.into(),
        item: progress.item,
        message: progress.message,
        current_bytes: progress.current_bytes,
        total_bytes: progress.total_bytes,
    }
}

/// An installed extension.
pub(super) fn extension(view: View) -> pb::Extension {
    let View { installed, observed, containers, registered, registration_socket, ui } = view;
    let Observed { state, reason, message } = observed;
    let record = installed.record;
    let backend = record.backend.map(|backend| pb::Backend {
        project: backend.project,
        service: backend.service,
        socket: backend.socket.unwrap_or_default(),
        containers: containers.into_iter().map(container).collect(),
        attached: registered.iter().any(|held| held.holder == Holder::Host),
    });
    pb::Extension {
        id: installed.id.to_string(),
        reference: record.reference,
        version: record.version,
        image_id: record.image_id.unwrap_or_default(),
        generation: installed.generation,
        title: record.title,
        description: record.description,
        vendor: record.vendor,
        state: extension_state(state).into(),
        state_reason: reason.to_owned(),
        state_message: message,
        enabled: installed.enabled,
        ui: ui.map(user_interface),
        backend,
        host_binaries: record.binaries.into_iter().filter(|binary| !binary.directory).map(|b| b.name).collect(),
        installed_at: Some(timestamp(installed.installed_at_ms)),
        warnings: record.warnings,
        registrations: registered.into_iter().map(registration).collect(),
        registration_socket: registration_socket.unwrap_or_default(),
    }
}

/// The page of an extension.
pub(super) fn user_interface(ui: UiView) -> pb::UserInterface {
    pb::UserInterface { title: ui.title, root_dir: ui.root_dir, entry: ui.entry, icon_path: ui.icon_path }
}

fn registration(held: HeldLease) -> pb::Registration {
    let HeldLease { epoch, holder, hello } = held;
    pb::Registration {
        service: holder.service().to_owned(),
        container_id: holder.container().to_owned(),
        epoch,
        instance: hello.instance,
        software: hello.software,
        endpoints: hello.endpoints.into_iter().map(|endpoint| endpoint.name).collect(),
        ready: hello.health.ready,
        message: hello.health.message,
    }
}

/// What an extension does.
pub(super) fn extension_state(state: State) -> pb::ExtensionState {
    match state {
        State::Installing => pb::ExtensionState::Installing,
        State::Starting => pb::ExtensionState::Starting,
        State::Ready => pb::ExtensionState::Ready,
        State::Degraded => pb::ExtensionState::Degraded,
        State::Backoff => pb::ExtensionState::Backoff,
        State::Stopped => pb::ExtensionState::Stopped,
        State::Failed => pb::ExtensionState::Failed,
        State::Updating => pb::ExtensionState::Updating,
        State::Uninstalling => pb::ExtensionState::Uninstalling,
    }
}

fn container(container: ContainerView) -> pb::BackendContainer {
    pb::BackendContainer {
        id: container.id,
        name: container.name,
        service: container.service,
        state: container.state,
        exit_code: i32::try_from(container.exit_code).unwrap_or(-1),
    }
}

/// An object of the engine.
pub(super) fn resource(resource: Resource) -> pb::Resource {
    let kind = match resource.kind {
        ResourceKind::Container => pb::ResourceKind::Container,
        ResourceKind::Network => pb::ResourceKind::Network,
        ResourceKind::Volume => pb::ResourceKind::Volume,
        ResourceKind::Exec => pb::ResourceKind::Exec,
    };
    pb::Resource {
        kind: kind.into(),
        id: resource.id,
        name: resource.name,
        owner: resource.owner.map(owner),
        state: resource.state,
        image: resource.image,
    }
}

fn owner(owner: Owner) -> pb::Owner {
    let source = match owner.source {
        OwnerSource::Created => pb::OwnershipSource::Created,
        OwnerSource::Recovered => pb::OwnershipSource::Recovered,
        OwnerSource::Label => pb::OwnershipSource::Label,
    };
    pb::Owner {
        extension: owner.extension,
        generation: owner.generation,
        source: source.into(),
        service: owner.service,
        first_seen: owner.first_seen_ms.map(timestamp),
    }
}
