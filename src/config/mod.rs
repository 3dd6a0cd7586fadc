//! Configuration: arguments, environment, file and defaults, in that order of precedence. Gathering and resolving are
//! two steps: [`resolve()`] is pure and reports every mistake at once, with the place it comes from.

pub mod args;
pub mod gather;
pub mod resolve;

mod address;
mod context;
mod file;
mod value;

use std::{fmt, path::PathBuf, time::Duration};

pub use address::{EngineAddress, SshAddress};
pub use args::{DoctorArgs, PlaceArgs, RepairArgs, ServeArgs};
pub use context::Context;
pub use file::keys;
pub use gather::{default_socket, load};
pub use resolve::resolve;

use crate::model::audit::Audit;

/// What `longshore serve` works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The control socket. Absolute, at most 107 bytes.
    pub socket: PathBuf,
    /// Everything that lasts. Absolute.
    pub data_dir: PathBuf,
    /// Where the control socket lies by default. Absolute.
    pub runtime_dir: PathBuf,
    /// The container engine.
    pub engine: EngineAddress,
    /// What the engine's address comes from, such as `DOCKER_HOST`, to be shown.
    pub engine_origin: String,
    /// Whether its containers can have directories of this machine. Default: as far as that can be told.
    pub engine_files: EngineFiles,
    /// How long open calls may go on after a stop was asked for. Default 10 s.
    pub drain_timeout: Duration,
    /// How long a backend may take to accept a connection. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a backend may take from a connection to the head of its response. Default 1 hour: real backends do
    /// half-hour backups inside one request.
    pub head_timeout: Duration,
    /// How long an exchange with a backend may go without a byte. Default: no limit; event streams are silent for long.
    pub idle_timeout: Option<Duration>,
    /// How long a whole exchange with a backend may take. Default: no limit.
    pub total_timeout: Option<Duration>,
    /// How long a backend may take to become ready. Default 60 s.
    pub ready_timeout: Duration,
    /// Largest response body that Fetch buffers, in bytes. Default 3 MiB: with its head the message stays under the
    /// 4 MiB that gRPC clients take by default.
    pub max_body_bytes: u64,
    /// What the audit keeps of a command line. Default names.
    pub audit: Audit,
    /// Where metrics are told. Default: nowhere. Absolute, at most 107 bytes.
    pub metrics_socket: Option<PathBuf>,
    /// Whether extensions may run programs on this machine at all. Default true.
    pub host_programs: bool,
    /// The collector that spans are sent to, over gRPC without TLS. Default: none.
    pub otlp_endpoint: Option<String>,
    /// What is logged and how.
    pub log: Log,
    /// For whom the broker works where that is not the user that it runs as alone. Default: for nobody else.
    pub system: Option<System>,
}

impl Config {
    /// Whether the engine's containers can have directories of this machine, where that is settled without asking it.
    pub fn shares_files(&self) -> Option<bool> {
        match self.engine_files {
            EngineFiles::Shared => Some(true),
            EngineFiles::Apart => Some(false),
            EngineFiles::Auto => self.engine.is_elsewhere().then_some(false),
        }
    }
}

/// How a broker works for several users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct System {
    /// The group that may use the control socket. Default `longshore`, where there is such a group.
    pub group: Option<u32>,
    /// Users who may call, beside root.
    pub allowed_users: Vec<u32>,
    /// Groups whose members may call. Default: the socket's.
    pub allowed_groups: Vec<u32>,
    /// Whether users other than root may accept grants that amount to root on the machine, or that show what others have.
    /// Default false.
    pub trust_users: bool,
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Directives as for `tracing_subscriber::EnvFilter`. Default `info`.
    pub filter: String,
    /// Default text.
    pub format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Whether an engine's containers can have directories of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineFiles {
    /// Told by its address and its kernel.
    Auto,
    /// They can.
    Shared,
    /// They cannot: it runs in a virtual machine, or on another one.
    Apart,
}

/// One thing that is wrong, and where it was found: `--socket`, `LONGSHORE_SOCKET`, `/etc/x.toml:3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// The place.
    pub origin: String,
    /// What is wrong and what would be right.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.text)
    }
}
