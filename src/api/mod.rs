//! The gRPC API on the control socket: who is calling, protobuf to domain and back, errors to statuses, and how it all
//! stops.

#[cfg(unix)]
mod activation;
mod admitted;
#[cfg(not(any(test, feature = "fuzzing")))]
mod authority;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod authority;
mod backend;
mod calls;
mod carry;
mod convert;
mod deadline;
#[cfg_attr(windows, path = "descriptors_windows.rs")]
mod descriptors;
mod desks;
mod event;
mod exec;
mod extension;
mod extension_front;
mod front;
mod grant;
mod heartbeat;
#[cfg_attr(windows, path = "listener_windows.rs")]
pub mod listener;
mod messages;
mod metrics;
mod ownership;
mod page;
mod passthrough;
mod peer;
mod registration;
mod reply;
mod scope;
mod server;
mod session;
mod status;
mod system;
mod tally;
mod trace;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use tokio_stream::Stream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::Status;

use crate::{
    core::Brokers,
    model::{
        error::{Error, Result},
        limits::MAX_BODY_BYTES,
    },
};
pub use metrics::SpanCounts;

use calls::Calls;
use desks::Desks;
use tally::Tally;

/// Largest message that the broker reads: a body for a backend as large as an answer's may be, and some room.
pub const MAX_REQUEST_BYTES: usize = MAX_BODY_BYTES as usize + (1 << 20);
/// Most bytes of a list in one message: clients with default settings take messages of 4 MiB.
const MAX_PIECE_BYTES: usize = 1 << 20;
/// Time that the last answers get to leave when the broker stops.
const FLUSH: Duration = Duration::from_millis(100);

/// Where metrics are told, and what is told beside what the API knows itself.
#[derive(Debug)]
pub struct MetricsAt {
    /// Where.
    pub socket: listener::ControlSocket,
    /// What became of spans.
    pub spans: Arc<SpanCounts>,
}

/// A response stream.
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Ends a stream with UNAVAILABLE when the broker stops.
fn until_stopped<T, S>(stream: S, stopping: CancellationToken) -> Streamed<T>
where
    S: Stream<Item = Result<T, Status>> + Send + 'static,
    T: Send + 'static,
{
    let mut stopped = Box::pin(stopping.cancelled_owned());
    let mut stream = Some(Box::pin(stream));
    Box::pin(futures_util::stream::poll_fn(move |cx| {
        let Some(open) = &mut stream else { return Poll::Ready(None) };
        let next = match stopped.as_mut().poll(cx) {
            Poll::Ready(()) => Some(Err(status::stopping())),
            Poll::Pending => ready!(open.as_mut().poll_next(cx)),
        };
        // What the stream holds (a program, an attachment) ends with it, not with the last reader.
        if !matches!(next, Some(Ok(_))) {
            stream = None;
        }
        Poll::Ready(next)
    }))
}

/// Serves the API until `shutdown`, then stops within `drain`: health says so, streams end, calls get that long.
///
/// Metrics are told on `metrics`, where it is there, until everything has ended.
///
/// Connections are closed by the end of the runtime: a silent client cannot hold it (lessons 1.1).
///
/// # Errors
///
/// `BUG`.
pub async fn serve(
    brokers: Arc<Brokers>,
    socket: listener::ControlSocket,
    metrics: Option<MetricsAt>,
    drain: Duration,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let tally = metrics.as_ref().map(|_| Tally::new()).transpose()?.map(Arc::new);
    let calls = Calls::counted(tally.clone());
    let _metrics = metrics.zip(tally).map(|(MetricsAt { socket, spans }, tally)| {
        let sources = metrics::Sources { brokers: brokers.clone(), calls: calls.clone(), tally, spans };
        AbortOnDropHandle::new(tokio::spawn(metrics::serve(socket, sources)))
    });
    let stop_accepting = CancellationToken::new();
    let desks = Arc::new(Desks::new(brokers, calls.clone(), stop_accepting.clone()));
    // Their backends may register before their users call.
    desks.open_known().await?;
    let mut server = std::pin::pin!(async {
        server::serve(&socket, desks.clone(), stop_accepting.clone()).await;
        desks.closed().await;
    });
    tokio::select! {
        () = &mut server => return Err(Error::bug("the server ended by itself")),
        () = shutdown => {}
    }
    tracing::info!(drain_ms = drain.as_millis() as u64, "stopping");
    desks.stop().await;
    stop_accepting.cancel();
    calls.stop();
    let idle = async {
        calls.idle().await;
        tokio::time::sleep(FLUSH).await;
    };
    tokio::select! {
        () = &mut server => {}
        () = idle => {}
        () = tokio::time::sleep(drain) => {
            tracing::warn!(calls = calls.open(), "calls are cut off by the deadline");
            calls.cut_off();
            // The server writes the answers.
            let _ = tokio::time::timeout(FLUSH, server).await;
        }
    }
    Ok(())
}
