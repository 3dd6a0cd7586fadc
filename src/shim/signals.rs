//! Signals as something to read: the shim blocks them all and waits for them beside its sockets.

use std::{
    io, mem,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Blocked signals, two of which can be waited for: a child ended, and "end everything".
#[derive(Debug)]
pub(super) struct Signals {
    fd: OwnedFd,
}

/// What there is after a wait.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Ready {
    /// The socket can be read, or ended.
    pub(super) socket: bool,
    /// A child ended.
    pub(super) child: bool,
    /// SIGTERM came, from the parent or because the parent died.
    pub(super) terminate: bool,
}

impl Signals {
    /// Blocks every signal for this process; what it forks inherits that, what it spawns must not.
    pub(super) fn block_all() -> io::Result<Self> {
        // SAFETY: both sets are initialised by the calls before they are read, and the pointers live through the calls.
        let fd = unsafe {
            let mut all = mem::zeroed::<libc::sigset_t>();
            libc::sigfillset(&raw mut all);
            check(libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()))?;
            let mut wanted = mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut wanted);
            libc::sigaddset(&raw mut wanted, libc::SIGCHLD);
            libc::sigaddset(&raw mut wanted, libc::SIGTERM);
            check(libc::signalfd(-1, &raw const wanted, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?
        };
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Ok(Signals { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Waits until a signal comes, `socket` can be read, or the time is over.
    pub(super) fn wait(&self, socket: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> io::Result<Ready> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN), PollFd::new(&self.fd, PollFlags::empty())];
        if let Some(socket) = &socket {
            fds[1] = PollFd::new(socket, PollFlags::IN);
        }
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = Ready { socket: socket.is_some() && !fds[1].revents().is_empty(), ..Ready::default() };
        if !fds[0].revents().is_empty() {
            self.take(&mut ready);
        }
        Ok(ready)
    }

    fn take(&self, ready: &mut Ready) {
        const INFO_BYTES: usize = size_of::<libc::signalfd_siginfo>();
        let mut info = [0u8; INFO_BYTES];
        while matches!(rustix::io::read(self.fd.as_fd(), &mut info), Ok(INFO_BYTES)) {
            // `ssi_signo` is the first field.
            match i32::from_ne_bytes([info[0], info[1], info[2], info[3]]) {
                libc::SIGCHLD => ready.child = true,
                libc::SIGTERM => ready.terminate = true,
                _ => {}
            }
        }
    }
}

/// The result of a C call, or the error it left.
pub(super) fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
