//! The pipe of a program's standard input.

use std::{io, os::fd::OwnedFd};

use bytes::{Buf, Bytes};
use rustix::{
    io::{Errno, write},
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
};
use tokio::io::unix::AsyncFd;

use super::input::InputClosed;
use crate::shim::watch::watch;

/// From this much on, what is written at once makes the pipe larger, in bytes.
const LARGE_BYTES: usize = 64 << 10;
/// The pipe of a program that is given much, in bytes.
const PIPE_BYTES: usize = 1 << 20;

/// Its write end.
#[derive(Debug)]
pub(super) struct InputPipe {
    end: AsyncFd<OwnedFd>,
    is_large: bool,
}

impl InputPipe {
    /// A new one: this end, and the end for the program.
    pub(super) fn open() -> io::Result<(Self, OwnedFd)> {
        let (far, near) = pipe_with(PipeFlags::CLOEXEC)?;
        // Only this end: the program's must block.
        rustix::io::ioctl_fionbio(&near, true)?;
        Ok((InputPipe { end: watch(near)?, is_large: false }, far))
    }

    /// Writes all of it; waits while the program does not read.
    pub(super) async fn write(&mut self, data: &mut Bytes) -> Result<(), InputClosed> {
        if data.len() >= LARGE_BYTES && !self.is_large {
            self.is_large = true;
            // An unprivileged user has only so much of this; the pipe works at its first size too.
            let _ = fcntl_setpipe_size(self.end.get_ref(), PIPE_BYTES);
        }
        while data.has_remaining() {
            match write(self.end.get_ref(), data) {
                Ok(len) => data.advance(len),
                Err(Errno::AGAIN) => {
                    let mut ready = self.end.writable().await.map_err(|_| InputClosed)?;
                    // What was seen before the attempt that follows.
                    match write(self.end.get_ref(), data) {
                        Ok(len) => data.advance(len),
                        Err(Errno::AGAIN) => ready.clear_ready(),
                        Err(Errno::INTR) => {}
                        Err(_) => return Err(InputClosed),
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return Err(InputClosed),
            }
        }
        Ok(())
    }
}
