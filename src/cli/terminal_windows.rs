//! The terminal that this command was started at: programs get none on Windows yet, so none is passed on.

use std::io;

use crate::pb;

/// A terminal.
#[derive(Debug)]
pub(super) struct Terminal(());

/// A terminal that passes every key on as it is.
#[derive(Debug)]
pub(super) struct Raw(());

impl Terminal {
    /// The one at standard input.
    pub(super) fn to_type_at() -> Option<Self> {
        None
    }

    /// Something of the usual size.
    pub(super) fn to_look_at() -> Self {
        Terminal(())
    }

    /// Another hold of the same terminal.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Terminal(()))
    }

    /// Its size now.
    pub(super) fn size(&self) -> pb::WindowSize {
        pb::WindowSize { columns: 80, rows: 24 }
    }

    /// Nothing is passed on as it is.
    pub(super) fn make_raw(&self) -> io::Result<Raw> {
        Ok(Raw(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {}
}
