//! What is served of each broker: its calls, its health, and what comes to its extensions' sockets.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::sync::OnceCell;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{
    backend,
    calls::Calls,
    event, exec, extension,
    extension_front::ExtensionFront,
    front::{Front, Reception},
    grant, ownership,
    peer::Peer,
    registration::Registrations,
    server, session, system,
};
use crate::{
    core::{Broker, Brokers},
    model::error::{Error, Reason, Result},
    pb,
};

/// The service name under which health tells about the engine.
const ENGINE_HEALTH: &str = "longshore.engine";
/// The service that is served on extensions' sockets alone.
const REGISTRATION: &str = "longshore.v1.RegistrationService";

/// What is served of all brokers.
pub(super) struct Desks {
    brokers: Arc<Brokers>,
    calls: Calls,
    /// By whose broker it is.
    all: Mutex<HashMap<u32, Arc<OnceCell<Desk>>>>,
    stop_accepting: CancellationToken,
    is_stopping: AtomicBool,
    tasks: TaskTracker,
}

/// What is served of one broker.
struct Desk {
    front: Front,
    health: HealthReporter,
}

impl Desks {
    /// None yet; each is made when its broker is first called.
    pub(super) fn new(brokers: Arc<Brokers>, calls: Calls, stop_accepting: CancellationToken) -> Self {
        let (all, is_stopping, tasks) = (Mutex::default(), AtomicBool::new(false), TaskTracker::new());
        Desks { brokers, calls, all, stop_accepting, is_stopping, tasks }
    }

    /// Whose they are.
    pub(super) fn brokers(&self) -> &Brokers {
        &self.brokers
    }

    /// Serves the brokers that are open already.
    pub(super) async fn open_known(&self) -> Result<()> {
        for (uid, _) in self.brokers.all() {
            self.front(uid).await?;
        }
        Ok(())
    }

    /// Where the calls of a connection arrive.
    pub(super) async fn reception(&self, peer: &Peer) -> Reception {
        let front = match peer.user() {
            Ok(user) => self.front(user).await.inspect(|front| {
                if let Some(groups) = &peer.groups {
                    front.broker.note_caller(groups);
                }
            }),
            Err(refused) => Err(refused),
        };
        Reception::new(front, self.calls.clone(), peer.clone())
    }

    async fn front(&self, user: u32) -> Result<Front> {
        let cell = self.lock().entry(user).or_default().clone();
        let desk = cell.get_or_try_init(|| async { self.serve(self.brokers.of(user).await?).await }).await?;
        // One that was opened behind the back of a stop.
        if self.is_stopping.load(Ordering::SeqCst) {
            desk.stop().await;
        }
        Ok(desk.front.clone())
    }

    async fn serve(&self, broker: Arc<Broker>) -> Result<Desk> {
        if self.stop_accepting.is_cancelled() {
            return Err(Error::new(Reason::ShuttingDown, "", "the broker is shutting down"));
        }
        let (health, health_service) = tonic_health::server::health_reporter();
        // It begins as serving, and the engine has not been seen yet (lessons 1.3).
        health.set_service_status(ENGINE_HEALTH, ServingStatus::NotServing).await;
        let front = Front { broker: broker.clone(), routes: routes(&broker, health_service)? };
        let extension_front = ExtensionFront::new(self.calls.clone(), extension_routes(&broker)?);
        let arrivals = broker.arrivals().ok_or_else(|| Error::bug("extensions' sockets are served twice"))?;
        self.tasks.spawn(server::serve_extensions(arrivals, extension_front, self.stop_accepting.clone()));
        self.tasks.spawn(report_engine(health.clone(), broker));
        Ok(Desk { front, health })
    }

    /// Has all say that they stop, and end their streams.
    pub(super) async fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        let cells: Vec<_> = self.lock().values().cloned().collect();
        for desk in cells.iter().filter_map(|cell| cell.get()) {
            desk.stop().await;
        }
    }

    /// Completes when the last connection to extensions' sockets is closed, after a stop.
    pub(super) async fn closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<OnceCell<Desk>>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    async fn stop(&self) {
        self.health.set_service_status("", ServingStatus::NotServing).await;
        self.front.broker.stopping().cancel();
    }
}

/// Has the health of the engine say whether it answers, until the broker stops.
async fn report_engine(health: HealthReporter, broker: Arc<Broker>) {
    let (mut answers, stopping) = (broker.engine_presence(), broker.stopping());
    loop {
        let status = if *answers.borrow_and_update() { ServingStatus::Serving } else { ServingStatus::NotServing };
        health.set_service_status(ENGINE_HEALTH, status).await;
        tokio::select! {
            // The sender lives as long as the broker.
            _ = answers.changed() => {}
            () = stopping.cancelled() => return,
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

pub(super) fn damaged() -> Error {
    Error::bug("the compiled protos are damaged")
}
