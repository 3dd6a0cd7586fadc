//! Programs on the host and in containers: started through a shim, told of as a stream of events, killed as a tree.

mod ancestry;
mod channel;
mod container;
mod copy;
mod door;
mod env;
mod hub;
mod idle;
mod keeper;
mod link;
mod orphans;
mod output;
mod pidfd;
mod program;
mod run;
#[cfg(test)]
mod run_tests;
mod signal;
mod trees;
mod watch;

pub use env::host_base;
pub use hub::{Hub, HubOptions};
pub use link::{DialError, DialErrorKind, Link};
pub use program::{Cut, DEFAULT_DRAIN_TIMEOUT, Drained, EnvSpec, Event, Outcome, OutputStream, Program};
pub use run::Run;
pub use signal::name as signal_name;
