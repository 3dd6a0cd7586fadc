//! One output of a program: the read end of its pipe.

use std::{
    io,
    os::fd::OwnedFd,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use rustix::{
    io::{Errno, ioctl_fionread, read},
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
};
use tokio::io::unix::AsyncFd;

use crate::shim::watch::watch;

/// What is read at first, in bytes: enough for most programs, and little memory.
const FIRST_READ_BYTES: usize = 16 << 10;
/// What is read at once from a program that writes much, in bytes.
const MAX_READ_BYTES: usize = 256 << 10;
/// Below this room in the buffer a new one is taken, or the old one again if nobody holds what was read into it.
const MIN_READ_BYTES: usize = 64 << 10;
/// The pipe of a program that writes much, in bytes. A larger one doubles the throughput.
const PIPE_BYTES: usize = 1 << 20;

/// The read end, and how much came through it.
#[derive(Debug)]
pub(super) struct Output {
    pipe: Option<AsyncFd<OwnedFd>>,
    buffer: BytesMut,
    is_fast: bool,
    /// Bytes read so far.
    pub(super) read_bytes: u64,
    /// Bytes that were written before the program ended and are not read yet.
    owed_bytes: u64,
}

impl Output {
    /// A new pipe: this end, and the end for the program.
    pub(super) fn open() -> io::Result<(Self, OwnedFd)> {
        let (near, far) = pipe_with(PipeFlags::CLOEXEC)?;
        // Only this end: the program's must block. (Flags belong to an end, not to the pipe.)
        rustix::io::ioctl_fionbio(&near, true)?;
        let pipe = Some(watch(near)?);
        Ok((Output { pipe, buffer: BytesMut::new(), is_fast: false, read_bytes: 0, owed_bytes: 0 }, far))
    }

    /// One that has ended.
    pub(super) fn ended() -> Self {
        Output { pipe: None, buffer: BytesMut::new(), is_fast: false, read_bytes: 0, owed_bytes: 0 }
    }

    /// The next bytes; `None` when all ends for writing are closed. Pending means that the pipe is empty now.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            let Some(pipe) = &self.pipe else { return Poll::Ready(None) };
            reserve(&mut self.buffer, self.is_fast);
            match read_into(pipe.get_ref(), &mut self.buffer) {
                Ok(0) => self.close(),
                Ok(len) => return Poll::Ready(Some(self.take(len))),
                Err(Errno::AGAIN) => match ready!(pipe.poll_read_ready(cx)) {
                    Ok(mut guard) => guard.clear_ready(),
                    Err(_) => self.close(),
                },
                Err(Errno::INTR) => {}
                Err(_) => self.close(),
            }
        }
    }

    /// Takes back bytes that were read and are not told.
    pub(super) fn unread(&mut self, bytes: u64) {
        self.read_bytes -= bytes;
    }

    fn take(&mut self, len: usize) -> Bytes {
        self.read_bytes += len as u64;
        self.owed_bytes = self.owed_bytes.saturating_sub(len as u64);
        if !self.is_fast && len >= FIRST_READ_BYTES {
            self.is_fast = true;
            // An unprivileged user has only so much of this; the pipe works at its first size too.
            let _ = self.pipe.as_ref().map(|pipe| fcntl_setpipe_size(pipe.get_ref(), PIPE_BYTES));
        }
        self.buffer.split_to(len).freeze()
    }

    /// Closes it: who writes to it from now on is told so by the system.
    pub(super) fn close(&mut self) {
        self.pipe = None;
        self.owed_bytes = 0;
        self.buffer = BytesMut::new();
    }

    /// Notes that what is in the pipe now, and that much more that is on its way, was written before the program ended.
    pub(super) fn note_end(&mut self, on_its_way_bytes: u64) {
        let queued = self.pipe.as_ref().and_then(|pipe| ioctl_fionread(pipe.get_ref()).ok());
        self.owed_bytes = queued.map_or(0, |queued| queued + on_its_way_bytes);
    }

    /// Whether what was written before the end of the program is still to be read.
    pub(super) fn is_owed(&self) -> bool {
        self.owed_bytes > 0
    }

    /// Forgets what was owed: the pipe is empty.
    pub(super) fn forgive(&mut self) {
        self.owed_bytes = 0;
    }

    /// Whether nobody can write to it any more.
    pub(super) fn has_ended(&self) -> bool {
        self.pipe.is_none()
    }
}

/// Reads once into the room that the buffer has.
fn read_into(pipe: &OwnedFd, buffer: &mut BytesMut) -> Result<usize, Errno> {
    // SAFETY: the slice is only written to, by the kernel, which leaves no initialised byte uninitialised.
    let room = unsafe { buffer.chunk_mut().as_uninit_slice_mut() };
    let room_bytes = room.len().min(MAX_READ_BYTES);
    let (filled, _) = read(pipe, &mut room[..room_bytes])?;
    let len = filled.len();
    // SAFETY: the kernel has just initialised that many bytes behind the old length.
    unsafe { buffer.advance_mut(len) };
    Ok(len)
}

fn reserve(buffer: &mut BytesMut, is_fast: bool) {
    if !is_fast {
        buffer.reserve(FIRST_READ_BYTES);
    } else if buffer.capacity() < MIN_READ_BYTES {
        buffer.reserve(MAX_READ_BYTES);
    }
}
