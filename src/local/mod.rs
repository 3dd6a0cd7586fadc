//! Streams between processes of this machine: Unix sockets and, on Windows, named pipes.

#[cfg_attr(windows, path = "pipe_listener.rs")]
mod listener;
mod patience;
#[cfg(windows)]
mod security;
#[cfg_attr(windows, path = "pipe.rs")]
mod socket;

use std::time::Duration;

pub use listener::{Listener, make_private_dir, place, url};
pub use patience::next_client;
#[cfg(windows)]
pub use security::Security;
pub use socket::{ReadHalf, Stream, WriteHalf, dial, is_gone, is_silent};
#[cfg(windows)]
pub(crate) use socket::{create, open};

/// How often one that sends no more is looked at, whether it still reads ([`is_gone`]).
pub const LOOKOUT: Duration = Duration::from_millis(250);
