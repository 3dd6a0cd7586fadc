//! Why a socket of an extension could not be reached.

use std::{fmt, io};

/// What lies where a socket should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A symbolic link.
    Symlink,
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A pipe or a device.
    Special,
    /// A socket with a second name, perhaps one from elsewhere.
    HardLinked,
    /// A socket on another mount, put over the name.
    Foreign,
}

/// Why a socket could not be reached.
#[derive(Debug)]
pub enum DialError {
    /// There is nothing of that name.
    Missing,
    /// There is something, but no socket of the extension's own.
    NotASocket(Found),
    /// Nobody listens on it.
    Refused,
    /// The broker's user may not connect.
    Denied,
    /// Its queue is full; try again in a moment.
    Busy,
    /// Anything else.
    Other(io::Error),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Found::Symlink => "a symbolic link",
            Found::File => "a file",
            Found::Directory => "a directory",
            Found::Special => "a pipe or a device",
            Found::HardLinked => "a socket with a second name",
            Found::Foreign => "a socket on another mount",
        })
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::Missing => f.write_str("there is no socket of that name"),
            DialError::NotASocket(found) => write!(f, "it is {found}, not a socket of the extension"),
            DialError::Refused => f.write_str("nobody listens on the socket"),
            DialError::Denied => f.write_str("the broker's user may not connect to the socket"),
            DialError::Busy => f.write_str("the socket's queue is full"),
            DialError::Other(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DialError {}
