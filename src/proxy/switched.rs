//! Raw bytes both ways on a stream of their own, after a backend switched protocols.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::AsyncWrite,
    time::{Sleep, sleep},
};
use tokio_util::io::poll_read_buf;

use super::{
    Raw, Source,
    timer::Watch,
    upload::{MAX_EMPTY, Piece},
};
use crate::{
    local::{LOOKOUT, Stream, is_gone},
    model::error::Result,
};

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 64 << 10;

/// A stream to a backend whose one direction is fed from a [`Source`] while the other is read.
pub(super) struct Switched {
    stream: Stream,
    /// What the backend sent behind its head.
    ahead: Bytes,
    buffer: BytesMut,
    source: Option<Source>,
    unsent: Bytes,
    sending: Sending,
    backend_ended: bool,
    lookout: Option<Pin<Box<Sleep>>>,
    watch: Watch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Open,
    /// Everything is sent; the backend is still to be told.
    Closing,
    Over,
}

impl Switched {
    /// Over a stream; `ahead` is what was read from it already.
    pub(super) fn new(stream: Stream, ahead: Bytes, watch: Watch) -> Switched {
        Switched {
            stream,
            ahead,
            buffer: BytesMut::new(),
            source: None,
            unsent: Bytes::new(),
            sending: Sending::Over,
            backend_ended: false,
            lookout: None,
            watch,
        }
    }

    /// From where the bytes for the backend come. At its end the backend is told that no more come.
    pub(super) fn fed_by(mut self, source: Source) -> Switched {
        (self.source, self.sending) = (Some(source), Sending::Open);
        self
    }

    /// Moves bytes both ways; `None` when both directions have ended, or the backend is gone.
    ///
    /// # Errors
    ///
    /// What the source says, and `BACKEND_TOO_SLOW`.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Raw>>> {
        let Watch { backend, timer, progress } = &mut self.watch;
        if let Some(error) = timer.spent(backend, progress) {
            return Poll::Ready(Some(Err(error)));
        }
        let next = self.poll_bytes(cx);
        if next.is_ready() {
            return next;
        }
        let Watch { backend, timer, progress } = &mut self.watch;
        timer.poll_passed(backend, progress, cx).map(|error| Some(Err(error)))
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Raw>>> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        if !self.ahead.is_empty() {
            return Poll::Ready(Some(Ok(Raw::Data(std::mem::take(&mut self.ahead)))));
        }
        while self.backend_ended {
            if self.sending == Sending::Over {
                return Poll::Ready(None);
            }
            // One that says no more is not heard when it goes: it is looked at now and then.
            let lookout = self.lookout.get_or_insert_with(|| Box::pin(sleep(LOOKOUT)));
            ready!(lookout.as_mut().poll(cx));
            self.lookout = None;
            if is_gone(&self.stream) {
                self.stop_sending();
            }
        }
        match ready!(self.poll_read(cx)) {
            // A backend that is gone has ended as well; what it sent was delivered before.
            ended @ (Ok(0) | Err(_)) => {
                self.backend_ended = true;
                if ended.is_err() || is_gone(&self.stream) {
                    self.stop_sending();
                }
                Poll::Ready(Some(Ok(Raw::End)))
            }
            Ok(bytes) => {
                self.watch.progress.read(bytes);
                Poll::Ready(Some(Ok(Raw::Data(self.buffer.split().freeze()))))
            }
        }
    }

    fn stop_sending(&mut self) {
        (self.unsent, self.source, self.sending) = (Bytes::new(), None, Sending::Over);
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.reserve(READ_BYTES);
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.buffer)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut empty = 0;
        loop {
            if empty == MAX_EMPTY {
                // Whoever sends nothing without end does not keep the others waiting.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.unsent.is_empty() {
                match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent)) {
                    Ok(bytes) => {
                        self.unsent.advance(bytes);
                        self.watch.progress.wrote(bytes, self.unsent.is_empty());
                    }
                    // The backend takes no more; what it still sends is delivered.
                    Err(_) => self.stop_sending(),
                }
                continue;
            }
            match self.sending {
                Sending::Over => return Poll::Ready(Ok(())),
                Sending::Closing => {
                    let _ = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
                    self.sending = Sending::Over;
                }
                Sending::Open => {
                    let next = match &mut self.source {
                        Some(source) => ready!(source.as_mut().poll_next(cx)),
                        None => None,
                    };
                    match next.transpose()? {
                        Some(Piece::Data(data)) => {
                            empty += usize::from(data.is_empty());
                            self.unsent = data;
                        }
                        Some(Piece::Trailers(_)) => empty += 1,
                        None => (self.source, self.sending) = (None, Sending::Closing),
                    }
                }
            }
        }
    }
}
