//! One HTTP/1.1 connection to a backend, driven by whoever waits on it: no task, and gone when its owner is.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    headers::{MAX_HEADER_BYTES, MAX_HEADER_LINES},
    progress::Progress,
    wire::Wire,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection and what moves its bytes.
pub(super) struct Connection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body + 'static,
{
    sender: SendRequest<B>,
    /// `None` once the connection has ended.
    driver: Option<http1::Connection<TokioIo<Wire<S>>, B>>,
    progress: Arc<Progress>,
}

impl<S, B> Connection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Prepares a fresh stream; sends nothing yet.
    pub(super) async fn open(stream: S, progress: Arc<Progress>) -> hyper::Result<Self> {
        let io = TokioIo::new(Wire::new(stream, Arc::clone(&progress)));
        let (sender, driver) = http1::Builder::new()
            // Hand-written backends look for `Content-Length` as it is usually written.
            .title_case_headers(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .max_headers(MAX_HEADER_LINES)
            .max_header_size(MAX_HEADER_BYTES)
            .handshake(io)
            .await?;
        Ok(Connection { sender, driver: Some(driver), progress })
    }

    /// Queues a request; the answer comes only while [`Connection::drive`] runs.
    pub(super) fn send(
        &mut self,
        request: http::Request<B>,
    ) -> impl Future<Output = hyper::Result<http::Response<Incoming>>> + use<S, B> {
        self.sender.send_request(request)
    }

    /// Moves bytes until `exchange`, which waits for something of this connection, is done.
    pub(super) async fn drive<T>(&mut self, exchange: impl Future<Output = T>) -> T {
        let mut exchange = pin!(exchange);
        poll_fn(|cx| {
            self.poll_bytes(cx);
            exchange.as_mut().poll(cx)
        })
        .await
    }

    /// Moves bytes until the backend has taken what was queued, or is gone.
    pub(super) async fn flush(&mut self) {
        poll_fn(|cx| {
            self.poll_bytes(cx);
            if self.driver.is_some() && self.progress.write_pending() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// How far the request came.
    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    fn poll_bytes(&mut self, cx: &mut std::task::Context<'_>) {
        if let Some(driver) = &mut self.driver {
            // What went wrong reaches the exchange through its own future; here it only says that it is over.
            if Pin::new(driver).poll(cx).is_ready() {
                self.driver = None;
            }
        }
    }
}
