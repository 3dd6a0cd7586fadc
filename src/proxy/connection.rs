//! One HTTP/1.1 connection to a backend, driven by whoever waits on it: no task, and gone when its owner is.
//!
//! A write that fails is no failure yet: a backend may answer early, close, and never read the rest. From then on nothing
//! is written, and what the backend answered (or its end) decides. A reset is an end: a Unix socket that is closed with
//! unread bytes in it resets, after everything it sent was delivered. A backend that reads once and answers until it
//! closes does exactly that.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{io::AsyncWrite, time::Sleep};
use tokio_util::io::poll_read_buf;

use super::progress::Progress;
use crate::local::{self, Stream};

/// How much is read at first.
const FIRST_READ_BYTES: usize = 8 << 10;
/// Most bytes that are read at once: what a caller who does not read makes the broker hold. It is what a socket holds, or
/// more, so larger ones would be no faster.
const MAX_READ_BYTES: usize = 128 << 10;
/// How many pieces are written at once.
const MAX_SLICES: usize = 16;

/// A stream, what was read from it and not taken yet, and what is to be written.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    /// What the backend sent; whoever reads takes from its beginning.
    pub(super) received: BytesMut,
    /// What goes to the backend, in order.
    pub(super) unsent: VecDeque<Bytes>,
    pub(super) progress: Progress,
    /// The timer of the last exchange, for the next: to set it further off costs less than a new one.
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    read_bytes: usize,
    has_ended: bool,
}

impl Connection {
    /// On a fresh stream.
    pub(super) fn new(stream: Stream, progress: Progress) -> Connection {
        Connection {
            stream,
            received: BytesMut::new(),
            unsent: VecDeque::new(),
            progress,
            timer: None,
            read_bytes: FIRST_READ_BYTES,
            has_ended: false,
        }
    }

    /// A request begins.
    pub(super) fn begin(&mut self) {
        self.progress.begin();
        self.read_bytes = FIRST_READ_BYTES;
    }

    /// Writes what is to be written; ready when nothing is left, or nobody takes it any more.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.unsent.is_empty() && !self.progress.is_write_broken() {
            let Poll::Ready(written) = self.poll_write_some(cx) else {
                self.progress.write_blocked();
                return Poll::Pending;
            };
            match written {
                Ok(bytes) => self.wrote(bytes),
                Err(_) => {
                    self.progress.write_broke();
                    // Nothing of it left: it can go another way.
                    if self.progress.sent() {
                        self.unsent.clear();
                    }
                }
            }
        }
        Poll::Ready(())
    }

    fn poll_write_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        if self.unsent.len() == 1 {
            return stream.poll_write(cx, &self.unsent[0]);
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = slices.iter_mut().zip(&self.unsent).map(|(slot, bytes)| *slot = IoSlice::new(bytes)).count();
        stream.poll_write_vectored(cx, &slices[..count])
    }

    fn wrote(&mut self, mut bytes: usize) {
        let written = bytes;
        while let Some(first) = self.unsent.front_mut() {
            if bytes < first.len() {
                first.advance(bytes);
                break;
            }
            bytes -= first.len();
            self.unsent.pop_front();
        }
        self.progress.wrote(written, self.unsent.is_empty());
    }

    /// Whether anything may be read: a backend may answer as soon as it accepts, but not before it was asked.
    pub(super) fn is_asked(&self) -> bool {
        self.progress.sent() || self.progress.is_write_broken()
    }

    /// Reads some more; false at the end.
    ///
    /// # Errors
    ///
    /// What the system says, but for a reset.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.has_ended {
            return Poll::Ready(Ok(false));
        }
        self.received.reserve(self.read_bytes);
        let read = match ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.received)) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                self.progress.was_left_unread();
                0
            }
            read => read?,
        };
        self.progress.read(read);
        self.has_ended = read == 0;
        if self.received.len() == self.received.capacity() {
            self.read_bytes = (self.read_bytes * 2).min(MAX_READ_BYTES);
        } else if read < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(FIRST_READ_BYTES);
        }
        Poll::Ready(Ok(read > 0))
    }

    /// Whether the other end is closed for both directions, not only for what it sends: nobody is left to send to.
    pub(super) fn is_gone(&self) -> bool {
        local::is_gone(&self.stream)
    }

    /// Whether the backend sends no more; that it takes no more either is seen by [`Connection::is_gone`] alone.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether the last exchange left nothing behind.
    pub(super) fn is_clean(&self) -> bool {
        let is_empty = self.unsent.is_empty() && self.received.is_empty();
        is_empty && !self.has_ended && !self.progress.is_write_broken()
    }

    /// Whether the backend has neither closed nor sent what nobody asked for. The system is asked: what the runtime
    /// knows of the socket may be older.
    pub(super) fn is_silent(&self) -> bool {
        local::is_silent(&self.stream)
    }

    /// Lets go of memory that is of no use while nothing is asked.
    pub(super) fn rest(&mut self) {
        self.received = BytesMut::new();
    }

    /// The bare stream of a backend that switched protocols, what it has sent since, and how far the request came.
    pub(super) fn into_stream(self) -> (Stream, Bytes, Progress) {
        (self.stream, self.received.freeze(), self.progress)
    }
}
