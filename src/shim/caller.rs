//! The end of a channel that asks: the broker's, or that of a tunnel which stands in for it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    task::{Context, Poll, ready},
};

use rustix::net::{Shutdown, shutdown};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

pub use super::socket::{Delivery, Inbox};
use super::{socket, watch::watch};

/// What can come with a message.
pub type Passed = OwnedFd;
/// What keeps a waiter from missing what comes.
pub type Guard<'a> = AsyncFdReadyGuard<'a, OwnedFd>;

/// A channel. Closing it, and half-closing it by [`Channel::kill`], ends what it was opened for.
#[derive(Debug)]
pub struct Channel {
    socket: AsyncFd<OwnedFd>,
}

impl Channel {
    /// A channel at this end of a socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Channel { socket: watch(socket)? })
    }

    /// Sends all of `bytes`; the descriptors go with the first byte. Broken off in the middle, the channel is useless.
    pub async fn send(&self, mut bytes: &[u8], mut fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        while !bytes.is_empty() {
            match socket::send(&self.socket, bytes, fds) {
                Ok(sent) => (bytes, fds) = (&bytes[sent..], &[]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.writable().await?.clear_ready();
                    // Room may have come before the readiness was cleared.
                    match socket::send(&self.socket, bytes, fds) {
                        Ok(sent) => (bytes, fds) = (&bytes[sent..], &[]),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends what fits now: how many bytes.
    pub fn try_send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        socket::send(&self.socket, bytes, fds)
    }

    /// A message that is there now; `None` when the other side is gone. Fails with `WouldBlock` where there is none.
    pub fn try_next(&self, inbox: &mut Inbox) -> io::Result<Option<Delivery>> {
        loop {
            if let Some(delivery) = inbox.take()? {
                return Ok(Some(delivery));
            }
            match inbox.fill(&self.socket) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                // What was queued for a peer that died.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until something may be there to read. It is to be read before this is dropped with
    /// [`AsyncFdReadyGuard::clear_ready`].
    pub async fn readable(&self) -> io::Result<Guard<'_>> {
        self.socket.readable().await
    }

    /// The next message; `None` when the other side is gone.
    pub fn poll_next(&self, inbox: &mut Inbox, cx: &mut Context<'_>) -> Poll<io::Result<Option<Delivery>>> {
        loop {
            match self.try_next(inbox) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_read_ready(cx))?.clear_ready();
                }
                other => return Poll::Ready(other),
            }
        }
    }

    /// Tells the other side that it is over, and still hears what it says about that.
    pub fn kill(&self) {
        let _ = shutdown(&self.socket, Shutdown::Write);
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

/// Two ends of a channel within this process.
///
/// # Errors
///
/// What the system says.
pub fn pair() -> io::Result<(Channel, Channel)> {
    let (near, far) = socket::pair()?;
    Ok((Channel::new(near)?, Channel::new(far)?))
}
