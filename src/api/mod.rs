//! The gRPC API on the control socket: who is calling, protobuf to domain and back, errors to statuses, and how it all
//! stops.

mod activation;
#[cfg(not(any(test, feature = "fuzzing")))]
mod authority;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod authority;
mod backend;
mod calls;
mod carry;
mod convert;
mod deadline;
mod event;
mod exec;
mod extension;
mod grant;
mod heartbeat;
pub mod listener;
mod ownership;
mod page;
mod passthrough;
mod peer;
mod session;
mod status;
mod system;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Poll, ready},
    time::{Duration, Instant},
};

use tokio::net::UnixListener;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    core::Broker,
    model::error::{Error, Result},
    pb,
};
use calls::{Calls, CallsLayer};
use passthrough::PassThroughLayer;
use session::SessionLayer;
use tower::layer::util::{Identity, Stack};

/// Largest message that the broker reads: a body for a backend, and some room.
pub const MAX_REQUEST_BYTES: usize = 65 * 1024 * 1024;
/// Streams that one connection may have open.
const MAX_STREAMS: u32 = 4096;
/// Frames up to this size are taken: each costs one system call.
const MAX_FRAME_BYTES: u32 = 1024 * 1024;
/// Window of a stream and of a connection; on a local socket it only bounds memory.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// Connections cut off in the middle of their opening that are remembered: a bound on rapid resets.
const MAX_PENDING_RESETS: usize = 64;
/// Time that the last answers get to leave when the broker stops.
const FLUSH: Duration = Duration::from_millis(100);
/// Refused callers that are told why, within [`REFUSALS_WITHIN`]; each holds a connection as long as it likes.
const MAX_REFUSALS: usize = 16;
/// How long a count of refused callers lasts.
const REFUSALS_WITHIN: Duration = Duration::from_secs(60);
/// The service name under which health tells about the engine.
const ENGINE_HEALTH: &str = "longshore.engine";

/// What every call passes, the innermost first.
type Layers = Stack<PassThroughLayer, Stack<SessionLayer, Stack<CallsLayer, Identity>>>;
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
/// Connections are closed by the end of the runtime: a silent client cannot hold it (lessons 1.1).
pub async fn serve(
    broker: Arc<Broker>,
    socket: listener::ControlSocket,
    drain: Duration,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    // It begins as serving, and nothing is until the first accept below (lessons 1.3).
    health.set_service_status("", ServingStatus::NotServing).await;
    health.set_service_status(ENGINE_HEALTH, ServingStatus::NotServing).await;
    let calls = Calls::default();
    let stop_accepting = CancellationToken::new();
    let is_ours: peer::IsOurs = {
        let broker = Arc::downgrade(&broker);
        Arc::new(move |pid| broker.upgrade().is_some_and(|broker| broker.is_extension_program(pid)))
    };
    let incoming = async_stream(&socket.listener, is_ours, stop_accepting.clone());
    let server = router(&broker, health_service, calls.clone())?
        .serve_with_incoming_shutdown(incoming, stop_accepting.clone().cancelled_owned());
    let mut server = std::pin::pin!(server);
    health.set_service_status("", ServingStatus::Serving).await;
    let engine_watch = broker.spawn_engine_watch({
        let health = health.clone();
        move |reachable| report_engine(health.clone(), reachable)
    });
    tokio::select! {
        ended = &mut server => {
            return ended.map_err(|e| Error::bug("the server ended by itself").caused_by(e));
        }
        () = shutdown => {}
    }
    tracing::info!(drain_ms = drain.as_millis() as u64, "stopping");
    health.set_service_status("", ServingStatus::NotServing).await;
    engine_watch.abort();
    stop_accepting.cancel();
    broker.stopping().cancel();
    calls.stop();
    let idle = async {
        calls.idle().await;
        tokio::time::sleep(FLUSH).await;
    };
    tokio::select! {
        _ = &mut server => {}
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

async fn report_engine(health: HealthReporter, reachable: bool) {
    let status = if reachable { ServingStatus::Serving } else { ServingStatus::NotServing };
    health.set_service_status(ENGINE_HEALTH, status).await;
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

/// Accepted connections, their `:authority` made acceptable to h2.
fn async_stream(
    listener: &UnixListener,
    is_ours: peer::IsOurs,
    stop: CancellationToken,
) -> impl Stream<Item = std::io::Result<authority::AuthorityRewrite<peer::PeerStream>>> {
    futures_util::stream::unfold((listener, is_ours, stop, Turned::default()), |mut state| async move {
        let (listener, is_ours, stop, turned) = &mut state;
        let stream = loop {
            let stream = tokio::select! {
                stream = listener::accept(listener) => stream,
                () = stop.cancelled() => return None,
            };
            let stream = peer::PeerStream::new(stream, is_ours);
            if !stream.is_refused() {
                break stream;
            }
            // A few are let in to be told why; who comes again and again is not worth a descriptor.
            if turned.take() {
                stream.log_refusal();
                break stream;
            }
        };
        Some((Ok(authority::AuthorityRewrite::new(stream)), state))
    })
}

fn router<H>(broker: &Arc<Broker>, health: H, calls: Calls) -> Result<tonic::transport::server::Router<Layers>>
where
    H: tower::Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    H::Future: Send + 'static,
{
    use pb::{
        backend_service_server::BackendServiceServer, event_service_server::EventServiceServer,
        exec_service_server::ExecServiceServer, extension_service_server::ExtensionServiceServer,
        grant_service_server::GrantServiceServer, ownership_service_server::OwnershipServiceServer,
        session_service_server::SessionServiceServer, system_service_server::SystemServiceServer,
    };
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The details of errors: clients that have only reflection, as grpcurl, can then show them.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let wrong = |e| Error::bug("the compiled protos are damaged").caused_by(e);
    let backends = BackendServiceServer::new(backend::Backends(broker.clone()))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_REQUEST_BYTES);
    Ok(Server::builder()
        .layer(CallsLayer::new(calls))
        .layer(SessionLayer(broker.clone()))
        .layer(PassThroughLayer(broker.clone()))
        .max_concurrent_streams(MAX_STREAMS)
        .max_frame_size(MAX_FRAME_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 4)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .add_service(health)
        .add_service(reflection().build_v1().map_err(wrong)?)
        .add_service(reflection().build_v1alpha().map_err(wrong)?)
        .add_service(ExtensionServiceServer::new(extension::Extensions(broker.clone())))
        .add_service(backends)
        .add_service(ExecServiceServer::new(exec::Programs(broker.clone())))
        .add_service(EventServiceServer::new(event::Events(broker.clone())))
        .add_service(OwnershipServiceServer::new(ownership::Ownership(broker.clone())))
        .add_service(SessionServiceServer::new(session::Sessions(broker.clone())))
        .add_service(GrantServiceServer::new(grant::Grants(broker.clone())))
        .add_service(SystemServiceServer::new(system::System(broker.clone()))))
}
