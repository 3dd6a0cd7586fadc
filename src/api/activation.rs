//! A socket that systemd passes (sd_listen_fds(3)): `LISTEN_PID` is our process id, `LISTEN_FDS` the number of
//! descriptors, and the first of them is 3.

use std::{
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use rustix::{
    io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio},
    net::{AddressFamily, SocketAddrUnix, SocketType, getsockname, sockopt},
};

use super::listener::failed;
use crate::model::error::{Error, Reason, Result};

/// First descriptor that systemd passes.
const FIRST_PASSED_FD: RawFd = 3;

/// The listening socket that was passed to this process, with its path; `None` where none was.
///
/// # Errors
///
/// `CONFIG_INVALID`, `FILE_FAILED`.
pub(super) fn passed_socket() -> Result<Option<(OwnedFd, PathBuf)>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        None | Some(0) => return Ok(None),
        Some(1) => {}
        Some(count) => {
            let message = format!("systemd passed {count} sockets; longshore takes one");
            return Err(Error::new(Reason::ConfigInvalid, "LISTEN_FDS", message));
        }
    }
    let is_open = Path::new("/proc/self/fd").join(FIRST_PASSED_FD.to_string()).symlink_metadata().is_ok();
    // SAFETY: it is open, it is only asked what it is, and nothing else in this process closes it meanwhile.
    if !is_open || !is_listening_stream(unsafe { BorrowedFd::borrow_raw(FIRST_PASSED_FD) }) {
        let message = "descriptor 3, which systemd passed, is no listening Unix stream socket; the socket unit needs \
                       ListenStream= with a path";
        return Err(Error::new(Reason::ConfigInvalid, "LISTEN_FDS", message));
    }
    // SAFETY: the protocol makes this descriptor ours. Nothing else in this process owns it: it is a listening socket,
    // and this process has opened none yet.
    let passed = unsafe { OwnedFd::from_raw_fd(FIRST_PASSED_FD) };
    let wrong = |e: Errno| failed(Path::new("LISTEN_FDS"), "taking over systemd's socket", e.into());
    fcntl_setfd(&passed, FdFlags::CLOEXEC).map_err(wrong)?;
    ioctl_fionbio(&passed, true).map_err(wrong)?;
    let address = getsockname(&passed).and_then(SocketAddrUnix::try_from).map_err(wrong)?;
    let path = address.path().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Some((passed, path.into())))
}

fn is_listening_stream(socket: BorrowedFd<'_>) -> bool {
    sockopt::socket_acceptconn(socket) == Ok(true)
        && sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(socket) == Ok(SocketType::STREAM)
}
