//! Registering a descriptor with the runtime.

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// Lets the runtime tell when `fd` can be read or written. `fd` must not block.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` has one descriptor, the same throughout, which is open until it is dropped; nothing else
    // closes it meanwhile.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
