//! Backends that register, as the test itself.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use longshore::pb::{
    self, register_request::Part, register_response, registration_service_client::RegistrationServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Broker, broker::channel, unique};

/// Longest that anything is waited for that should come at once.
const SOON: Duration = Duration::from_secs(20);

/// A lease; it ends when this is dropped.
pub(crate) struct Lease {
    say: mpsc::Sender<pb::RegisterRequest>,
    pub(crate) answers: Streaming<pb::RegisterResponse>,
    pub(crate) welcome: pb::Welcome,
}

impl Lease {
    /// Registers at a socket.
    pub(crate) async fn begin(socket: &Path, hello: pb::Hello) -> Result<Lease, Status> {
        let mut client = RegistrationServiceClient::new(channel(socket).await);
        let (say, said) = mpsc::channel(4);
        say.send(pb::RegisterRequest { part: Some(Part::Hello(hello)) }).await.unwrap();
        let mut answers = client.register(ReceiverStream::new(said)).await?.into_inner();
        match answers.message().await?.unwrap().part {
            Some(register_response::Part::Welcome(welcome)) => Ok(Lease { say, answers, welcome }),
            other => panic!("{other:?}"),
        }
    }

    /// Says what has changed.
    pub(crate) async fn say(&self, part: Part) {
        self.say.send(pb::RegisterRequest { part: Some(part) }).await.unwrap();
    }

    /// What is told next.
    pub(crate) async fn next(&mut self) -> Result<register_response::Part, Status> {
        let told = tokio::time::timeout(SOON, self.answers.message()).await.expect("something is told");
        Ok(told?.expect("it goes on").part.unwrap())
    }
}

/// Where a process on the host registers for an extension.
pub(crate) async fn registration_socket(broker: &Broker, id: &str) -> PathBuf {
    broker.extension(id).await.unwrap().registration_socket.into()
}

/// What a backend says that offers these, all in sockets of their own names below `dir`.
pub(crate) fn hello(instance: &str, dir: &str, endpoints: &[(&str, pb::EndpointProtocol)]) -> pb::Hello {
    let endpoint = |(name, protocol): &(&str, pb::EndpointProtocol)| pb::Endpoint {
        name: (*name).to_owned(),
        protocol: (*protocol).into(),
        socket: format!("{dir}{name}.sock"),
    };
    let endpoints = endpoints.iter().map(endpoint).collect();
    pb::Hello { instance: instance.into(), endpoints, ..Default::default() }
}

/// Has `socket` on the host stand in for an extension's containers, for HTTP and gRPC.
pub(crate) async fn stand_in(broker: &Broker, id: &str, socket: &Path, directory: &str) -> Result<Lease, Status> {
    let endpoint = |name: &str, protocol: pb::EndpointProtocol| pb::Endpoint {
        name: name.into(),
        protocol: protocol.into(),
        socket: socket.display().to_string(),
    };
    let endpoints = vec![endpoint("http", pb::EndpointProtocol::Http1), endpoint("grpc", pb::EndpointProtocol::Grpc)];
    let instance = unique("instance");
    let hello = pb::Hello { instance, endpoints, directory: directory.into(), ..Default::default() };
    Lease::begin(&registration_socket(broker, id).await, hello).await
}
