//! The terminal that this command was started at.

use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::pb;

/// Size of a terminal that nobody told its size, or that is none.
const DEFAULT_SIZE: pb::WindowSize = pb::WindowSize { columns: 80, rows: 24 };

/// A terminal.
#[derive(Debug)]
pub(super) struct Terminal(Option<OwnedFd>);

/// A terminal that passes every key on as it is. Dropping this gives it back as it was.
pub(super) struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Terminal {
    /// The one at standard input.
    pub(super) fn to_type_at() -> Option<Self> {
        Some(Terminal(Some(if_terminal(io::stdin())?)))
    }

    /// The one at standard output or error; where there is none, something of the usual size.
    pub(super) fn to_look_at() -> Self {
        Terminal(if_terminal(io::stdout()).or_else(|| if_terminal(io::stderr())))
    }

    /// Another hold of the same terminal.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Terminal(self.0.as_ref().map(OwnedFd::try_clone).transpose()?))
    }

    /// Its size now.
    pub(super) fn size(&self) -> pb::WindowSize {
        match self.0.as_ref().map(tcgetwinsize) {
            Some(Ok(size)) if size.ws_col > 0 && size.ws_row > 0 => {
                pb::WindowSize { columns: size.ws_col.into(), rows: size.ws_row.into() }
            }
            _ => DEFAULT_SIZE,
        }
    }

    /// From now on keys are passed on as they are: no echo, no lines, no signals.
    pub(super) fn make_raw(&self) -> io::Result<Raw> {
        let Some(terminal) = &self.0 else { return Err(io::ErrorKind::Unsupported.into()) };
        let terminal = terminal.try_clone()?;
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Raw { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing any more.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

fn if_terminal(stream: impl AsFd + io::IsTerminal) -> Option<OwnedFd> {
    stream.is_terminal().then(|| stream.as_fd().try_clone_to_owned().ok()).flatten()
}
