//! The terminal that a program gets: a pair, one side for the program, the other for the broker.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{OFlags, open},
    io::Result,
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// Both sides.
#[derive(Debug)]
pub(super) struct Terminal {
    /// The broker's: what is written here is typed, and when it closes, the program is hung up on.
    pub(super) outer: OwnedFd,
    /// The program's.
    pub(super) inner: OwnedFd,
}

impl Terminal {
    /// A new one of this size, with the settings that terminals begin with.
    pub(super) fn open(columns: u16, rows: u16) -> Result<Self> {
        let outer = open("/dev/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
        unlockpt(&outer)?;
        // By the descriptor: the container may have put anything in the place of `/dev/pts`.
        let inner = ioctl_tiocgptpeer(&outer, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        tcsetwinsize(outer.as_fd(), Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 })?;
        Ok(Terminal { outer, inner })
    }
}
