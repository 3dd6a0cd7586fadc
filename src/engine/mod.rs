//! The container engine: Docker, or Podman's compatible API, over its Unix socket, or over one that leads to it.
//!
//! Most calls go through bollard, on the connections of [`crate::dockerd`]. What it cannot put, and answers that it cannot
//! read, go there without it: its types know what Docker says, and Podman says more.

mod answers;
pub mod compose;
mod containers;
mod credentials;
mod events;
mod images;
mod logs;
mod objects;
mod relay;
#[cfg_attr(windows, path = "socket_watch_windows.rs")]
mod socket_watch;
mod sweep;
mod temporary;
mod veil;
mod volumes;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use bollard::{
    API_DEFAULT_VERSION, BollardRequest, Docker, errors::Error as BollardError, query_parameters::EventsOptionsBuilder,
};
use bytes::Bytes;
use futures_util::StreamExt;
use http::Request;
use http_body_util::Full;
use tokio::sync::{OnceCell, RwLock};

pub use containers::{BackendSpec, Container, ContainerDetails, Mounted};
pub use events::EngineEvent;
pub use images::{Image, ImageReader, Loaded, Transfer};
pub use logs::{LogChunk, LogOptions, LogSource, logs};
pub use objects::{Network, Volume};
pub use relay::{Far, Relay, Ssh, Tls};
pub use socket_watch::SocketWatch;
pub use veil::Veil;

use crate::{
    dockerd::{Dockerd, Refusal},
    model::error::{Error, Reason, Result},
};

/// How long the engine may take to say that it is there and what it is; one that hangs counts as one that is away.
const ABOUT_BOUND: Duration = Duration::from_secs(10);

/// A handle on the engine; cheap to clone. Nothing connects before the first call.
#[derive(Clone)]
pub struct Engine {
    dockerd: Dockerd,
    origin: temporary::Origin,
    /// Whether pulls use the logins of the user that this process runs as.
    uses_logins: bool,
    platform: Arc<OnceCell<Platform>>,
    /// Held for reading while a volume is filled.
    filling: Arc<RwLock<()>>,
}

/// What an engine's images must be built for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Operating system, as images spell it.
    pub os: String,
    /// Processor, as images spell it.
    pub arch: String,
}

/// What the engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// What it calls itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Version of its API.
    pub api_version: String,
    /// Operating system of its images, as images spell it.
    pub os: String,
    /// Processor of its images, as images spell it.
    pub arch: String,
}

impl Engine {
    /// The engine that `dockerd` speaks for, used by `run` of the broker called `broker`: the same names mark what it
    /// makes for itself.
    pub fn new(dockerd: Dockerd, broker: &str, run: &str) -> Self {
        Engine {
            dockerd,
            origin: temporary::Origin::new(broker, run),
            uses_logins: true,
            platform: Arc::default(),
            filling: Arc::default(),
        }
    }

    /// The same for somebody whom the logins of the user that this process runs as are none of the business of.
    pub fn without_logins(self) -> Self {
        Engine { uses_logins: false, ..self }
    }

    /// What speaks for it.
    pub fn dockerd(&self) -> &Dockerd {
        &self.dockerd
    }

    /// The engine's socket.
    pub fn socket(&self) -> &std::path::Path {
        self.dockerd.socket()
    }

    /// The name of the broker that uses it.
    pub fn broker(&self) -> &str {
        self.origin.broker()
    }

    /// The engine's address, as DOCKER_HOST spells it.
    pub fn url(&self) -> &str {
        self.dockerd.url()
    }

    /// A client.
    fn client(&self) -> Result<Docker> {
        let kept = self.dockerd.kept().clone();
        let pass = move |request: BollardRequest| {
            let kept = kept.clone();
            async move { kept.pass(request).await.map_err(BollardError::from) }
        };
        let bound = self.dockerd.patience().as_secs();
        let client = Docker::connect_with_custom_transport(pass, Some("http://docker"), bound, API_DEFAULT_VERSION);
        client.map_err(|e| self.refused("", e))
    }

    /// What is said at a path of the engine's API, with its query, unchanged.
    ///
    /// # Errors
    ///
    /// `ENGINE_UNAVAILABLE`; `ENGINE_REFUSED` and `RESOURCE_NOT_FOUND` with the engine's words; `REQUEST_INVALID` where
    /// there can be no such path.
    pub async fn json(&self, path: &str) -> Result<Bytes> {
        let request = Request::get(path).body(Full::default()).map_err(|e| {
            Error::new(Reason::RequestInvalid, "", "these options cannot be sent to the engine").caused_by(e)
        })?;
        Ok(self.dockerd.whole("", request).await?)
    }

    /// What its images must be built for; asked once. Podman looks up the packages of its helpers each time that it says
    /// what it is, which takes seconds on a busy machine.
    pub async fn platform(&self) -> Result<&Platform> {
        let ask = async || {
            let version = self.client()?.version().await.map_err(|e| self.refused("", e))?;
            Ok(Platform { os: version.os.unwrap_or_default(), arch: version.arch.unwrap_or_default() })
        };
        self.platform.get_or_try_init(ask).await
    }

    /// Whether the engine answers.
    pub async fn answers(&self) -> bool {
        let Ok(client) = self.client() else { return false };
        tokio::time::timeout(ABOUT_BOUND, client.ping()).await.is_ok_and(|answer| answer.is_ok())
    }

    /// Asks the engine about itself.
    pub async fn about(&self) -> Result<About> {
        let client = self.client()?;
        let version = self.dockerd.within(ABOUT_BOUND).in_time("", client.version()).await?;
        let version = version.map_err(|e| self.refused("", e))?;
        let platform = version.platform.map(|platform| platform.name).filter(|name| !name.is_empty());
        let component = version.components.and_then(|list| list.into_iter().next()).map(|component| component.name);
        Ok(About {
            // Docker puts the edition into `Platform` (empty in distributions' builds); Podman names its first component.
            name: component.filter(|name| name != "Engine").or(platform).unwrap_or_else(|| "Docker Engine".into()),
            version: version.version.unwrap_or_default(),
            api_version: version.api_version.unwrap_or_default(),
            os: version.os.unwrap_or_default(),
            arch: version.arch.unwrap_or_default(),
        })
    }

    /// The kernels that its containers and the broker run on.
    ///
    /// # Errors
    ///
    /// `ENGINE_UNAVAILABLE`, `ENGINE_REFUSED`.
    pub async fn kernels(&self) -> Result<Kernels> {
        let info = self.client()?.info().await.map_err(|e| self.refused("", e))?;
        let ours = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Kernels { theirs: info.kernel_version.unwrap_or_default(), ours: ours.trim_end().to_owned() })
    }

    /// Watches from now on whether its socket appears.
    pub fn watch_socket(&self) -> SocketWatch {
        SocketWatch::of(self.socket())
    }

    /// Completes when the engine, which answers now, ceases to: its stream of events ends with it.
    pub async fn gone(&self) {
        // No such events come, so the stream is silent until it ends.
        let filters = HashMap::from([("type", vec!["plugin"])]);
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        if let Ok(client) = self.client() {
            let mut events = std::pin::pin!(client.events(Some(options)));
            while let Some(Ok(_)) = events.next().await {}
        }
    }

    /// Puts an engine's failure about `subject` into our terms.
    fn refused(&self, subject: &str, error: BollardError) -> Error {
        match error {
            BollardError::DockerResponseServerError { status_code, message } => {
                Refusal::new(subject, status_code, &message).into()
            }
            BollardError::DockerStreamError { error } => Refusal::new(subject, 500, &error).into(),
            BollardError::JsonDataError { message, .. } => {
                Error::new(Reason::EngineRefused, subject, format!("the engine's answer cannot be read: {message}"))
            }
            other => self.dockerd.away(subject, &root_cause(&other)).caused_by(other),
        }
    }
}

/// The releases of two kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernels {
    /// Of the engine's containers.
    pub theirs: String,
    /// Of the broker.
    pub ours: String,
}

impl Kernels {
    /// Whether they are one, so that containers can have directories of the broker.
    pub fn are_one(&self) -> bool {
        self.theirs == self.ours
    }
}

/// The innermost cause, which says what the outer ones only announce.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("url", &self.url()).finish()
    }
}

/// Treats "there is no such thing" as `None`.
fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.reason() == Reason::ResourceNotFound => Ok(None),
        Err(error) => Err(error),
    }
}
