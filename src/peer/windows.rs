//! What the system says of a process that calls.

mod caller;
#[path = "windows_socket.rs"]
pub mod socket;

use std::{io, os::windows::io::AsRawHandle as _};

use windows_sys::Win32::System::Pipes::GetNamedPipeClientProcessId;

use crate::{local::Stream, user};

pub use caller::Other;

/// The process that opened a pipe which we made.
///
/// # Errors
///
/// What the system says.
pub fn other(stream: &Stream) -> io::Result<Other> {
    let mut pid = 0;
    // SAFETY: the handle is open as long as the stream is; only `pid` is written to.
    match unsafe { GetNamedPipeClientProcessId(stream.as_raw_handle(), &mut pid) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(Other { uid: user::own_uid(), groups: None, pid: Some(pid.cast_signed()) }),
    }
}

/// Whether the process that opened the pipe still has its number. The system does not say; whoever asks what the number
/// stands for is told nothing of one that is gone.
pub fn is_there(_stream: &Stream) -> bool {
    true
}

/// No container is on this machine's own kernel.
pub fn is_in_foreign_container(_pid: i32) -> Option<bool> {
    Some(false)
}

/// The user at the other end, by its number.
pub fn uid_of(_stream: &Stream) -> u32 {
    user::own_uid()
}
