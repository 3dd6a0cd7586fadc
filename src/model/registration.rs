//! What a backend offers and how it says it is: the plain values of a registration (design sections 3 and 4).

use super::{
    error::{Error, Reason, Result},
    manifest::SocketName,
    platform::MAX_SOCKET_PATH_BYTES,
};

/// The version of the protocol that this broker speaks.
pub const VERSION: &str = "longshore.v1";
/// Most endpoints of one lease.
pub const MAX_ENDPOINTS: usize = 16;
/// Longest name of an endpoint, in bytes.
const MAX_NAME_BYTES: usize = 63;
/// Longest name of an instance, in bytes.
const MAX_INSTANCE_BYTES: usize = 128;
/// Longest text that says what a backend is, in bytes.
const MAX_SOFTWARE_BYTES: usize = 256;
/// Longest text about its health, in bytes.
const MAX_TEXT_BYTES: usize = 512;

/// What an endpoint speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, known beforehand; gRPC among it.
    H2c,
    /// gRPC alone: HTTP/2 without TLS.
    Grpc,
}

/// What a call needs an endpoint to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// HTTP of any version.
    Http,
    /// gRPC.
    Grpc,
}

/// Where an endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket of this name in the guest directory.
    Guest(String),
    /// A socket at this absolute path on the broker's machine.
    Host(String),
}

/// An address at which a backend takes calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it listens.
    pub address: Address,
}

/// How a backend says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it takes calls.
    pub ready: bool,
    /// Why, or why not; untrusted.
    pub message: String,
}

/// Who holds a lease of an extension: each of these has at most one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// A process on the host, which stands in for the containers.
    Host,
    /// A container of a backend's service.
    Service {
        /// The service.
        service: String,
        /// The container.
        container: String,
    },
    /// A container that the extension made by itself.
    Container(String),
}

/// What a backend says when it registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Name of this run of the program.
    pub instance: String,
    /// What it says it is; untrusted.
    pub software: String,
    /// What it offers, in its order.
    pub endpoints: Vec<Endpoint>,
    /// How it is.
    pub health: Health,
    /// Where programs of the backend run while it stands in for the containers; the host only.
    pub directory: Option<String>,
}

/// Why a backend is about to be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// Disabled, or it lost a grant that it needs.
    Disabled,
    /// Another generation follows.
    Updated,
    /// The extension is being removed.
    Uninstalled,
}

impl Protocol {
    /// What it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Http1 => "HTTP/1.1",
            Protocol::H2c => "h2c",
            Protocol::Grpc => "gRPC",
        }
    }
}

impl Speech {
    /// What it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Speech::Http => "HTTP",
            Speech::Grpc => "gRPC",
        }
    }

    /// How well an endpoint serves it: the lower the better, `None` for not at all.
    pub fn served_by(self, protocol: Protocol) -> Option<u8> {
        match (self, protocol) {
            (Speech::Http, Protocol::Http1 | Protocol::H2c) | (Speech::Grpc, Protocol::Grpc) => Some(0),
            // Who offers gRPC by name means that for gRPC.
            (Speech::Grpc, Protocol::H2c) => Some(1),
            (Speech::Http, Protocol::Grpc) | (Speech::Grpc, Protocol::Http1) => None,
        }
    }
}

impl Holder {
    /// Whether both are the same service: its container may be another one after a restart.
    pub fn is_same_place(&self, other: &Holder) -> bool {
        match (self, other) {
            (Holder::Service { service, .. }, Holder::Service { service: other, .. }) => service == other,
            _ => self == other,
        }
    }

    /// The service, or nothing.
    pub fn service(&self) -> &str {
        if let Holder::Service { service, .. } = self { service } else { "" }
    }

    /// The container, or nothing.
    pub fn container(&self) -> &str {
        match self {
            Holder::Host => "",
            Holder::Service { container, .. } | Holder::Container(container) => container,
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Holder::Host => f.write_str("a process on the host"),
            Holder::Service { service, .. } => write!(f, "the service {service}"),
            Holder::Container(container) => write!(f, "the container {container:.12}"),
        }
    }
}

impl Health {
    /// Checks what a backend says.
    ///
    /// # Errors
    ///
    /// `REQUEST_INVALID`.
    pub fn new(ready: bool, message: String) -> Result<Self> {
        check_length("health.message", &message, MAX_TEXT_BYTES)?;
        Ok(Health { ready, message })
    }
}

impl Endpoint {
    /// Checks what a backend says: from the host its socket is a path there, from a container a name in the guest
    /// directory.
    ///
    /// # Errors
    ///
    /// `REQUEST_INVALID`.
    pub fn new(name: String, protocol: Protocol, socket: String, is_on_host: bool) -> Result<Self> {
        check_name(&name)?;
        let address = if is_on_host { host_socket(socket)? } else { guest_socket(&socket)? };
        Ok(Endpoint { name, protocol, address })
    }
}

impl Hello {
    /// Checks the whole of it.
    ///
    /// # Errors
    ///
    /// `REQUEST_INVALID`, `LIMIT_REACHED`.
    pub fn check(&self) -> Result<()> {
        if self.instance.is_empty() {
            return Err(invalid(
                "instance",
                "instance is empty: name this run of the program, such as by a random number",
            ));
        }
        check_length("instance", &self.instance, MAX_INSTANCE_BYTES)?;
        check_length("software", &self.software, MAX_SOFTWARE_BYTES)?;
        check_count(self.endpoints.len())?;
        let mut names: Vec<&str> = self.endpoints.iter().map(|endpoint| &*endpoint.name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(invalid("endpoints", format!("two endpoints are called {}; names are unique", pair[0]))),
            None => Ok(()),
        }
    }
}

/// Whether a lease may have so many endpoints.
///
/// # Errors
///
/// `LIMIT_REACHED`.
pub fn check_count(endpoints: usize) -> Result<()> {
    if endpoints <= MAX_ENDPOINTS {
        return Ok(());
    }
    let message = format!("{endpoints} endpoints are more than the {MAX_ENDPOINTS} that one lease may have");
    Err(Error::new(Reason::LimitReached, "endpoints", message))
}

/// Checks the name of an endpoint.
///
/// # Errors
///
/// `REQUEST_INVALID`.
pub fn check_name(name: &str) -> Result<()> {
    let is_legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_legal) {
        return Ok(());
    }
    let message =
        format!("the name of an endpoint is 1 to {MAX_NAME_BYTES} of a-z, 0-9, `-`, `.` and `_`; this is {name:?}");
    Err(invalid("endpoint", message))
}

fn guest_socket(name: &str) -> Result<Address> {
    match name.parse::<SocketName>() {
        Ok(name) => Ok(Address::Guest(name.as_str().to_owned())),
        Err(fault) => {
            let message = format!("socket {name:?}: {fault}; it is the name of a file in /run/guest-services");
            Err(invalid("socket", message))
        }
    }
}

fn host_socket(path: String) -> Result<Address> {
    if path.starts_with('/') && path.len() <= MAX_SOCKET_PATH_BYTES && !path.bytes().any(|byte| byte == 0) {
        return Ok(Address::Host(path));
    }
    let message =
        format!("socket {path:?}: on the host it is an absolute path of at most {MAX_SOCKET_PATH_BYTES} bytes");
    Err(invalid("socket", message))
}

fn check_length(field: &str, text: &str, most: usize) -> Result<()> {
    if text.len() <= most {
        return Ok(());
    }
    Err(invalid(field, format!("{field} has {} bytes; at most {most} are taken", text.len())))
}

fn invalid(field: &str, message: impl Into<String>) -> Error {
    Error::new(Reason::RequestInvalid, field, message.into())
}
