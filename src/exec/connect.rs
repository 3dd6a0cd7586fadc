//! Why there is no connection to a socket in a container.

pub use crate::shim::wire::ConnectReason;

/// Why there is no connection to a socket in a container.
#[derive(Debug)]
pub struct ConnectError {
    /// What the shim there says that it is; `None` where the shim is gone: the container stopped, or it was killed. A new
    /// link may work then.
    pub why: Option<ConnectReason>,
    /// What the system says.
    pub message: String,
}

impl ConnectError {
    /// One that has no better reason.
    pub(super) fn other(message: String) -> Self {
        ConnectError { why: Some(ConnectReason::Other), message }
    }

    /// Whether the shim is gone.
    pub fn is_gone(&self) -> bool {
        self.why.is_none()
    }
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConnectError {}
