//! Tunnels into containers: their far end is this program, built for Linux, which a broker on Windows does not have.

use tokio::sync::mpsc;

use crate::local::Stream;

/// What somebody in a container connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The socket at which backends register.
    Registration,
    /// The engine gateway.
    Gateway,
}

/// Somebody who connected in a container.
#[derive(Debug)]
pub struct Visit {
    /// The container's full id.
    pub container: String,
    /// To what.
    pub door: Door,
    /// The connection.
    pub stream: Stream,
}

/// Where they would be handed.
#[derive(Debug, Clone)]
pub struct Visits(#[expect(dead_code, reason = "held, so that the other end waits")] mpsc::Sender<Visit>);

impl Visits {
    /// Both ends.
    pub fn new() -> (Visits, mpsc::Receiver<Visit>) {
        let (sender, receiver) = mpsc::channel(1);
        (Visits(sender), receiver)
    }
}
