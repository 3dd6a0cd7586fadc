//! What a backend needs to register with the broker: a lease that is kept, through restarts of the broker, until it is
//! dropped.
//!
//! In an extension's container the socket is where `$LONGSHORE_SOCKET` says. On the host, where a process stands in for
//! the containers, it is `Extension.registration_socket` of `ExtensionService.Get`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use longshore::backend::{Backend, Endpoint, Status};
//!
//! let backend = Backend::new("my-backend/1.2")
//!     .offering(Endpoint::http1("api", "backend.sock"))
//!     .not_ready("the database is being opened");
//! let registration = backend.register();
//! // … once it can take calls:
//! registration.ready();
//! let mut statuses = registration.statuses();
//! loop {
//!     match statuses.next().await {
//!         Status::Registered(situation) => println!("{} {}", situation.extension, situation.version),
//!         Status::StopComing(cause) => println!("the end is near: {cause:?}"),
//!         Status::Trying(why) => println!("not registered: {why}"),
//!         Status::Ended(failure) => return Err(failure.into()),
//!     }
//! }
//! # }
//! ```

use std::{
    env, fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport};
use tonic_types::StatusExt;

use crate::{
    local,
    model::mounts::{EXTENSION_SOCKET, EXTENSION_SOCKET_VARIABLE},
    pb::{self, register_request, register_response, registration_service_client::RegistrationServiceClient},
};

pub use pb::{BackendSituation as Situation, StopCause};

/// Time between two tries to register, at first and at most; it doubles, and some of it is left to chance.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A lease that lasted this long was a good one: the next try comes soon.
const GOOD: Duration = Duration::from_secs(10);

/// A backend as it tells of itself.
#[derive(Debug, Clone)]
pub struct Backend {
    socket: PathBuf,
    hello: pb::Hello,
}

/// An address at which a backend takes calls.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint(pb::Endpoint);

/// A lease, and the tries to get it again when it is lost. It ends when this is dropped.
#[derive(Debug)]
pub struct Registration {
    wanted: watch::Sender<pb::Hello>,
    status: watch::Receiver<Status>,
    task: AbortHandle,
}

/// How a registration stands, as it changes.
#[derive(Debug, Clone)]
pub struct Statuses(watch::Receiver<Status>);

/// How a registration stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// There is no lease now, and why; it is tried again.
    Trying(String),
    /// There is a lease, and this is what concerns the backend.
    Registered(Situation),
    /// There is a lease, and no more calls come: the backend is about to be stopped.
    StopComing(StopCause),
    /// There will be none.
    Ended(Failure),
}

/// Why there will be no lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason that the broker gave, such as `REGISTRATION_SUPERSEDED`; empty where it gave none.
    pub reason: String,
    /// The same in words.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Endpoint {
    /// One that speaks HTTP/1.1 on a socket: a name in `/run/guest-services`, on the host an absolute path.
    pub fn http1(name: impl Into<String>, socket: impl Into<String>) -> Self {
        Endpoint::new(name.into(), pb::EndpointProtocol::Http1, socket.into())
    }

    /// One that speaks HTTP/2 without TLS from the first byte on; gRPC too, where no other endpoint offers it.
    pub fn h2c(name: impl Into<String>, socket: impl Into<String>) -> Self {
        Endpoint::new(name.into(), pb::EndpointProtocol::H2c, socket.into())
    }

    /// One that speaks gRPC.
    pub fn grpc(name: impl Into<String>, socket: impl Into<String>) -> Self {
        Endpoint::new(name.into(), pb::EndpointProtocol::Grpc, socket.into())
    }

    fn new(name: String, protocol: pb::EndpointProtocol, socket: String) -> Self {
        Endpoint(pb::Endpoint { name, protocol: protocol.into(), socket })
    }
}

impl Backend {
    /// One that says it is `software`, such as `my-backend/1.2`, takes calls and offers nothing yet.
    pub fn new(software: impl Into<String>) -> Self {
        let named = env::var_os(EXTENSION_SOCKET_VARIABLE).filter(|path| !path.is_empty());
        let hello = pb::Hello { instance: instance(), software: software.into(), ..pb::Hello::default() };
        Backend { socket: named.map_or_else(|| EXTENSION_SOCKET.into(), PathBuf::from), hello }
    }

    /// Registers at another socket than the usual one.
    #[must_use]
    pub fn at(mut self, socket: impl Into<PathBuf>) -> Self {
        self.socket = socket.into();
        self
    }

    /// Offers an endpoint as well.
    #[must_use]
    pub fn offering(mut self, endpoint: Endpoint) -> Self {
        self.hello.endpoints.push(endpoint.0);
        self
    }

    /// Takes no calls at first.
    #[must_use]
    pub fn not_ready(mut self, why: impl Into<String>) -> Self {
        self.hello.health = Some(pb::Health { not_ready: true, message: why.into() });
        self
    }

    /// On the host: programs of the backend run in this directory, an absolute path.
    #[must_use]
    pub fn running_programs_in(mut self, directory: impl Into<String>) -> Self {
        self.hello.directory = directory.into();
        self
    }

    /// Registers, and goes on doing so until what is returned is dropped. Must be called within a Tokio runtime.
    pub fn register(self) -> Registration {
        let (wanted, hello) = watch::channel(self.hello);
        let (told, status) = watch::channel(Status::Trying("it has not been tried yet".into()));
        let task = tokio::spawn(keep(self.socket, hello, told)).abort_handle();
        Registration { wanted, status, task }
    }
}

impl Registration {
    /// From now on it takes calls.
    pub fn ready(&self) {
        self.set_health(pb::Health::default());
    }

    /// From now on it takes none, and why.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.set_health(pb::Health { not_ready: true, message: why.into() });
    }

    /// Offers an endpoint from now on, in the place of one of the same name.
    pub fn offer(&self, endpoint: Endpoint) {
        self.wanted.send_modify(|hello| match hello.endpoints.iter_mut().find(|known| known.name == endpoint.0.name) {
            Some(known) => *known = endpoint.0,
            None => hello.endpoints.push(endpoint.0),
        });
    }

    /// Does not offer an endpoint any more. Calls under way go on.
    pub fn withdraw(&self, name: &str) {
        self.wanted.send_modify(|hello| hello.endpoints.retain(|known| known.name != name));
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// How it stands from now on; the first is how it stands now.
    pub fn statuses(&self) -> Statuses {
        let mut status = self.status.clone();
        status.mark_changed();
        Statuses(status)
    }

    /// Waits until there is a lease, and tells what concerns the backend.
    ///
    /// # Errors
    ///
    /// Why there will be none.
    pub async fn registered(&self) -> Result<Situation, Failure> {
        let mut statuses = self.statuses();
        loop {
            match statuses.next().await {
                Status::Registered(situation) => return Ok(situation),
                Status::Ended(failure) => return Err(failure),
                Status::Trying(_) | Status::StopComing(_) => {}
            }
        }
    }

    fn set_health(&self, health: pb::Health) {
        self.wanted.send_modify(|hello| hello.health = Some(health));
    }
}

impl Statuses {
    /// How it stands, once that has changed since it was asked last; what it was in between is not told. Waits for ever
    /// behind the end, which is the last word. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Status {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.0.borrow_and_update().clone()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A name for this run of the program.
fn instance() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{:x}-{:x}", std::process::id(), since.as_nanos(), u32::from(chance()))
}

/// A number that nobody foresees: the library's hash maps begin with one.
fn chance() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0) & 0xffff) as u16
}

/// Registers again and again, until there is no point in it.
async fn keep(socket: PathBuf, mut wanted: watch::Receiver<pb::Hello>, told: watch::Sender<Status>) {
    let (first, most) = PAUSES;
    let mut pause = first;
    loop {
        let begun = Instant::now();
        let lost = register(&socket, &mut wanted, &told).await;
        if is_final(&lost) {
            told.send_replace(Status::Ended(failure(&lost)));
            return;
        }
        told.send_replace(Status::Trying(lost.message().to_owned()));
        if begun.elapsed() >= GOOD {
            pause = first;
        }
        // Between a half of it and the whole.
        let part = 0.5 + f64::from(chance()) / f64::from(u16::MAX) / 2.0;
        sleep(pause.mul_f64(part)).await;
        pause = (pause * 2).min(most);
    }
}

/// Holds one lease, and tells how it was lost.
async fn register(
    socket: &Path,
    wanted: &mut watch::Receiver<pb::Hello>,
    told: &watch::Sender<Status>,
) -> tonic::Status {
    match hold(socket, wanted, told).await {
        Ok(()) => tonic::Status::unavailable("the broker has ended the registration"),
        Err(lost) => lost,
    }
}

async fn hold(
    socket: &Path,
    wanted: &mut watch::Receiver<pb::Hello>,
    told: &watch::Sender<Status>,
) -> Result<(), tonic::Status> {
    let mut client = RegistrationServiceClient::new(connect(socket).await?);
    let (say, said) = mpsc::channel(4);
    let mut last = wanted.borrow_and_update().clone();
    let gone = |_| tonic::Status::unavailable("the broker hears nothing any more");
    say.send(request(register_request::Part::Hello(last.clone()))).await.map_err(gone)?;
    let mut answers = client.register(ReceiverStream::new(said)).await?.into_inner();
    loop {
        tokio::select! {
            answer = answers.message() => {
                let Some(answer) = answer? else { return Ok(()) };
                let status = match answer.part {
                    Some(register_response::Part::Welcome(welcome)) => {
                        Status::Registered(welcome.situation.unwrap_or_default())
                    }
                    Some(register_response::Part::Situation(situation)) => Status::Registered(situation),
                    Some(register_response::Part::StopComing(stop)) => Status::StopComing(stop.cause()),
                    // What a newer broker says besides.
                    None => continue,
                };
                told.send_replace(status);
            }
            changed = wanted.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let now = wanted.borrow_and_update().clone();
                for part in changes(&last, &now) {
                    say.send(request(part)).await.map_err(gone)?;
                }
                last = now;
            }
        }
    }
}

/// What has to be said for the broker to know the one instead of the other.
fn changes(before: &pb::Hello, now: &pb::Hello) -> Vec<register_request::Part> {
    let is_offered = |name: &str| now.endpoints.iter().any(|endpoint| endpoint.name == name);
    let gone = before.endpoints.iter().filter(|endpoint| !is_offered(&endpoint.name));
    let gone = gone.map(|endpoint| register_request::Part::EndpointGone(endpoint.name.clone()));
    let added = now.endpoints.iter().filter(|endpoint| !before.endpoints.contains(endpoint));
    let added = added.map(|endpoint| register_request::Part::EndpointAdded(endpoint.clone()));
    let health = now.health.clone().filter(|_| now.health != before.health);
    gone.chain(added).chain(health.map(register_request::Part::Health)).collect()
}

fn request(part: register_request::Part) -> pb::RegisterRequest {
    pb::RegisterRequest { part: Some(part) }
}

async fn connect(socket: &Path) -> Result<transport::Channel, tonic::Status> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { local::Stream::connect(path).await.map(TokioIo::new) }
    });
    let connected = transport::Endpoint::from_static("http://localhost").connect_with_connector(connector).await;
    connected.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        tonic::Status::unavailable(format!("no broker answers at {}: {cause}", socket.display()))
    })
}

/// Whether trying again is of no use.
fn is_final(lost: &tonic::Status) -> bool {
    match lost.code() {
        // A program that is refused, or asks for what is wrong, is so the next time; and what is removed does not return.
        Code::PermissionDenied | Code::InvalidArgument | Code::Unimplemented | Code::NotFound => true,
        Code::FailedPrecondition => matches!(&*reason(lost), "REGISTRATION_SUPERSEDED" | "VERSION_UNSUPPORTED"),
        _ => false,
    }
}

fn reason(status: &tonic::Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

fn failure(lost: &tonic::Status) -> Failure {
    Failure { reason: reason(lost), message: lost.message().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_changed_is_said() {
        let endpoint = |name: &str, socket: &str| Endpoint::http1(name, socket).0;
        let before = pb::Hello { endpoints: vec![endpoint("a", "a"), endpoint("b", "b")], ..Default::default() };
        assert_eq!(changes(&before, &before), []);
        let health = pb::Health { not_ready: true, message: "tired".into() };
        let endpoints = vec![endpoint("b", "other"), endpoint("c", "c")];
        let now = pb::Hello { endpoints, health: Some(health.clone()), ..before.clone() };
        let said = [
            register_request::Part::EndpointGone("a".into()),
            register_request::Part::EndpointAdded(endpoint("b", "other")),
            register_request::Part::EndpointAdded(endpoint("c", "c")),
            register_request::Part::Health(health),
        ];
        assert_eq!(changes(&before, &now), said);
    }

    #[tokio::test]
    async fn it_is_tried_until_somebody_answers() {
        let dir = tempfile::tempdir().unwrap();
        let registration = Backend::new("x").at(dir.path().join("none.sock")).register();
        let mut statuses = registration.statuses();
        assert!(matches!(statuses.next().await, Status::Trying(_)));
        let Status::Trying(why) = statuses.next().await else { panic!("{:?}", registration.status()) };
        assert!(why.contains("none.sock"), "{why}");
    }
}
