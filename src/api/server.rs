//! The HTTP/2 server of the control socket and of extensions' sockets: accepts, says what a connection may take, stops.

use std::{
    convert::Infallible,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{body::Incoming, server::conn::http2, service::Service};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    authority::AuthorityRewrite,
    calls::{Answering, CountedBody},
    desks::Desks,
    extension_front::ExtensionFront,
    listener::ControlSocket,
    peer::PeerStream,
};
use crate::core::Arrivals;

/// What one connection may take.
struct Most {
    /// Streams that are open.
    streams: u32,
    /// Frames up to this size are taken: each costs one system call.
    frame_bytes: u32,
    /// Window of a stream; on a local socket it only bounds memory.
    window_bytes: u32,
    /// Window of a connection: what its streams may hold together.
    connection_window_bytes: u32,
}

/// At the control socket: 128 uploads have to stall before they hold back others.
const CONTROL: Most =
    Most { streams: 4096, frame_bytes: 256 << 10, window_bytes: 1 << 20, connection_window_bytes: 128 << 20 };
/// At extensions' sockets, where nobody has much to say, and callers may be hostile.
const EXTENSION: Most =
    Most { streams: 8, frame_bytes: 16 << 10, window_bytes: 64 << 10, connection_window_bytes: 256 << 10 };
/// Bytes of one answer that wait to be written, but for the piece that came last.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Connections cut off in the middle of their opening that are remembered: a bound on rapid resets.
const MAX_PENDING_RESETS: usize = 64;
/// How long a connection has to tell its end, when the socket that it came to is closed.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Refused callers that are told why, within [`REFUSALS_WITHIN`].
const MAX_REFUSALS: usize = 16;
/// How long one of them has for its calls, to be told why.
const REFUSAL_BOUND: Duration = Duration::from_secs(5);
/// How long a count of refused callers lasts.
const REFUSALS_WITHIN: Duration = Duration::from_secs(60);

/// Serves what comes to `socket` until `stop`, then until the last connection is closed.
pub(super) async fn serve(socket: &ControlSocket, desks: Arc<Desks>, stop: CancellationToken) {
    let builder = settings(&CONTROL);
    let connections = TaskTracker::new();
    let mut turned = Turned::default();
    loop {
        let stream = tokio::select! {
            stream = socket.accept() => PeerStream::new(stream, desks.brokers()),
            () = stop.cancelled() => break,
        };
        let is_refused = stream.is_refused();
        if is_refused {
            // A few are let in to be told why; who comes again and again is not worth a descriptor.
            if !turned.take() {
                continue;
            }
            stream.log_refusal();
        }
        let (builder, desks, stop) = (builder.clone(), desks.clone(), stop.clone());
        connections.spawn(async move {
            // A broker may have to be opened first, which nobody else waits for.
            let reception = desks.reception(stream.peer()).await;
            let served = serve_connection(builder, stream, reception, stop);
            within(is_refused.then_some(REFUSAL_BOUND), served).await;
        });
    }
    connections.close();
    connections.wait().await;
}

/// Serves those who come to extensions' sockets until `stop`, then until the last connection is closed.
pub(super) async fn serve_extensions(mut arrivals: Arrivals, front: ExtensionFront, stop: CancellationToken) {
    let builder = settings(&EXTENSION);
    let connections = TaskTracker::new();
    let mut turned = Turned::default();
    loop {
        let arrival = tokio::select! {
            Some(arrival) = arrivals.recv() => arrival,
            () = stop.cancelled() => break,
        };
        let is_refused = arrival.caller.is_err();
        if let Err(why) = arrival.caller {
            if !turned.take() {
                continue;
            }
            tracing::warn!(extension = %arrival.extension, why, "refused a caller at an extension's socket");
        }
        let reception = front.reception(&arrival);
        let (builder, stop) = (builder.clone(), stop.child_token());
        connections.spawn(async move {
            let _place = arrival.place;
            let served = serve_connection(builder, arrival.stream, reception, stop.clone());
            let mut served = pin!(within(is_refused.then_some(REFUSAL_BOUND), served));
            tokio::select! {
                () = served.as_mut() => return,
                () = arrival.closed.cancelled() => stop.cancel(),
            }
            // What ends now is told why.
            let _ = timeout(LAST_WORDS, served).await;
        });
    }
    connections.close();
    connections.wait().await;
}

/// Serves for so long at most, where there is a bound.
async fn within(bound: Option<Duration>, served: impl Future<Output = ()>) {
    match bound {
        Some(bound) => drop(timeout(bound, served).await),
        None => served.await,
    }
}

async fn serve_connection<S>(
    builder: http2::Builder<TokioExecutor>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    reception: S,
    stop: CancellationToken,
) where
    S: Service<http::Request<Incoming>, Response = http::Response<CountedBody>, Error = Infallible, Future = Answering>,
{
    let connection = builder.serve_connection(TokioIo::new(AuthorityRewrite::new(stream)), reception);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection failed");
    }
}

fn settings(most: &Most) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .max_concurrent_streams(most.streams)
        .max_frame_size(most.frame_bytes)
        .initial_stream_window_size(most.window_bytes)
        .initial_connection_window_size(most.connection_window_bytes)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        // A backend's answer is carried as it is.
        .auto_date_header(false);
    builder
}

/// How many refused callers were let in lately to be told why.
#[derive(Debug, Default)]
struct Turned {
    since: Option<Instant>,
    count: usize,
}

impl Turned {
    /// Whether one more may be told.
    fn take(&mut self) -> bool {
        if self.since.is_none_or(|since| since.elapsed() >= REFUSALS_WITHIN) {
            *self = Turned { since: Some(Instant::now()), count: 0 };
        }
        self.count += 1;
        self.count <= MAX_REFUSALS
    }
}
