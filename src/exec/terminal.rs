//! The broker's side of a program's terminal.

use std::{io, os::fd::OwnedFd, sync::Arc};

use super::program::WindowSize;
use crate::shim::relay;
pub(super) use crate::shim::relay::Ends;

/// A terminal that is awaited from the shim, or has come.
#[derive(Debug)]
pub(super) enum Terminal {
    /// It comes with the start.
    Awaited {
        /// Far ends of the pipes.
        ends: Ends,
        /// The size that it shall have then, where another was asked for meanwhile.
        size: Option<WindowSize>,
    },
    /// It is there.
    Open(Arc<OwnedFd>),
}

impl Terminal {
    /// Takes what came from the shim. Fails where that is no terminal.
    pub(super) fn open(self, outer: OwnedFd) -> io::Result<Self> {
        let Terminal::Awaited { ends, size } = self else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a second terminal came"));
        };
        let mut terminal = Terminal::Open(relay::start(outer, ends)?);
        if let Some(size) = size {
            terminal.resize(size);
        }
        Ok(terminal)
    }

    /// Changes its size; the program gets a SIGWINCH where it differs.
    pub(super) fn resize(&mut self, wanted: WindowSize) {
        match self {
            Terminal::Awaited { size, .. } => *size = Some(wanted),
            Terminal::Open(outer) => relay::resize(outer, wanted.columns, wanted.rows),
        }
    }
}
