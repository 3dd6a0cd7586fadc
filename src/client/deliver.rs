//! The events of a program, turned into the callbacks of a streaming call.

use serde_json::{Value, json};

use super::{
    lines::LineSplitter,
    rejection::{Ending, Rejection},
    result::ExecResult,
    text::Utf8Decoder,
};
use crate::pb::{self, run_response};

/// Exit code where there is none: it never ran, a signal ended it, or nobody knows.
const NO_CODE: i32 = -1;

/// One callback of a streaming call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// `onOutput({stdout})`: a piece, or with `splitOutputLines` a line without its end.
    Stdout(String),
    /// `onOutput({stderr})`: the same of standard error.
    Stderr(String),
    /// `onError(error)`: it could not be run, a signal ended it, or the broker is gone.
    Error(Box<Rejection>),
    /// `onClose(code)`: it has ended and there is no more output. Always last, and once; -1 where there is no exit code.
    Close(i32),
}

impl Event {
    /// The arguments `(data, error)` that callbacks of the SDK's first version get: `data` holds `stdout` or `stderr`,
    /// and in the end `code`.
    pub fn callback(&self) -> (Value, Value) {
        match self {
            Event::Stdout(text) => (json!({ "stdout": text }), Value::Null),
            Event::Stderr(text) => (json!({ "stderr": text }), Value::Null),
            Event::Error(rejection) => (Value::Null, json!(rejection)),
            Event::Close(code) => (json!({ "code": code }), Value::Null),
        }
    }
}

/// Takes what the broker tells of one program and delivers callbacks.
#[derive(Debug)]
pub struct Delivery {
    cmd: String,
    stdout: Output,
    stderr: Output,
    exited: Option<pb::Exited>,
    /// Whether the page has closed it, and wants to hear of nothing but its end.
    closed: bool,
}

/// One output, on its way to be text.
#[derive(Debug)]
struct Output {
    decoder: Utf8Decoder,
    /// Where lines are wanted.
    lines: Option<LineSplitter>,
    event: fn(String) -> Event,
}

impl Delivery {
    /// Delivers for that command line, as lines or as it comes.
    pub fn new(cmd: impl Into<String>, split_output_lines: bool) -> Self {
        let output =
            |event| Output { decoder: Utf8Decoder::new(), lines: split_output_lines.then(LineSplitter::new), event };
        Delivery {
            cmd: cmd.into(),
            stdout: output(Event::Stdout),
            stderr: output(Event::Stderr),
            exited: None,
            closed: false,
        }
    }

    /// Takes what the broker tells next.
    pub fn take(&mut self, event: run_response::Event, deliver: &mut dyn FnMut(Event)) {
        match event {
            run_response::Event::Output(_) if self.closed => {}
            run_response::Event::Output(output) => match output.stream() {
                pb::OutputStream::Stderr => self.stderr.push(&output.data, deliver),
                _ => self.stdout.push(&output.data, deliver),
            },
            run_response::Event::Exited(exited) => self.exited = Some(exited),
            run_response::Event::Started(_) | run_response::Event::Drained(_) => {}
        }
    }

    /// The page closes it: there will be no output any more, and that a signal ends it is no error.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Delivers what is left, once the broker tells no more.
    pub fn finish(mut self, deliver: &mut dyn FnMut(Event)) {
        self.flush(deliver);
        let result = ExecResult { cmd: self.cmd, ..ExecResult::default() };
        let (code, error) = match Ending::of(self.exited) {
            Ending::Code(code) => (code, None),
            Ending::Signal(name) => (NO_CODE, Some(Rejection::of_program(ExecResult { signal: Some(name), ..result }))),
            Ending::Unclear(code, reason, message) => {
                (NO_CODE, Some(Rejection::of_unclear(result, code, reason, message)))
            }
        };
        if let Some(error) = error.filter(|_| !self.closed) {
            deliver(Event::Error(error));
        }
        deliver(Event::Close(code));
    }

    /// Delivers what is left after the call was refused or lost.
    pub(super) fn fail(mut self, status: &tonic::Status, deliver: &mut dyn FnMut(Event)) {
        self.flush(deliver);
        if !self.closed {
            let result = ExecResult { cmd: self.cmd, ..ExecResult::default() };
            deliver(Event::Error(Rejection::of_status(result, status)));
        }
        deliver(Event::Close(NO_CODE));
    }

    fn flush(&mut self, deliver: &mut dyn FnMut(Event)) {
        if !self.closed {
            self.stdout.finish(deliver);
            self.stderr.finish(deliver);
        }
    }
}

impl Output {
    fn push(&mut self, bytes: &[u8], deliver: &mut dyn FnMut(Event)) {
        let text = self.decoder.push(bytes);
        match &mut self.lines {
            Some(lines) => lines.push(&text, &mut |line| deliver((self.event)(line.to_owned()))),
            None if text.is_empty() => {}
            None => deliver((self.event)(text.into_owned())),
        }
    }

    fn finish(&mut self, deliver: &mut dyn FnMut(Event)) {
        let text = self.decoder.finish();
        match &mut self.lines {
            Some(lines) => {
                let mut line = |line: &str| deliver((self.event)(line.to_owned()));
                lines.push(text, &mut line);
                lines.finish(&mut line);
            }
            None if text.is_empty() => {}
            None => deliver((self.event)(text.to_owned())),
        }
    }
}
