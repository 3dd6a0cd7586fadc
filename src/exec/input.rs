//! The standard input of a program: the write end of its pipe.

use std::{io, os::fd::OwnedFd};

use bytes::{Buf, Bytes};
use rustix::{
    io::{Errno, write},
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
};
use tokio::{io::unix::AsyncFd, sync::Mutex};
use tokio_util::sync::CancellationToken;

use super::input_closed::InputClosed;
use crate::shim::watch::watch;

/// From this much on, what is written at once makes the pipe larger, in bytes.
const LARGE_BYTES: usize = 64 << 10;
/// The pipe of a program that is given much, in bytes.
const PIPE_BYTES: usize = 1 << 20;

/// The write end.
#[derive(Debug)]
pub(super) struct Input {
    pipe: Mutex<Option<Pipe>>,
    /// Set when nobody is to write any more.
    over: CancellationToken,
}

#[derive(Debug)]
struct Pipe {
    end: AsyncFd<OwnedFd>,
    is_large: bool,
}

impl Input {
    /// A new pipe: this end, and the end for the program.
    pub(super) fn open() -> io::Result<(Self, OwnedFd)> {
        let (far, near) = pipe_with(PipeFlags::CLOEXEC)?;
        // Only this end: the program's must block.
        rustix::io::ioctl_fionbio(&near, true)?;
        let pipe = Pipe { end: watch(near)?, is_large: false };
        Ok((Input { pipe: Mutex::new(Some(pipe)), over: CancellationToken::new() }, far))
    }

    /// Writes all of `data`, behind what others write; waits while the program does not read.
    pub(super) async fn write(&self, mut data: Bytes) -> Result<(), InputClosed> {
        let mut held = self.pipe.lock().await;
        let result = match held.as_mut() {
            Some(pipe) => tokio::select! {
                biased;
                () = self.over.cancelled() => Err(InputClosed),
                result = pipe.write(&mut data) => result,
            },
            None => Err(InputClosed),
        };
        if result.is_err() {
            *held = None;
        }
        result
    }

    /// Closes it, when all that is being written is.
    pub(super) async fn close(&self) {
        *self.pipe.lock().await = None;
    }

    /// Closes it, whoever is writing.
    pub(super) fn cut(&self) {
        self.over.cancel();
        if let Ok(mut held) = self.pipe.try_lock() {
            *held = None;
        }
    }
}

impl Pipe {
    async fn write(&mut self, data: &mut Bytes) -> Result<(), InputClosed> {
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
