//! Where a command reads and writes: standard input, output and error, or buffers in tests.

use std::io::{self, IsTerminal as _};
#[cfg(unix)]
use std::os::fd::AsFd as AsStream;
#[cfg(windows)]
use std::os::windows::io::AsHandle as AsStream;

use serde::Serialize;
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
};

use super::{
    failure::Failure,
    text::{is_unsafe, plain_lines},
};

/// Longest answer to a question that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 256;

/// Standard input, output and error of a command.
pub(super) struct Console {
    input: Box<dyn AsyncRead + Send + Unpin>,
    out: Box<dyn AsyncWrite + Send + Unpin>,
    err: Box<dyn AsyncWrite + Send + Unpin>,
    json: bool,
    terminals: Terminals,
}

/// Which of them are terminals.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Terminals {
    pub(super) input: bool,
    pub(super) err: bool,
}

impl Console {
    /// The console of this process.
    pub(super) fn of_process(json: bool) -> Self {
        Console {
            input: reader(file_of(io::stdin())),
            out: writer(file_of(io::stdout())),
            err: writer(file_of(io::stderr())),
            json,
            terminals: Terminals { input: io::stdin().is_terminal(), err: io::stderr().is_terminal() },
        }
    }

    /// A console of given streams.
    #[cfg(test)]
    pub(super) fn of_streams(
        input: impl AsyncRead + Send + Unpin + 'static,
        out: impl AsyncWrite + Send + Unpin + 'static,
        err: impl AsyncWrite + Send + Unpin + 'static,
        json: bool,
        terminals: Terminals,
    ) -> Self {
        Console { input: Box::new(input), out: Box::new(out), err: Box::new(err), json, terminals }
    }

    /// Whether JSON was asked for.
    pub(super) fn wants_json(&self) -> bool {
        self.json
    }

    /// Whether somebody can be asked.
    pub(super) fn can_ask(&self) -> bool {
        !self.json && self.terminals.input && self.terminals.err
    }

    /// Whether progress can be drawn.
    pub(super) fn can_draw(&self) -> bool {
        !self.json && self.terminals.err
    }

    /// Whether input comes from a terminal.
    pub(super) fn reads_terminal(&self) -> bool {
        self.terminals.input
    }

    /// Writes bytes to standard output, at once and as they are.
    pub(super) async fn write_out(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes).await?;
        self.out.flush().await
    }

    /// Writes bytes to standard error, at once and as they are.
    pub(super) async fn write_err(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.err.write_all(bytes).await?;
        self.err.flush().await
    }

    /// Prints a line, or several, to standard output.
    pub(super) async fn print(&mut self, text: &str) -> io::Result<()> {
        self.write_out(format!("{}\n", plain_lines(text)).as_bytes()).await
    }

    /// Prints a line about what is going on to standard error.
    pub(super) async fn note(&mut self, text: &str) -> io::Result<()> {
        self.write_err(format!("{}\n", plain_lines(text)).as_bytes()).await
    }

    /// Prints one JSON value on one line to standard output.
    pub(super) async fn print_json<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        self.write_out(json_line(value)?.as_bytes()).await
    }

    /// Prints why the command failed and what to do, to standard error.
    pub(super) async fn failure(&mut self, failure: &Failure) -> io::Result<()> {
        if failure.is_silent() {
            return Ok(());
        }
        if self.json {
            return self.write_err(json_line(&failure.view())?.as_bytes()).await;
        }
        self.note(&failure.to_string()).await
    }

    /// Asks a question that is answered with yes or no; anything but yes is no.
    pub(super) async fn ask(&mut self, question: &str) -> io::Result<bool> {
        self.write_err(format!("{question} [y/N] ").as_bytes()).await?;
        let mut answer = Vec::new();
        while answer.len() < MAX_ANSWER_BYTES {
            match self.input.read_u8().await {
                Ok(b'\n') => break,
                Ok(byte) => answer.push(byte),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        let answer = String::from_utf8_lossy(&answer).trim().to_lowercase();
        Ok(matches!(answer.as_str(), "y" | "yes"))
    }

    /// Reads standard input to its end, at most `limit` bytes; more is an error.
    pub(super) async fn read_input(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.input).take(limit + 1).read_to_end(&mut bytes).await?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// Standard input, from now on the caller's.
    pub(super) fn take_input(&mut self) -> Box<dyn AsyncRead + Send + Unpin> {
        std::mem::replace(&mut self.input, Box::new(tokio::io::empty()))
    }
}

/// One JSON value and a line end. The control characters that JSON lets through are escaped as well: JSON is read on
/// terminals too.
fn json_line<T: Serialize>(value: &T) -> io::Result<String> {
    let mut line = String::new();
    for c in serde_json::to_string(value)?.chars() {
        if is_unsafe(c) { line.push_str(&format!("\\u{:04x}", u32::from(c))) } else { line.push(c) }
    }
    line.push('\n');
    Ok(line)
}

/// A descriptor of its own for a standard stream; none where that stream is closed. Blocking calls happen off the
/// runtime's threads, so that a reader who stalls cannot keep Ctrl-C from being seen.
fn file_of(stream: impl AsStream) -> Option<File> {
    #[cfg(unix)]
    let stream = stream.as_fd();
    #[cfg(windows)]
    let stream = stream.as_handle();
    let own = stream.try_clone_to_owned().ok()?;
    Some(File::from_std(std::fs::File::from(own)))
}

fn reader(file: Option<File>) -> Box<dyn AsyncRead + Send + Unpin> {
    file.map_or_else(|| Box::new(tokio::io::empty()) as Box<_>, |file| Box::new(file) as Box<_>)
}

fn writer(file: Option<File>) -> Box<dyn AsyncWrite + Send + Unpin> {
    file.map_or_else(|| Box::new(tokio::io::sink()) as Box<_>, |file| Box::new(file) as Box<_>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_holds_nothing_that_a_terminal_obeys() {
        let line = json_line(&["Grüße\n", "\u{1b}[2J", "\u{9b}2J", "\u{202e}"]).unwrap();
        assert_eq!(line, "[\"Grüße\\n\",\"\\u001b[2J\",\"\\u009b2J\",\"\\u202e\"]\n");
    }
}
