//! One output of a program: the read end of its pipe.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::net::windows::named_pipe::NamedPipeServer;

/// What is read at once, in bytes.
const READ_BYTES: usize = 64 << 10;

/// The read end, and how much came through it.
#[derive(Debug)]
pub(super) struct Output {
    pipe: Option<NamedPipeServer>,
    buffer: BytesMut,
    /// Bytes read so far.
    pub(super) read_bytes: u64,
    /// Bytes that may have been written before the program ended and are not read yet.
    owed_bytes: u64,
}

impl Output {
    /// Of a pipe whose other end is the program's.
    pub(super) fn of(pipe: NamedPipeServer) -> Self {
        Output { pipe: Some(pipe), ..Output::ended() }
    }

    /// One that has ended.
    pub(super) fn ended() -> Self {
        Output { pipe: None, buffer: BytesMut::new(), read_bytes: 0, owed_bytes: 0 }
    }

    /// The next bytes; `None` when all ends for writing are closed. Pending means that the pipe is empty now.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            let Some(pipe) = &self.pipe else { return Poll::Ready(None) };
            self.buffer.reserve(READ_BYTES);
            match pipe.try_read_buf(&mut self.buffer) {
                Ok(len) if len > 0 => return Poll::Ready(Some(self.take(len))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if ready!(pipe.poll_read_ready(cx)).is_err() {
                        self.close();
                    }
                }
                Ok(_) | Err(_) => self.close(),
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
        self.buffer.split_to(len).freeze()
    }

    /// Closes it: who writes to it from now on is told so by the system.
    pub(super) fn close(&mut self) {
        self.pipe = None;
        self.owed_bytes = 0;
        self.buffer = BytesMut::new();
    }

    /// Notes that up to that much may be on its way that was written before the program ended.
    pub(super) fn note_end(&mut self, on_its_way_bytes: u64) {
        self.owed_bytes = if self.pipe.is_some() { on_its_way_bytes } else { 0 };
    }

    /// Whether what was written before the end of the program may still be to be read.
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
