//! Carrying calls to a backend's socket.
//!
//! The proxy is handed a way to dial and knows nothing of extensions or engines. An [`Exchange`] is one HTTP request and
//! its answer, over HTTP/1.1 or HTTP/2, piece by piece and both at once; [`fetch`] is one whose ends are whole messages, a [`Upgraded`] what is
//! left of one after the backend switched protocols. [`forward`] carries gRPC calls over HTTP/2, untouched.

use std::time::Duration;

use bytes::Bytes;

mod chunks;
mod connection;
mod exchange;
mod failure;
mod fetch;
mod forward;
pub mod headers;
mod held;
mod http1;
mod http2;
mod lanes;
mod lines;
pub mod path;
mod patience;
mod pool;
mod progress;
mod request;
mod response;
mod switched;
#[cfg(test)]
mod tests;
mod timer;
mod traffic;
mod upgraded;
mod upload;
mod wire;

pub use exchange::{Dialled, Exchange, Part, Route};
pub use fetch::fetch;
pub use forward::{Answer, CarriedBody, forward};
pub use held::{Body, Memory};
pub use pool::Pool;
pub use traffic::Traffic;
pub use upgraded::{Raw, Upgraded};
pub use upload::{Length, Piece, Source, Upload};

/// HTTP/2 connections for gRPC calls.
pub type GrpcLanes = lanes::Lanes<forward::Calls>;
/// HTTP/2 connections for exchanges.
pub type HttpLanes = lanes::Lanes<http2::Requests>;

/// One HTTP header line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderLine {
    /// Name, a token. Case does not matter; from a backend it is lower case.
    pub name: String,
    /// Value: any bytes but control characters other than tab; need not be UTF-8.
    pub value: Bytes,
}

/// One HTTP request, as the caller wishes it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Method, a token such as `GET`; at most 64 bytes.
    pub method: String,
    /// Path and query as the caller wrote them; [`path::encode`] makes them legal.
    pub path: String,
    /// Header lines in order; [`headers::write_request`] has the rules.
    pub headers: Vec<HeaderLine>,
    /// Body; empty for none.
    pub body: Bytes,
}

/// One HTTP request without its body.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    /// Method, a token such as `GET`; at most 64 bytes.
    pub method: String,
    /// Path and query as the caller wrote them; [`path::encode`] makes them legal.
    pub path: String,
    /// Header lines in order; [`headers::write_request`] has the rules.
    pub headers: Vec<HeaderLine>,
    /// Names of the trailers that may come after a body of unknown length.
    pub trailers: Vec<String>,
    /// Protocol to switch to, such as `websocket`.
    pub upgrade: Option<String>,
}

/// Status and headers of an HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Status, 100 to 999.
    pub status: u16,
    /// Header lines without the hop-by-hop ones, in their order.
    pub headers: Vec<HeaderLine>,
}

/// One whole HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response<B = Bytes> {
    /// Status, 200 to 999.
    pub status: u16,
    /// Header lines without the hop-by-hop ones, in their order.
    pub headers: Vec<HeaderLine>,
    /// Body, decoded from its transfer coding.
    pub body: B,
    /// Trailer lines, where the backend sent any.
    pub trailers: Vec<HeaderLine>,
}

/// What one exchange may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Time to get a connection.
    pub connect: Duration,
    /// Time from the connection to the response head.
    pub head: Option<Duration>,
    /// Time in which no byte moves either way.
    pub idle: Option<Duration>,
    /// Time until the whole response is there, dialling included. `None`: no limit; real backends do half-hour backups
    /// inside one request.
    pub total: Option<Duration>,
    /// Largest response body that [`fetch`] holds, in bytes.
    pub max_body_bytes: u64,
    /// What it is held in.
    pub memory: Memory,
}

// === impl HeaderLine ===

impl HeaderLine {
    /// A line of a name and a value.
    pub fn new(name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        HeaderLine { name: name.into(), value: value.into() }
    }
}

// === impl Limits ===

/// For tests: the broker's own are in its configuration.
#[cfg(any(test, feature = "fuzzing"))]
impl Default for Limits {
    /// 5 seconds to connect, no other time limit, 3 MiB of body in memory without a bound.
    fn default() -> Self {
        Limits {
            connect: Duration::from_secs(5),
            head: None,
            idle: None,
            total: None,
            max_body_bytes: 3 << 20,
            memory: Memory::default(),
        }
    }
}
