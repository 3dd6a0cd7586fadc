//! How a program ended, as an exit code and in words.

use std::{process::ExitCode, time::Duration};

use crate::{
    cli::{
        NOT_EXECUTABLE, NOT_FOUND, SIGNAL_BASE,
        console::Console,
        failure::Failure,
        text::{count, span, without_number},
    },
    pb::{self, exited::Outcome},
};

/// Exit code when `--timeout` ended it; that of `timeout`.
const TIMED_OUT: u8 = 124;
/// Exit code when the broker refused, or the end is not known; that of `docker run`.
pub(super) const NOT_RUN: u8 = 125;

/// Why the broker ended a tree, by `Termination.cause`, where it was not we who asked for it.
const CAUSES: &[(&str, &str)] = &[
    ("REQUESTED", "it was ended with `longshore kill`, or by another caller"),
    ("OWNER_ENDED", "it was ended: the extension was disabled, changed or removed"),
    ("LEFT_OVER", "it was ended: too many programs of the extension had outlived their calls"),
    ("SESSION_ENDED", "it was ended with its session"),
    ("BROKER_STOPPING", "it was ended: the broker is stopping"),
    ("DEADLINE", "it was ended: the time for the call was over"),
];

/// What was told of the end of a program.
#[derive(Debug, Default)]
pub(super) struct End {
    pub(super) exited: Option<pb::Exited>,
    pub(super) drained: pb::Drained,
}

impl End {
    /// The exit code. What only we can tell goes to standard error. `timeout` is the time that it had.
    pub(super) async fn report(self, console: &mut Console, timeout: Option<Duration>) -> Result<ExitCode, Failure> {
        let Some(exited) = self.exited else {
            return Err(Failure::new("the broker did not say how the program ended"));
        };
        let (mut code, message) = code_and_message(exited.outcome);
        let mut messages = Vec::from_iter(message);
        if let Some(termination) = self.drained.termination {
            if termination.cause == "WALL_LIMIT" {
                code = TIMED_OUT;
                messages.push(format!("it was ended after {}", timeout.map(span).unwrap_or_default()));
            }
            messages.extend(termination_message(&termination));
        }
        if !console.wants_json() {
            for message in messages {
                console.failure(&Failure::new(message)).await?;
            }
        }
        Ok(ExitCode::from(code))
    }
}

fn code_and_message(outcome: Option<Outcome>) -> (u8, Option<String>) {
    match outcome {
        Some(Outcome::Code(code) | Outcome::CodeOrSignal(code)) => (code.try_into().unwrap_or(NOT_RUN), None),
        Some(Outcome::Signal(death)) => ((i32::from(SIGNAL_BASE) + death.number).try_into().unwrap_or(u8::MAX), None),
        Some(Outcome::StartFailure(failure)) => (start_code(&failure.reason), Some(start_text(&failure))),
        Some(Outcome::Unknown(unknown)) => (NOT_RUN, Some(format!("how it ended is not known: {}", unknown.message))),
        None => (NOT_RUN, Some("how it ended is not known".into())),
    }
}

fn termination_message(termination: &pb::Termination) -> Option<String> {
    let cause = CAUSES.iter().find(|(cause, _)| *cause == termination.cause).map(|(_, text)| *text);
    let left = termination.survivors.filter(|number| *number > 0).map(|number| {
        let processes = count(number.try_into().unwrap_or(usize::MAX), "process");
        format!("{processes} of it could not be ended")
    });
    match (cause, left) {
        (Some(cause), Some(left)) => Some(format!("{cause}; {left}")),
        (Some(cause), None) => Some(cause.to_owned()),
        (None, left) => left,
    }
}

/// What the system says.
fn start_text(failure: &pb::StartFailure) -> String {
    let text = without_number(&failure.message);
    if failure.reason == "DIRECTORY_NOT_FOUND" { format!("working directory {text}") } else { text.to_owned() }
}

fn start_code(reason: &str) -> u8 {
    match reason {
        "PROGRAM_NOT_FOUND" => NOT_FOUND,
        "NOT_EXECUTABLE" | "WRONG_FORMAT" => NOT_EXECUTABLE,
        _ => NOT_RUN,
    }
}
