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
mod front;
mod grant;
mod heartbeat;
pub mod listener;
mod messages;
mod metrics;
mod ownership;
mod page;
mod passthrough;
mod peer;
mod registration;
mod reply;
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

use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Status, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    core::Broker,
    model::error::{Error, Result},
    pb,
    tally::Spans,
};
use calls::Calls;
use front::Front;
use registration::{ExtensionFront, Registrations};
use tally::Tally;

/// Largest message that the broker reads: a body for a backend, and some room.
pub const MAX_REQUEST_BYTES: usize = 65 * 1024 * 1024;
/// Most bytes of a list in one message: clients with default settings take messages of 4 MiB.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Time that the last answers get to leave when the broker stops.
const FLUSH: Duration = Duration::from_millis(100);
/// The service name under which health tells about the engine.
const ENGINE_HEALTH: &str = "longshore.engine";

/// The service that is served on extensions' sockets alone.
const REGISTRATION: &str = "longshore.v1.RegistrationService";

/// Where metrics are told, and what is told beside what the API knows itself.
#[derive(Debug)]
pub struct MetricsAt {
    /// Where.
    pub socket: listener::ControlSocket,
    /// What became of spans.
    pub spans: Arc<Spans>,
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
pub async fn serve(
    broker: Arc<Broker>,
    socket: listener::ControlSocket,
    metrics: Option<MetricsAt>,
    drain: Duration,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    // It begins as serving, and nothing is until the first accept below (lessons 1.3).
    health.set_service_status("", ServingStatus::NotServing).await;
    health.set_service_status(ENGINE_HEALTH, ServingStatus::NotServing).await;
    let tally = metrics.as_ref().map(|_| Tally::new()).transpose()?.map(Arc::new);
    let calls = Calls::counted(tally.clone());
    let stop_accepting = CancellationToken::new();
    let is_ours: peer::IsOurs = {
        let broker = Arc::downgrade(&broker);
        Arc::new(move |pid| broker.upgrade().is_some_and(|broker| broker.is_extension_program(pid)))
    };
    let _metrics = metrics.zip(tally).map(|(MetricsAt { socket, spans }, tally)| {
        let sources = metrics::Sources { broker: broker.clone(), calls: calls.clone(), tally, spans };
        AbortOnDropHandle::new(tokio::spawn(metrics::serve(socket, is_ours.clone(), sources)))
    });
    let front = Front::new(&broker, calls.clone(), routes(&broker, health_service)?);
    let extension_front = ExtensionFront::new(calls.clone(), extension_routes(&broker)?);
    let arrivals = broker.arrivals().ok_or_else(|| Error::bug("extensions' sockets are served twice"))?;
    let mut server = std::pin::pin!(async {
        let control = server::serve(&socket.listener, is_ours, front, stop_accepting.clone());
        let extensions = server::serve_extensions(arrivals, extension_front, stop_accepting.clone());
        tokio::join!(control, extensions)
    });
    health.set_service_status("", ServingStatus::Serving).await;
    tokio::select! {
        _ = &mut server => return Err(Error::bug("the server ended by itself")),
        () = report_engine(&health, broker.engine_presence()) => {}
        () = shutdown => {}
    }
    tracing::info!(drain_ms = drain.as_millis() as u64, "stopping");
    health.set_service_status("", ServingStatus::NotServing).await;
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

/// Has the health of the engine say whether it answers, for good.
async fn report_engine(health: &HealthReporter, mut answers: watch::Receiver<bool>) {
    loop {
        let status = if *answers.borrow_and_update() { ServingStatus::Serving } else { ServingStatus::NotServing };
        health.set_service_status(ENGINE_HEALTH, status).await;
        if answers.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn routes<H>(broker: &Arc<Broker>, health: H) -> Result<Routes>
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
        event_service_server::EventServiceServer,
        extension_service_server::ExtensionServiceServer,
        grant_service_server::GrantServiceServer,
        ownership_service_server::OwnershipServiceServer,
        partial::{backend_service_server::BackendServiceServer, exec_service_server::ExecServiceServer},
        session_service_server::SessionServiceServer,
        system_service_server::SystemServiceServer,
    };
    let others = || reflection(|service| service != REGISTRATION);
    let wrong = |e| damaged().caused_by(e);
    Ok(Routes::new(health)
        .add_service(others()?.build_v1().map_err(wrong)?)
        .add_service(others()?.build_v1alpha().map_err(wrong)?)
        .add_service(ExtensionServiceServer::new(extension::Extensions(broker.clone())))
        .add_service(BackendServiceServer::new(backend::Backends(broker.clone())))
        .add_service(ExecServiceServer::new(exec::Programs(broker.clone())))
        .add_service(EventServiceServer::new(event::Events(broker.clone())))
        .add_service(OwnershipServiceServer::new(ownership::Ownership(broker.clone())))
        .add_service(SessionServiceServer::new(session::Sessions(broker.clone())))
        .add_service(GrantServiceServer::new(grant::Grants(broker.clone())))
        .add_service(SystemServiceServer::new(system::System(broker.clone())))
        .prepare())
}

/// What is served on extensions' own sockets.
fn extension_routes(broker: &Arc<Broker>) -> Result<Routes> {
    let only = || reflection(|service| service == REGISTRATION);
    let wrong = |e| damaged().caused_by(e);
    Ok(Routes::new(Registrations::server(broker))
        .add_service(only()?.build_v1().map_err(wrong)?)
        .add_service(only()?.build_v1alpha().map_err(wrong)?)
        .prepare())
}

/// Reflection that lists those of our services that are `served`, and the library's.
fn reflection(served: impl Fn(&str) -> bool) -> Result<tonic_reflection::server::Builder<'static>> {
    let mut ours = FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET).map_err(|e| damaged().caused_by(e))?;
    for file in &mut ours.file {
        let package = file.package().to_owned();
        file.service.retain(|service| served(&format!("{package}.{}", service.name())));
    }
    Ok(tonic_reflection::server::Builder::configure()
        .register_file_descriptor_set(ours)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // The details of errors: clients that have only reflection, as grpcurl, can then show them.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET))
}

fn damaged() -> Error {
    Error::bug("the compiled protos are damaged")
}
