//! Why a command failed: the broker's answer or our own, ready to be printed.

use std::{error::Error as _, fmt, io, path::Path, process::ExitCode};

use prost::Message as _;
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    INTERRUPTED, advice,
    text::{plain_lines, without_number},
    view::grant::NeedView,
};
use crate::pb;

/// Exit code when the reader of our output has gone, as a shell reports a death by SIGPIPE.
const READER_GONE: u8 = 141;

/// A failed command.
#[derive(Debug)]
pub(super) struct Failure(Box<Inner>);

#[derive(Debug, Default)]
struct Inner {
    message: String,
    /// `ErrorInfo.reason`; empty where the failure is ours.
    reason: String,
    /// Whom it concerns, as the broker says; may be empty.
    concerned: String,
    advice: Option<String>,
    missing: Vec<NeedView>,
    not_found: bool,
    exit: u8,
}

/// A failure as `--json` prints it.
#[derive(Debug, Serialize)]
pub(super) struct FailureView<'a> {
    error: ErrorView<'a>,
}

#[derive(Debug, Serialize)]
struct ErrorView<'a> {
    reason: &'a str,
    message: &'a str,
    advice: Option<&'a str>,
    missing_grants: &'a [NeedView],
}

/// Makes failures of our own.
impl Failure {
    /// Something this side found wrong.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Failure(Box::new(Inner { message: message.into(), exit: 1, ..Inner::default() }))
    }

    /// The same with what to do about it.
    pub(super) fn with_advice(message: impl Into<String>, advice: impl Into<String>) -> Self {
        let mut failure = Failure::new(message);
        failure.0.advice = Some(advice.into());
        failure
    }

    /// A file of the user's that cannot be read or written.
    pub(super) fn of_file(path: &Path, error: &io::Error) -> Self {
        Failure::new(format!("{}: {}", path.display(), system_text(error)))
    }

    /// Ctrl-C. The note says what becomes of the work.
    pub(super) fn interrupted(note: Option<&str>) -> Self {
        Failure::new(note.unwrap_or_default()).exiting(INTERRUPTED)
    }

    /// Nothing answers on the socket.
    pub(super) fn no_broker(path: &Path, error: &io::Error) -> Self {
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied => "that socket belongs to another user; name yours with --socket",
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => "start it with: longshore serve",
            _ => "name the broker's socket with --socket",
        };
        let text = format!("no broker answers on {}: {}", path.display(), system_text(error));
        let mut failure = Failure::with_advice(text, advice);
        failure.0.reason = "BROKER_UNREACHABLE".into();
        failure
    }

    /// A broker of another user listens where ours would.
    pub(super) fn foreign_broker(path: &Path) -> Self {
        let text = format!("the broker on {} is run by another user", path.display());
        Failure::with_advice(text, "name its socket with --socket if you trust that user, or start your own")
    }

    /// Something else than a broker listens on the socket.
    pub(super) fn not_a_broker(path: &Path, error: &tonic::transport::Error) -> Self {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let text = format!("what listens on {} does not speak gRPC{cause}", path.display());
        Failure::with_advice(text, "name the broker's socket with --socket")
    }

    /// Exits with that code.
    pub(super) fn exiting(mut self, exit: u8) -> Self {
        self.0.exit = exit;
        self
    }

    /// Exits with that code, unless it is only that the reader of our output has gone.
    pub(super) fn exiting_unless_silent(self, exit: u8) -> Self {
        if self.is_silent() { self } else { self.exiting(exit) }
    }

    /// The same in other words.
    pub(super) fn saying(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    /// The same with other advice.
    pub(super) fn advising(mut self, advice: impl Into<String>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// Fills in what to do, now that it is known whom the command was about.
    pub(super) fn about(mut self, subject: &str) -> Self {
        if self.0.advice.is_none() {
            self.0.advice = advice::for_reason(&self.0.reason, subject, &self.0.concerned, &self.0.missing);
        }
        self
    }
}

/// Tells what failed.
impl Failure {
    /// The grants that are missing, where that is the reason.
    pub(super) fn missing_grants(&self) -> &[NeedView] {
        &self.0.missing
    }

    /// Whether the broker does not have what was named.
    pub(super) fn is_not_found(&self) -> bool {
        self.0.not_found
    }

    /// Whether there is nothing to say.
    pub(super) fn is_silent(&self) -> bool {
        self.0.message.is_empty()
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.0.exit)
    }

    pub(super) fn view(&self) -> FailureView<'_> {
        FailureView {
            error: ErrorView {
                reason: &self.0.reason,
                message: &self.0.message,
                advice: self.0.advice.as_deref(),
                missing_grants: &self.0.missing,
            },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "longshore: {}", plain_lines(self.0.message.trim_end()))?;
        if let Some(advice) = &self.0.advice {
            write!(f, "\n  {advice}")?;
        }
        Ok(())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let mut inner = Inner { exit: 1, not_found: status.code() == Code::NotFound, ..Inner::default() };
        match status.get_details_error_info() {
            Some(mut info) => {
                inner.reason = info.reason;
                inner.concerned = info.metadata.remove("subject").unwrap_or_default();
                inner.message = status.message().to_owned();
            }
            None => (inner.message, inner.advice) = without_reason(&status),
        }
        inner.missing = missing_grants(&status);
        if inner.message.is_empty() {
            inner.message = format!("the broker gave no message ({})", status.code());
        }
        Failure(Box::new(inner))
    }
}

impl From<io::Error> for Failure {
    /// Standard input, output or error failed.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::new("").exiting(READER_GONE);
        }
        Failure::new(format!("standard input or output: {}", system_text(&error)))
    }
}

/// What the operating system says, as the middle of a sentence.
fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = without_number(&text);
    text.chars().next().map(|first| first.to_lowercase().chain(text.chars().skip(1)).collect()).unwrap_or_default()
}

/// Message and advice for an answer that does not come from the broker's own code: gRPC itself, or a lost connection.
fn without_reason(status: &Status) -> (String, Option<String>) {
    match status.code() {
        Code::Unimplemented => {
            ("the broker does not know this call".into(), Some("compare the versions with: longshore version".into()))
        }
        Code::Unavailable | Code::Unknown | Code::Cancelled if status.source().is_some() => (
            "the broker closed the connection".into(),
            Some("its own output says why; start it with: longshore serve".into()),
        ),
        _ => (status.message().to_owned(), None),
    }
}

/// The detail `GrantsRequired`, where there is one.
fn missing_grants(status: &Status) -> Vec<NeedView> {
    let Ok(details) = tonic_types::pb::Status::decode(status.details()) else { return Vec::new() };
    let wanted = details.details.iter().find(|any| any.type_url.ends_with("/longshore.v1.GrantsRequired"));
    let required = wanted.and_then(|any| pb::GrantsRequired::decode(any.value.as_slice()).ok());
    required.map(|required| required.grants.into_iter().map(NeedView::from).collect()).unwrap_or_default()
}
