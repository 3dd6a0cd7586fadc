//! Calls to a backend: to its socket in the guest directory, however that can be reached.

use std::{
    fmt::Display,
    io,
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{
    Behalf, Broker,
    container::{BackendContainer, STARTING_RETRY, backend_of, starting},
    leases::LeaseRoute,
};
use crate::{
    engine::ContainerDetails,
    exec::{ConnectError, ConnectReason, InContainer},
    files::guest::{DialError, GuestDir},
    local::{self, Stream},
    model::{
        error::{Error, Reason, Result},
        extension::{BackendRecord, Installed},
        journal::ChangeKind,
        mounts::GUEST_DIR,
        platform::CONTAINER_ROOT,
        reference::ExtensionId,
        registration::{Address, Protocol, Speech},
    },
    proxy::{self, Dialled, Route},
};

/// How often a backend that is starting is tried.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// Who connects in a container: its root, who may what anybody made there; where root was stripped of that right, the
/// container's own user, who is most likely to have made it.
const INSIDE_USERS: [Option<&str>; 2] = [Some(CONTAINER_ROOT), None];

/// Whom a call is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callee {
    /// The extension.
    pub extension: ExtensionId,
    /// The endpoint, by name; empty for the first that speaks what the call needs.
    pub endpoint: String,
}

impl Broker {
    /// Sends one HTTP request to an extension's backend, waiting up to `start_wait` for it to start.
    pub async fn fetch(
        &self,
        callee: &Callee,
        request: proxy::Request,
        limits: proxy::Limits,
        start_wait: Duration,
    ) -> Result<proxy::Response<proxy::Body>> {
        // Who asks for more than is usual is not sent where that is not there; others are where anything is.
        let id = &callee.extension;
        let is_usual = limits.max_body_bytes <= self.limits.exchange.max_body_bytes;
        limits.memory.check(id.as_str(), if is_usual { 1 } else { limits.max_body_bytes })?;
        let limits = with_start(limits, start_wait);
        let connections = self.pools.of(id, &callee.endpoint);
        let dial = || self.dial(callee, Speech::Http, start_wait);
        proxy::fetch(
            Route { backend: id.as_str(), pool: Some(&connections.http), lanes: &connections.h2c, dial },
            request,
            &limits,
        )
        .await
    }

    /// Begins an HTTP exchange with an extension's backend that goes on piece by piece.
    pub async fn exchange(
        &self,
        callee: &Callee,
        head: &proxy::RequestHead,
        upload: proxy::Upload,
        limits: proxy::Limits,
        start_wait: Duration,
    ) -> Result<proxy::Exchange> {
        let limits = with_start(limits, start_wait);
        let id = &callee.extension;
        let connections = self.pools.of(id, &callee.endpoint);
        let dial = || self.dial(callee, Speech::Http, start_wait);
        let route = Route { backend: id.as_str(), pool: Some(&connections.http), lanes: &connections.h2c, dial };
        // Who asks for another protocol is told of nothing but the answer.
        let with_interim = head.upgrade.is_none();
        proxy::Exchange::open(route, head, upload, &limits, with_interim).await
    }

    /// Carries a gRPC call to an extension's backend as it is.
    pub async fn forward(
        &self,
        callee: &Callee,
        call: http::Request<proxy::CarriedBody>,
    ) -> Result<http::Response<proxy::Answer>> {
        let id = &callee.extension;
        let connections = self.pools.of(id, &callee.endpoint);
        let dial = async || match self.dial(callee, Speech::Grpc, Duration::ZERO).await? {
            Dialled::Http1(stream) | Dialled::Http2(stream) => Ok(stream),
        };
        proxy::forward(id.as_str(), &connections.grpc, dial, self.limits.exchange.connect, call).await
    }

    /// A connection to the backend. Boxed: most calls find one, and shall not carry the room that looking for one takes.
    fn dial<'a>(&'a self, callee: &'a Callee, need: Speech, start_wait: Duration) -> BoxFuture<'a, Result<Dialled>> {
        Box::pin(self.dial_until_started(callee, need, start_wait))
    }

    async fn dial_until_started(&self, callee: &Callee, need: Speech, start_wait: Duration) -> Result<Dialled> {
        let until = Instant::now() + start_wait;
        loop {
            match self.dial_once(callee, need).await {
                Err(error) if Instant::now() < until && self.may_come(&callee.extension, error.reason()) => {
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                other => return other,
            }
        }
    }

    /// Whether a backend that cannot be called may be in a moment: it is starting, or nothing has registered yet.
    fn may_come(&self, id: &ExtensionId, why: Reason) -> bool {
        match why {
            Reason::BackendStarting => true,
            Reason::NoSocket | Reason::EndpointNotFound => self.registrations.of(id).is_empty(),
            _ => false,
        }
    }

    async fn dial_once(&self, Callee { extension: id, endpoint }: &Callee, need: Speech) -> Result<Dialled> {
        let installed = self.installed(id).await?;
        let service = installed.record.backend.as_ref().map(|backend| backend.service.as_str());
        let named = Some(endpoint.as_str()).filter(|name| !name.is_empty());
        match self.registrations.route(id, named, need, service) {
            Ok(LeaseRoute::To(Address::Host(path), speaks)) => {
                dial_on_host(&self.behalf, id, &path).map(|it| dialled(it, speaks))
            }
            Ok(LeaseRoute::To(Address::Guest(socket), speaks)) => {
                self.dial_containers(&installed, Some(&socket)).await.map(|stream| dialled(stream, speaks))
            }
            Ok(LeaseRoute::Manifest) => self.dial_containers(&installed, None).await.map(Dialled::Http1),
            Ok(LeaseRoute::NotReady(why)) => Err(not_ready(id, &why)),
            // Where nothing is registered, the first thing to know is why.
            Err(error) => match running_backend(&installed) {
                Err(stopped) if self.registrations.of(id).is_empty() => Err(stopped),
                _ => Err(error),
            },
        }
    }

    /// Connects to a socket in the guest directory: to that which was registered, else to that of the manifest.
    async fn dial_containers(&self, installed: &Installed, registered: Option<&str>) -> Result<Stream> {
        let id = &installed.id;
        let backend = running_backend(installed)?;
        let Some(socket) = registered.or(backend.socket.as_deref()) else {
            if self.registrations.were_granted(id) {
                let message = format!("the backend of {id} is not registered now, and its manifest exposes no socket");
                return Err(starting(id, message));
            }
            let message = format!(
                "{id} exposes no socket: its metadata.json has no vm.exposes.socket, and its backend has not registered"
            );
            return Err(Error::new(Reason::NoSocket, id.as_str(), message));
        };
        match self.dial_socket(installed, backend, socket).await {
            Err(error) if self.is_updated(installed).await? => {
                let message = format!("{id} is being updated, and its backend does not listen: {error}");
                Err(starting(id, message))
            }
            dialled => dialled,
        }
    }

    /// Whether an update is going on, or was since the extension was looked up.
    async fn is_updated(&self, looked_up: &Installed) -> Result<bool> {
        let now = self.installed(&looked_up.id).await?;
        Ok(now.changing() == Some(ChangeKind::Update) || now.generation != looked_up.generation)
    }

    /// Connects to a backend's socket: directly, or from within its container where only root may.
    pub(super) async fn dial_socket(
        &self,
        installed: &Installed,
        backend: &BackendRecord,
        socket: &str,
    ) -> Result<Stream> {
        if self.is_apart() {
            return self.dial_within(installed, backend, socket).await;
        }
        let directory = self.layout.extension(&installed.id);
        let failure = match GuestDir::open(&directory.guest())?.connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(failure) => failure,
        };
        match failure {
            DialError::Denied => self.dial_within(installed, backend, socket).await,
            DialError::Missing | DialError::Refused => Err(self.why_silent(installed, backend, socket, failure).await),
            other => Err(told(&installed.id, socket, &other)),
        }
    }

    /// Connects from within a container, where its root may what the broker's user may not. All containers of an
    /// extension share the directory, so it does not matter which of them made the socket.
    async fn dial_within(&self, installed: &Installed, backend: &BackendRecord, socket: &str) -> Result<Stream> {
        let container = self.running_container(installed, backend).await?;
        let broker_dir = self.layout.extension(&installed.id).broker();
        let (dockerd, reach) = (self.engine.dockerd(), self.reach(&broker_dir).await?);
        let mut failure = None;
        for user in INSIDE_USERS {
            let place = InContainer { dockerd, container: &container.id, user, reach };
            // A link that died with its container is noticed when it is used; the next is a new one.
            for _ in 0..2 {
                let link = self.hub.container(place).await?;
                match link.connect(GUEST_DIR, socket).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => failure = Some(error),
                }
                if !failure.as_ref().is_some_and(ConnectError::is_gone) {
                    break;
                }
            }
            if failure.as_ref().is_none_or(|failure| failure.why != Some(ConnectReason::Denied)) {
                break;
            }
        }
        let Some(failure) = failure else { return Err(Error::bug("no user was tried in a container")) };
        Err(match failure.why {
            Some(ConnectReason::Missing) => self.why_silent(installed, backend, socket, DialError::Missing).await,
            Some(ConnectReason::Refused) => self.why_silent(installed, backend, socket, DialError::Refused).await,
            _ => from_within(&installed.id, socket, &failure),
        })
    }

    /// The container of the backend service; where that does not run, another of the extension's that does.
    async fn running_container(&self, installed: &Installed, backend: &BackendRecord) -> Result<ContainerDetails> {
        let found = self.backend_container(installed, backend, &backend.service).await?.running(&installed.id);
        let Err(stopped) = found else { return found };
        for service in backend.services.iter().filter(|service| **service != backend.service) {
            if let Ok(other) = self.backend_container(installed, backend, service).await?.running(&installed.id) {
                return Ok(other);
            }
        }
        Err(stopped)
    }

    /// Nobody listens: tells a backend that is not running from one that is starting and one that will not.
    async fn why_silent(
        &self,
        installed: &Installed,
        backend: &BackendRecord,
        socket: &str,
        failure: DialError,
    ) -> Error {
        let id = &installed.id;
        let container = match self.backend_container(installed, backend, &backend.service).await {
            Ok(BackendContainer::Found(details)) if details.state == "restarting" => {
                return not_listening(id, socket, &failure);
            }
            Ok(_) => self.running_container(installed, backend).await,
            Err(error) => Err(error),
        };
        match container {
            Err(error) => error,
            Ok(container) if is_young(&container.started_at, self.limits.ready_timeout) => {
                not_listening(id, socket, &failure)
            }
            Ok(_) if matches!(failure, DialError::Refused) => {
                let message = format!("the backend of {id} does not listen on {socket}: connections are refused");
                Error::new(Reason::BackendRefused, id.as_str(), message).retry_after(STARTING_RETRY)
            }
            Ok(_) => {
                let message = format!(
                    "the backend of {id} runs and has not made its socket {socket} in {GUEST_DIR}; its logs may say why"
                );
                Error::new(Reason::NoSocket, id.as_str(), message)
            }
        }
    }
}

/// A connection to what speaks that.
fn dialled(stream: Stream, speaks: Protocol) -> Dialled {
    match speaks {
        Protocol::Http1 => Dialled::Http1(stream),
        Protocol::H2c | Protocol::Grpc => Dialled::Http2(stream),
    }
}

/// Waiting for a backend that starts is a part of getting a connection.
fn with_start(limits: proxy::Limits, start_wait: Duration) -> proxy::Limits {
    proxy::Limits { connect: limits.connect.saturating_add(start_wait), ..limits }
}

/// The backend of an extension that is meant to run.
pub(super) fn running_backend(installed: &Installed) -> Result<&BackendRecord> {
    let id = &installed.id;
    let backend = backend_of(installed)?;
    let stopped = |why: &str| Err(Error::new(Reason::BackendStopped, id.as_str(), format!("{id}: {why}")));
    match (installed.changing(), installed.enabled, backend.built) {
        (Some(ChangeKind::Uninstall), ..) => stopped("it is being removed"),
        (_, false, _) => stopped("it is disabled"),
        (_, _, false) => stopped("its image was never built; a local process can stand in for it"),
        (Some(ChangeKind::Install), ..) => {
            let message = format!("{id} is being installed");
            Err(starting(id, message))
        }
        _ => Ok(backend),
    }
}

/// Whether a container was started less than `grace` ago.
pub(super) fn is_young(started_at: &str, grace: Duration) -> bool {
    let Ok(started) = humantime::parse_rfc3339_weak(started_at) else { return false };
    SystemTime::now().duration_since(started).is_ok_and(|age| age < grace)
}

/// Connects to a socket that a process on the host has named, with its user's rights: it may name any.
fn dial_on_host(behalf: &Behalf, id: &ExtensionId, path: &str) -> Result<Stream> {
    behalf.act(|| local::dial(path)).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            let message = format!("the process on the host that stands in for {id} does not listen on {path} yet");
            starting(id, message)
        }
        _ => unreachable(id, &e),
    })
}

fn not_ready(id: &ExtensionId, why: &str) -> Error {
    let colon = if why.is_empty() { "" } else { ": " };
    let message = format!("the backend of {id} says that it takes no calls now{colon}{why}");
    starting(id, message)
}

fn not_listening(id: &ExtensionId, socket: &str, failure: &DialError) -> Error {
    let message = format!("the backend of {id} is starting and does not listen on {socket} yet ({failure})");
    starting(id, message)
}

/// The same, told by the shim that tried as root of the container.
fn from_within(id: &ExtensionId, socket: &str, failure: &ConnectError) -> Error {
    match failure.why {
        Some(ConnectReason::Busy) => told(id, socket, &DialError::Busy),
        Some(ConnectReason::NotASocket) => no_socket(id, socket, failure),
        None => {
            let message = format!("the container of {id} went away: {failure}");
            starting(id, message)
        }
        Some(_) => told(id, socket, &DialError::Other(io::Error::other(failure.message.clone()))),
    }
}

fn no_socket(id: &ExtensionId, socket: &str, failure: &impl Display) -> Error {
    let message = format!("what {id} put at {GUEST_DIR}/{socket} is refused: {failure}");
    Error::new(Reason::GuestPathUnsafe, id.as_str(), message)
}

fn unreachable(id: &ExtensionId, error: &io::Error) -> Error {
    let message = format!("the backend of {id} cannot be reached: {error}");
    Error::new(Reason::BackendUnreachable, id.as_str(), message)
}

fn told(id: &ExtensionId, socket: &str, failure: &DialError) -> Error {
    match failure {
        DialError::NotASocket(_) => no_socket(id, socket, failure),
        DialError::Busy => {
            let message = format!("the backend of {id} has more connections waiting than it takes");
            Error::new(Reason::BackendRefused, id.as_str(), message).retry_after(STARTING_RETRY)
        }
        other => {
            let message = format!("the backend of {id} cannot be reached on {socket}: {other}");
            Error::new(Reason::BackendUnreachable, id.as_str(), message)
        }
    }
}
