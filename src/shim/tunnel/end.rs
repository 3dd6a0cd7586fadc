//! One end of a pipe or of a connection between processes of this machine, as the runtime waits for it.

use std::{io, os::fd::OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, fcntl_dupfd_cloexec, ioctl_fionbio, ioctl_fionread, read, write},
    net::{Shutdown, shutdown},
    pipe::fcntl_setpipe_size,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::shim::watch::watch;

/// A pipe through which much goes, in bytes. All pipes of a user together may have 64 MiB, after which new ones are small.
pub(super) const PIPE_BYTES: usize = 256 << 10;

/// An end.
#[derive(Debug)]
pub struct LocalEnd {
    fd: AsyncFd<OwnedFd>,
    /// The same once more, so that who waits for the other side to go takes nobody's wake-up.
    going: AsyncFd<OwnedFd>,
}

impl LocalEnd {
    /// Takes a descriptor. Fails for one that never makes anybody wait, such as `/dev/null`.
    pub fn new(fd: OwnedFd) -> io::Result<LocalEnd> {
        ioctl_fionbio(&fd, true)?;
        let going = watch(fcntl_dupfd_cloexec(&fd, 3)?)?;
        Ok(LocalEnd { fd: watch(fd)?, going })
    }

    /// Reads what is there, and waits for something. 0 is the end.
    pub async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match read(self.fd.get_ref(), &mut *bytes) {
                Ok(len) => return Ok(len),
                Err(Errno::AGAIN) => {}
                Err(Errno::INTR) => continue,
                // The side of a terminal or of a socket that was dropped with something unread in it.
                Err(Errno::IO | Errno::CONNRESET) => return Ok(0),
                Err(error) => return Err(error.into()),
            }
            let mut ready = self.fd.readable().await?;
            match read(self.fd.get_ref(), &mut *bytes) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Ok(len) => return Ok(len),
                Err(_) => {}
            }
        }
    }

    /// Writes what is taken of it, and waits until something is.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match write(self.fd.get_ref(), bytes) {
                Err(Errno::AGAIN) => {}
                Err(Errno::INTR) => continue,
                written => return Ok(written?),
            }
            let mut ready = self.fd.writable().await?;
            match write(self.fd.get_ref(), bytes) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                written => return Ok(written?),
            }
        }
    }

    /// Completes when nobody can read any more what is written here.
    pub async fn unread(&self) {
        loop {
            let Ok(mut ready) = self.going.ready(Interest::WRITABLE).await else { return };
            if self.is_unread() {
                return;
            }
            ready.clear_ready();
            // It may have gone before that was cleared.
            if self.is_unread() {
                return;
            }
        }
    }

    /// Whether nobody can read any more what is written here.
    pub fn is_unread(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.get_ref(), PollFlags::empty())];
        let found = poll(&mut fds, Some(&Timespec::default()));
        found.is_ok() && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
    }

    /// Says that nothing more is written; a pipe has to be dropped for that.
    pub fn close_write(&self) {
        let _ = shutdown(self.fd.get_ref(), Shutdown::Write);
    }

    /// Has a pipe hold more, so that much goes through with fewer wake-ups; anything else stays as it is.
    pub fn widen(&self) {
        let _ = fcntl_setpipe_size(self.fd.get_ref(), PIPE_BYTES);
    }

    /// How many bytes are there to be read, in a pipe.
    pub fn queued(&self) -> u64 {
        ioctl_fionread(self.fd.get_ref()).unwrap_or_default()
    }
}
