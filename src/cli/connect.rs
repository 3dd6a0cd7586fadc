//! The connection to the broker.

use std::{env, io, path::PathBuf, sync::Mutex};

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};

use super::{Options, failure::Failure};
use crate::{
    config,
    local::Stream,
    pb::{
        backend_service_client::BackendServiceClient, event_service_client::EventServiceClient,
        exec_service_client::ExecServiceClient, extension_service_client::ExtensionServiceClient,
        grant_service_client::GrantServiceClient, ownership_service_client::OwnershipServiceClient,
        session_service_client::SessionServiceClient, system_service_client::SystemServiceClient,
    },
};

/// The environment variable that names the socket.
const CONTROL_SOCKET_VARIABLE: &str = "LONGSHORE_SOCKET";

/// The socket that these options mean, and whether it was named rather than guessed.
pub(super) fn socket_path(options: &Options) -> (PathBuf, bool) {
    let from_environment = || env::var_os(CONTROL_SOCKET_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    match options.socket.clone().or_else(from_environment) {
        Some(named) => (named, true),
        None => (config::default_socket(), false),
    }
}

/// A connection to the broker, for all its services.
pub(super) struct Connection {
    channel: Channel,
}

/// Declares one method per service.
macro_rules! clients {
    ($($name:ident: $client:ident;)+) => {
        impl Connection {
            $(
                pub(super) fn $name(&self) -> $client<Channel> {
                    $client::new(self.channel.clone())
                }
            )+
        }
    };
}

clients! {
    backends: BackendServiceClient;
    events: EventServiceClient;
    exec: ExecServiceClient;
    extensions: ExtensionServiceClient;
    grants: GrantServiceClient;
    ownership: OwnershipServiceClient;
    sessions: SessionServiceClient;
    system: SystemServiceClient;
}

impl Connection {
    /// Connects to the socket that the options mean.
    pub(super) async fn open(options: &Options) -> Result<Self, Failure> {
        let (path, is_named) = socket_path(options);
        // Connected here rather than in the connector: its error would come back wrapped and without the path.
        let stream = Stream::connect(&path).await.map_err(|error| Failure::no_broker(&path, &error))?;
        // Where there is no private directory, the usual place may be one where another user can be first; on Windows
        // any place is.
        if (!is_named || cfg!(windows)) && !belongs_to_us_or_root(&stream) {
            return Err(Failure::foreign_broker(&path));
        }
        tracing::debug!(path = %path.display(), "connected");
        let once = Mutex::new(Some(stream));
        let connector = tower::service_fn(move |_| {
            let stream = once.lock().ok().and_then(|mut slot| slot.take());
            std::future::ready(stream.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset)))
        });
        // The name is what the broker sees as authority; no name is looked up.
        let endpoint = Endpoint::from_static("http://localhost");
        let channel =
            endpoint.connect_with_connector(connector).await.map_err(|error| Failure::not_a_broker(&path, &error))?;
        Ok(Connection { channel })
    }
}

#[cfg(unix)]
fn belongs_to_us_or_root(stream: &Stream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

#[cfg(windows)]
fn belongs_to_us_or_root(stream: &Stream) -> bool {
    crate::local::Security::is_own(stream).unwrap_or(false)
}
