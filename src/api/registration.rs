//! `RegistrationService`.

use std::{sync::Arc, time::Duration};

use futures_util::stream::unfold;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Streamed, convert,
    extension_front::Registrant,
    status::{status, unreadable},
    trace::note_extension,
    until_stopped,
};
use crate::{
    core::{Broker, Lease, LeaseChange, Notice, Situation},
    model::{
        error::{Error, Reason, Result},
        reference::ExtensionId,
        registration::{self, Endpoint, Health, Hello, Protocol, StopCause},
    },
    pb::{
        self, register_request, register_response,
        registration_service_server::{RegistrationService, RegistrationServiceServer},
    },
};

/// Largest message that a backend may send.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// How long a backend may take to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Serves `RegistrationService`.
pub(super) struct Registrations(Arc<Broker>);

impl Registrations {
    /// The service with its limits.
    pub(super) fn server(broker: &Arc<Broker>) -> RegistrationServiceServer<Self> {
        RegistrationServiceServer::new(Registrations(broker.clone())).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl RegistrationService for Registrations {
    type RegisterStream = Streamed<pb::RegisterResponse>;

    async fn register(
        &self,
        request: Request<Streaming<pb::RegisterRequest>>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        let Some(Registrant { extension, caller }) = request.extensions().get::<Registrant>().cloned() else {
            return Err(status(Error::bug("a registration from nobody")));
        };
        note_extension(&extension);
        let holder = self.0.identify(&extension, &caller).await.map_err(status)?;
        let begun = Begun { broker: self.0.clone(), extension, holder, requests: request.into_inner() };
        // Answered at once: there are clients that send nothing before they are answered.
        let told = unfold(Stage::Begun(begun), Stage::next);
        Ok(Response::new(until_stopped(told, self.0.stopping())))
    }
}

/// A call that has not said hello yet.
struct Begun {
    broker: Arc<Broker>,
    extension: ExtensionId,
    holder: registration::Holder,
    requests: Streaming<pb::RegisterRequest>,
}

/// How far a registration is.
enum Stage {
    Begun(Begun),
    Leased(Lease, Streaming<pb::RegisterRequest>),
    Over,
}

impl Stage {
    /// The next thing that is told; `None` when the backend has ended it.
    async fn next(self) -> Option<(Result<pb::RegisterResponse, Status>, Stage)> {
        let told = match self {
            Stage::Begun(begun) => begun.welcome().await,
            Stage::Leased(lease, requests) => go_on(lease, requests).await.transpose()?,
            Stage::Over => return None,
        };
        Some(match told {
            Ok((part, stage)) => (Ok(pb::RegisterResponse { part: Some(part) }), stage),
            Err(failure) => (Err(failure), Stage::Over),
        })
    }
}

/// Something to tell, and how it goes on.
type Told = (register_response::Part, Stage);

impl Begun {
    async fn welcome(mut self) -> Result<Told, Status> {
        let late = |_| status(out_of_order("`hello` did not come in time: it is the first message, sent at once"));
        let first = timeout(HELLO_LIMIT, self.requests.message()).await.map_err(late)?.map_err(unreadable)?;
        let Some(register_request::Part::Hello(hello)) = first.and_then(|first| first.part) else {
            return Err(status(out_of_order("the first message must hold `hello`")));
        };
        check_versions(&hello.versions).map_err(status)?;
        let is_on_host = self.holder == registration::Holder::Host;
        let hello = read_hello(hello, is_on_host).map_err(status)?;
        let mut lease = self.broker.register(&self.extension, self.holder, hello).await.map_err(status)?;
        let situation = match lease.next().await.map_err(status)? {
            Notice::Situation(now) => situation(now),
            Notice::StopComing(_) => return Err(status(Error::bug("a lease that begins with its end"))),
        };
        let limits = pb::RegistrationLimits {
            max_endpoints: registration::MAX_ENDPOINTS as i32,
            max_message_bytes: MAX_MESSAGE_BYTES as i32,
        };
        let welcome = pb::Welcome {
            version: registration::VERSION.to_owned(),
            epoch: lease.epoch,
            limits: Some(limits),
            situation: Some(situation),
        };
        Ok((register_response::Part::Welcome(welcome), Stage::Leased(lease, self.requests)))
    }
}

/// Hears what the backend says until there is something to tell it; `None` when it has ended the stream.
async fn go_on(mut lease: Lease, mut requests: Streaming<pb::RegisterRequest>) -> Result<Option<Told>, Status> {
    loop {
        tokio::select! {
            notice = lease.next() => {
                let part = match notice.map_err(status)? {
                    Notice::Situation(now) => register_response::Part::Situation(situation(now)),
                    Notice::StopComing(cause) => {
                        let cause = stop_cause(cause).into();
                        register_response::Part::StopComing(pb::StopComing { cause })
                    }
                };
                return Ok(Some((part, Stage::Leased(lease, requests))));
            }
            request = requests.message() => match request.map_err(unreadable)? {
                None => return Ok(None),
                Some(request) => {
                    let is_on_host = lease.is_of_host();
                    read_change(request, is_on_host).and_then(|change| lease.note(change)).map_err(status)?;
                }
            },
        }
    }
}

fn check_versions(versions: &[String]) -> Result<()> {
    if versions.is_empty() || versions.iter().any(|version| version == registration::VERSION) {
        return Ok(());
    }
    let message = format!("this broker speaks {}, the backend {}", registration::VERSION, versions.join(", "));
    Err(Error::new(Reason::VersionUnsupported, "versions", message))
}

fn read_hello(hello: pb::Hello, is_on_host: bool) -> Result<Hello> {
    let directory = match hello.directory.as_str() {
        "" => None,
        _ if !is_on_host => {
            let message = "directory is for processes on the host: programs of a container's backend run in it";
            return Err(convert::invalid("directory", message));
        }
        text => {
            convert::absolute_path("directory", text)?;
            Some(hello.directory)
        }
    };
    let endpoints = hello.endpoints.into_iter().map(|endpoint| read_endpoint(endpoint, is_on_host));
    Ok(Hello {
        instance: hello.instance,
        software: hello.software,
        endpoints: endpoints.collect::<Result<_>>()?,
        health: read_health(hello.health.unwrap_or_default())?,
        directory,
    })
}

fn read_change(request: pb::RegisterRequest, is_on_host: bool) -> Result<LeaseChange> {
    match request.part {
        Some(register_request::Part::Health(health)) => Ok(LeaseChange::Health(read_health(health)?)),
        Some(register_request::Part::EndpointAdded(endpoint)) => {
            Ok(LeaseChange::Added(read_endpoint(endpoint, is_on_host)?))
        }
        Some(register_request::Part::EndpointGone(name)) => Ok(LeaseChange::Gone(name)),
        Some(register_request::Part::Hello(_)) => Err(out_of_order("`hello` comes once; send what changes")),
        None => Err(out_of_order("the message is empty; send what changes")),
    }
}

fn read_health(health: pb::Health) -> Result<Health> {
    Health::new(!health.not_ready, health.message)
}

fn read_endpoint(endpoint: pb::Endpoint, is_on_host: bool) -> Result<Endpoint> {
    let protocol = match endpoint.protocol() {
        pb::EndpointProtocol::Http1 => Protocol::Http1,
        pb::EndpointProtocol::H2c => Protocol::H2c,
        pb::EndpointProtocol::Grpc => Protocol::Grpc,
        pb::EndpointProtocol::Unspecified => {
            let message = format!("say what the endpoint {:?} speaks: HTTP1, H2C or GRPC", endpoint.name);
            return Err(convert::invalid("protocol", message));
        }
    };
    Endpoint::new(endpoint.name, protocol, endpoint.socket, is_on_host)
}

fn situation(now: Situation) -> pb::BackendSituation {
    pb::BackendSituation {
        extension: now.extension.to_string(),
        version: now.version,
        generation: now.generation,
        service: now.holder.service().to_owned(),
        container_id: now.holder.container().to_owned(),
        grants: now.grants,
    }
}

fn stop_cause(cause: StopCause) -> pb::StopCause {
    match cause {
        StopCause::Disabled => pb::StopCause::Disabled,
        StopCause::Updated => pb::StopCause::Updated,
        StopCause::Uninstalled => pb::StopCause::Uninstalled,
    }
}

fn out_of_order(message: &str) -> Error {
    Error::new(Reason::RequestInvalid, "part", message)
}
