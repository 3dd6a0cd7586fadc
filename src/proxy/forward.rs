//! gRPC calls that pass through to a backend as they are.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::{
    GrpcLanes,
    lanes::{
        BoxError, CALL_WINDOW_BYTES, LANE_WINDOW_BYTES, Listening, MAX_FRAME_BYTES, MAX_HEADER_BYTES, Place,
        SEND_BUFFER_BYTES, Speaker, before_head, enter,
    },
};
use crate::{local::Stream, model::error::Result};

/// The body of a call that is carried.
pub type CarriedBody = UnsyncBoxBody<Bytes, BoxError>;

/// What sends calls.
#[derive(Clone)]
pub struct Calls(http2::SendRequest<CarriedBody>);

/// The body of an answer. Dropping it cancels the call at the backend.
pub struct Answer {
    body: Incoming,
    _place: Place,
}

/// Sends a call and gives its answer, both as they are.
///
/// # Errors
///
/// What `dial` says; `BACKEND_TOO_SLOW` where it takes longer than `connect`; `RESPONSE_INVALID` where the backend does
/// not speak HTTP/2; `BACKEND_BROKE_BEFORE_HEAD`. Each says whether any of the call was sent.
pub async fn forward<D, F>(
    backend: &str,
    lanes: &GrpcLanes,
    dial: D,
    connect: Duration,
    mut call: http::Request<CarriedBody>,
) -> Result<http::Response<Answer>>
where
    D: Fn() -> F,
    F: Future<Output = Result<Stream>>,
{
    loop {
        let (mut lane, place, is_used) = enter(backend, lanes, &dial, connect).await?;
        match lane.sender.0.try_send_request(call).await {
            Ok(answer) => return Ok(answer.map(|body| Answer { body, _place: place })),
            Err(mut failed) => match failed.take_message() {
                // It had been closed, and nothing was sent: another may be open.
                Some(unsent) if is_used => call = unsent,
                unsent => return Err(before_head::<Calls>(backend, failed.into_error(), unsent.is_none(), &lane.load)),
            },
        }
    }
}

// === impl Calls ===

impl Speaker for Calls {
    const NAME: &'static str = "gRPC";
    type Driver = http2::Connection<TokioIo<Listening>, CarriedBody, TokioExecutor>;
    type Broken = hyper::Error;

    async fn handshake(stream: Listening) -> Result<(Self, Self::Driver), hyper::Error> {
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(CALL_WINDOW_BYTES)
            .initial_connection_window_size(LANE_WINDOW_BYTES)
            .max_frame_size(MAX_FRAME_BYTES)
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .handshake(TokioIo::new(stream));
        handshake.await.map(|(sender, driver)| (Calls(sender), driver))
    }

    fn most(driver: &Self::Driver) -> usize {
        driver.current_max_send_streams()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

// === impl Answer ===

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
