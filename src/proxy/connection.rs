//! One HTTP/1.1 connection to a backend, driven by whoever waits on it: no task, and gone when its owner is.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::Sleep};

use super::{
    headers::{MAX_HEADER_BYTES, MAX_HEADER_LINES},
    progress::Progress,
    upload::Sending,
    wire::Wire,
};

/// Most bytes that are read at once: what a caller who does not read makes the broker hold. It is what a socket holds, or
/// more, so larger ones would be no faster.
const MAX_PIECE_BYTES: usize = 128 << 10;

/// A connection and what moves its bytes.
pub(super) struct Connection {
    sender: SendRequest<Sending>,
    driver: http1::Connection<TokioIo<Wire<UnixStream>>, Sending>,
    is_over: bool,
    progress: Arc<Progress>,
    /// The timer of the last exchange, for the next: to set it further off costs less than a new one.
    pub(super) timer: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Prepares a fresh stream; sends nothing yet.
    pub(super) async fn open(stream: UnixStream, progress: Arc<Progress>) -> hyper::Result<Connection> {
        let io = TokioIo::new(Wire::new(stream, Arc::clone(&progress)));
        let (sender, driver) = http1::Builder::new()
            // Hand-written backends look for `Content-Length` as it is usually written.
            .title_case_headers(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .max_headers(MAX_HEADER_LINES)
            .max_header_size(MAX_HEADER_BYTES)
            .max_buf_size(MAX_PIECE_BYTES)
            .handshake(io)
            .await?;
        Ok(Connection { sender, driver, is_over: false, progress, timer: None })
    }

    /// Queues a request; the answer comes only while [`Connection::poll_bytes`] is called.
    pub(super) fn send(
        &mut self,
        request: http::Request<Sending>,
    ) -> impl Future<Output = hyper::Result<http::Response<Incoming>>> + Send + use<> {
        self.sender.send_request(request)
    }

    /// Moves what bytes can be moved.
    pub(super) fn poll_bytes(&mut self, cx: &mut Context<'_>) {
        // What went wrong reaches the exchange through its own future; here it only says that it is over.
        if !self.is_over && self.driver.poll_without_shutdown(cx).is_ready() {
            self.is_over = true;
        }
    }

    /// Whether the connection has ended.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Ready when the backend has taken what was queued, or is gone.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_bytes(cx);
        if !self.is_over && self.progress.write_pending() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Whether the next request can be sent: the last exchange is complete, the backend keeps the connection open, and
    /// has sent nothing that nobody asked for.
    pub(super) fn is_idle(&mut self) -> bool {
        self.poll_bytes(&mut Context::from_waker(Waker::noop()));
        !self.is_over && self.sender.is_ready() && !self.progress.is_write_broken()
    }

    /// How far the request came.
    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The bare stream of a backend that switched protocols, and what it has sent since.
    pub(super) async fn into_stream(mut self) -> (UnixStream, Bytes) {
        poll_fn(|cx| {
            self.poll_bytes(cx);
            if self.is_over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let parts = self.driver.into_parts();
        (parts.io.into_inner().into_inner(), parts.read_buf)
    }
}
