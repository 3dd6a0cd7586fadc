//! Why there is no connection to a socket in a container.

/// Why there is no connection to a socket in a container.
#[derive(Debug)]
pub struct DialError {
    /// What sort.
    pub kind: DialErrorKind,
    /// What the system says.
    pub message: String,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialErrorKind {
    /// Nothing of that name.
    Missing,
    /// A socket that nobody listens on.
    Refused,
    /// Not allowed.
    Denied,
    /// A link, a file, another mount: not a stream socket of that directory.
    NotASocket,
    /// It listens and does not accept.
    Busy,
    /// The shim is gone: the container stopped, or it was killed. A new link may work.
    Gone,
    /// Something else.
    Other,
}

impl std::fmt::Display for DialError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DialError {}
