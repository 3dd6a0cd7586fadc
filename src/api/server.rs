//! The HTTP/2 server of the control socket: accepts, says what a connection may take, stops.

use std::time::{Duration, Instant};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    authority::AuthorityRewrite,
    front::Front,
    listener,
    peer::{IsOurs, PeerStream},
};

/// Streams that one connection may have open.
const MAX_STREAMS: u32 = 4096;
/// Frames up to this size are taken: each costs one system call.
const MAX_FRAME_BYTES: u32 = 256 * 1024;
/// Window of a stream; on a local socket it only bounds memory.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// Window of a connection: what its streams may hold together. That many uploads have to stall before they hold back
/// others.
const CONNECTION_WINDOW_BYTES: u32 = 128 * WINDOW_BYTES;
/// Bytes of one answer that wait to be written, but for the piece that came last.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Connections cut off in the middle of their opening that are remembered: a bound on rapid resets.
const MAX_PENDING_RESETS: usize = 64;
/// Refused callers that are told why, within [`REFUSALS_WITHIN`]; each holds a connection as long as it likes.
const MAX_REFUSALS: usize = 16;
/// How long a count of refused callers lasts.
const REFUSALS_WITHIN: Duration = Duration::from_secs(60);

/// Serves what comes to `listener` until `stop`, then until the last connection is closed.
pub(super) async fn serve(listener: &UnixListener, is_ours: IsOurs, front: Front, stop: CancellationToken) {
    let builder = settings();
    let connections = TaskTracker::new();
    let mut turned = Turned::default();
    loop {
        let stream = tokio::select! {
            stream = listener::accept(listener) => PeerStream::new(stream, &is_ours),
            () = stop.cancelled() => break,
        };
        if stream.is_refused() {
            // A few are let in to be told why; who comes again and again is not worth a descriptor.
            if !turned.take() {
                continue;
            }
            stream.log_refusal();
        }
        let door = front.door(stream.peer().clone());
        let connection = builder.serve_connection(TokioIo::new(AuthorityRewrite::new(stream)), door);
        let stop = stop.clone();
        connections.spawn(async move {
            let mut connection = std::pin::pin!(connection);
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
        });
    }
    connections.close();
    connections.wait().await;
}

fn settings() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_frame_size(MAX_FRAME_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
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
