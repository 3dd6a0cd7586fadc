//! Unix sockets.

use std::io;

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};

pub use tokio::net::{
    UnixStream as Stream,
    unix::{ReadHalf, WriteHalf},
};

/// Connects without waiting.
///
/// # Errors
///
/// What the system says: `WouldBlock` where nobody accepts.
pub fn dial(path: &str) -> io::Result<Stream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Stream::from_std(socket.into())
}

/// Whether the other end is closed for both directions, not only for what it sends: nobody is left to send to.
pub fn is_gone(stream: &Stream) -> bool {
    events(stream, PollFlags::OUT).is_some_and(|events| events.intersects(PollFlags::HUP | PollFlags::ERR))
}

/// Whether the other end has neither closed nor sent anything. The system is asked: what the runtime knows of the socket
/// may be older.
pub fn is_silent(stream: &Stream) -> bool {
    events(stream, PollFlags::IN | PollFlags::RDHUP).is_some_and(|events| events.is_empty())
}

/// What the system says of a stream now; `None` where it does not.
fn events(stream: &Stream, wanted: PollFlags) -> Option<PollFlags> {
    let mut polled = [PollFd::new(stream, wanted)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).ok()?;
    Some(polled[0].revents())
}
