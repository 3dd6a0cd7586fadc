//! The events of a program, put together into the result of a blocking call.

use super::{
    rejection::{Ending, Rejection},
    result::{Code, ExecResult},
};
use crate::pb::{self, run_response::Event};

/// Takes the events of one program, and tells the result when there are no more.
#[derive(Debug, Default)]
pub struct Collector {
    cmd: String,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exited: Option<pb::Exited>,
    drained: pb::Drained,
}

impl Collector {
    /// Collects for the command line that results show in `cmd`.
    pub fn new(cmd: impl Into<String>) -> Self {
        Collector { cmd: cmd.into(), ..Collector::default() }
    }

    /// Takes the next event.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Started(_) => {}
            Event::Output(output) => match output.stream() {
                pb::OutputStream::Stderr => self.stderr.extend_from_slice(&output.data),
                _ => self.stdout.extend_from_slice(&output.data),
            },
            Event::Exited(exited) => self.exited = Some(exited),
            Event::Drained(drained) => self.drained = drained,
        }
    }

    /// The result, once no more events come.
    ///
    /// # Errors
    /// A [`Rejection`], unless the program exited with code 0 and was not ended by anybody.
    pub fn finish(self) -> Result<ExecResult, Box<Rejection>> {
        let ending = Ending::of(self.exited);
        let mut result = ExecResult {
            cmd: self.cmd,
            killed: self.drained.termination.is_some(),
            stdout: text(self.stdout),
            stderr: text(self.stderr),
            ..ExecResult::default()
        };
        if let Ending::Signal(name) = &ending {
            result.signal = Some(name.clone());
        }
        if self.drained.reason == "OUTPUT_LIMIT" {
            return Err(Rejection::of_too_much(result));
        }
        match ending {
            Ending::Code(0) if !result.killed => Ok(result),
            Ending::Code(code) => {
                result.code = Some(Code::Number(code));
                Err(Rejection::of_program(result))
            }
            Ending::Signal(_) => Err(Rejection::of_program(result)),
            Ending::Unclear(code, reason, message) => Err(Rejection::of_unclear(result, code, reason, message)),
        }
    }

    /// What there is of a result after the call was lost.
    pub(super) fn lost(self) -> ExecResult {
        ExecResult { cmd: self.cmd, stdout: text(self.stdout), stderr: text(self.stderr), ..ExecResult::default() }
    }
}

/// The bytes as text, without a copy where they are UTF-8.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
