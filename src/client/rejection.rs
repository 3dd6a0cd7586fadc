//! Why a call failed, in the shape of a result.

use std::fmt;

use serde::Serialize;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::{
    result::{Code, ExecResult},
    words::Refusal,
};
use crate::pb::{self, exited::Outcome};

/// What Node.js calls output beyond its limit, and pages look for.
const TOO_MUCH_OUTPUT: &str = "ERR_CHILD_PROCESS_STDIO_MAXBUFFER";
/// Exit code where nothing was run; that of `docker run`.
const NOT_RUN: i32 = 125;
/// Exit code of shells for a program that is there and cannot be executed.
const NOT_EXECUTABLE: i32 = 126;
/// Exit code of shells for a program that is not there.
const NOT_FOUND: i32 = 127;

/// A failed call: the program failed, or it never ran. It has all fields of a result, as the SDK's calls reject with one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// What there is of a result. Texts are always there.
    #[serde(flatten)]
    pub result: ExecResult,
    /// What went wrong, for people.
    pub message: String,
    /// What went wrong, for programs: the reason that the broker gives, that of a [`Refusal`], `PROGRAM_NOT_FOUND` and
    /// its like. Empty where the program ran and failed.
    pub reason: String,
}

/// How a program ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It exited.
    Code(i32),
    /// A signal of that name ended it.
    Signal(String),
    /// It never ran, or nobody knows: code, reason and message.
    Unclear(i32, String, String),
}

impl Ending {
    /// Reads the broker's message. `None` stands for a broker that ended the call without one.
    pub(super) fn of(exited: Option<pb::Exited>) -> Self {
        match exited.and_then(|exited| exited.outcome) {
            Some(Outcome::Code(code) | Outcome::CodeOrSignal(code)) => Ending::Code(code),
            Some(Outcome::Signal(death)) => Ending::Signal(death.name),
            Some(Outcome::StartFailure(failure)) => Ending::of_failed_start(failure),
            Some(Outcome::Unknown(end)) => Ending::Unclear(NOT_RUN, "END_UNKNOWN".into(), end.message),
            None => Ending::Unclear(NOT_RUN, "END_UNKNOWN".into(), "the broker did not say how it ended".into()),
        }
    }

    fn of_failed_start(failure: pb::StartFailure) -> Self {
        let (code, errno) = match failure.reason.as_str() {
            "PROGRAM_NOT_FOUND" => (NOT_FOUND, " (ENOENT)"),
            "NOT_EXECUTABLE" => (NOT_EXECUTABLE, " (EACCES)"),
            "WRONG_FORMAT" => (NOT_EXECUTABLE, " (ENOEXEC)"),
            "DIRECTORY_NOT_FOUND" => (NOT_RUN, " (ENOENT)"),
            "ARGUMENTS_TOO_LONG" => (NOT_RUN, " (E2BIG)"),
            _ => (NOT_RUN, ""),
        };
        let text = failure.message.split(" (os error").next().unwrap_or_default();
        Ending::Unclear(code, failure.reason, format!("{text}{errno}"))
    }
}

impl Rejection {
    /// The program ran and failed; it says as Node.js does what it wrote to standard error.
    pub(super) fn of_program(result: ExecResult) -> Box<Self> {
        let message = format!("Command failed: {}\n{}", result.cmd, result.stderr);
        Box::new(Rejection { message, result, ..Rejection::default() })
    }

    /// It wrote more than is kept.
    pub(super) fn of_too_much(result: ExecResult) -> Box<Self> {
        let result = ExecResult { code: Some(Code::Name(TOO_MUCH_OUTPUT)), killed: true, ..result };
        let message = format!("{TOO_MUCH_OUTPUT}: it wrote more than is kept");
        Box::new(Rejection { message, result, reason: "OUTPUT_LIMIT".into() })
    }

    /// It never ran, or its end is not known: what is known instead goes to standard error, where pages look.
    pub(super) fn of_unclear(mut result: ExecResult, code: i32, reason: String, message: String) -> Box<Self> {
        result.code = Some(Code::Number(code));
        if result.stderr.is_empty() {
            result.stderr.clone_from(&message);
        }
        Box::new(Rejection { result, message, reason })
    }

    /// The line could not be split; nothing was asked for.
    pub(super) fn of_refusal(cmd: String, refusal: &Refusal) -> Box<Self> {
        let result = ExecResult { cmd, ..ExecResult::default() };
        Self::of_unclear(result, NOT_RUN, refusal.reason().into(), refusal.to_string())
    }

    /// The broker refused or was lost.
    pub(super) fn of_status(result: ExecResult, status: &Status) -> Box<Self> {
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        let message = match status.message() {
            "" => status.code().description().to_owned(),
            message => message.to_owned(),
        };
        Self::of_unclear(result, NOT_RUN, reason, message)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.trim_end())
    }
}

impl std::error::Error for Rejection {}
