//! The byte stream under an HTTP/2 connection, with three corrections to what the library expects of a stream.
//!
//! 1. A write that fails is no failure yet: a backend may answer early, close, and never read the rest. What is written
//!    from then on is thrown away, and what the backend answered (or its end) decides.
//! 2. A reset is an end: a Unix socket that is closed with unread bytes in it resets, after everything it sent was
//!    delivered.
//! 3. Nothing is read before something was written.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::traffic::Traffic;

/// A stream to a backend.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    traffic: Arc<Traffic>,
    /// Something was written, or writing failed.
    opened: bool,
    /// The backend takes nothing any more.
    is_deaf: bool,
    early_reader: Option<Waker>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S, traffic: Arc<Traffic>) -> Self {
        Wire { stream, traffic, opened: false, is_deaf: false, early_reader: None }
    }

    /// Takes note of a write of `len` bytes; a failed one counts as swallowed.
    fn wrote(&mut self, outcome: Poll<io::Result<usize>>, len: usize) -> Poll<io::Result<usize>> {
        let taken = match ready!(outcome) {
            Ok(bytes) => {
                self.traffic.add_sent(bytes);
                bytes
            }
            Err(_) => {
                self.is_deaf = true;
                len
            }
        };
        self.opened = true;
        if let Some(reader) = self.early_reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(taken))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.opened {
            self.early_reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.traffic.add_received(buf.filled().len() - before);
        match read {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Poll::Ready(Ok(())),
            outcome => Poll::Ready(outcome),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(outcome, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        if self.is_deaf {
            return Poll::Ready(Ok(len));
        }
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(outcome, len)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_deaf {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_deaf {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
