//! Who is calling: what the kernel says of the process at the other end of the control socket.
//!
//! A program that we started and a container have their own ways in (sessions, the extension socket); on the control
//! socket neither may act as the user, though its user id may be the user's (design section 3).

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    core::Brokers,
    local::Stream,
    model::error::{Error, Reason},
    peer::{self, Other},
};

/// The process at the other end, and whether it may call.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Its user id.
    pub(super) uid: u32,
    /// Its group, and its other groups, where the system says them.
    pub(super) groups: Option<(u32, Vec<u32>)>,
    /// Whose broker answers it, or why none does.
    user: Result<u32, Arc<str>>,
}

impl Peer {
    /// Looks at a client that has just connected.
    pub(super) fn of(stream: &Stream, brokers: &Brokers) -> Peer {
        let Ok(Other { uid, groups, pid }) = peer::other(stream) else {
            return Peer { uid: u32::MAX, groups: None, user: Err("the system does not say who is calling".into()) };
        };
        let all: Vec<u32> =
            groups.iter().flat_map(|(own, others)| std::iter::once(own).chain(others)).copied().collect();
        let user = brokers.whose(uid, &all).map_err(Arc::from).and_then(|user| {
            check_process(pid, |pid| brokers.is_extension_program(pid))?;
            // What was found out about that number is about the caller only if the caller still has it.
            if peer::is_there(stream) { Ok(user) } else { Err("the calling process is gone".into()) }
        });
        Peer { uid, groups, user }
    }

    /// Whose broker answers it.
    ///
    /// # Errors
    ///
    /// `CALLER_REFUSED`.
    pub(super) fn user(&self) -> Result<u32, Error> {
        self.user.clone().map_err(|why| Error::new(Reason::CallerRefused, "", &*why))
    }
}

/// Whether a process may call at all, whoever's it is.
fn check_process(pid: Option<i32>, is_ours: impl Fn(i32) -> bool) -> Result<(), &'static str> {
    // Ourselves: the library's own tests and embedders call from within the process.
    if pid.is_some_and(|pid| pid.unsigned_abs() == std::process::id()) {
        return Ok(());
    }
    let Some(pid) = pid else {
        return Err("the caller's process cannot be told; containers do not use the control socket");
    };
    match peer::is_in_foreign_container(pid) {
        None => return Err("the calling process is gone or cannot be looked at"),
        Some(true) => return Err("the caller runs in a container; containers do not use the control socket"),
        Some(false) => {}
    }
    match is_ours(pid) {
        true => Err("the caller is a program of an extension; it does not use the control socket"),
        false => Ok(()),
    }
}

/// A client's connection with what is known of its process.
pub(super) struct PeerStream {
    stream: Stream,
    peer: Peer,
}

impl PeerStream {
    pub(super) fn new(stream: Stream, brokers: &Brokers) -> Self {
        let peer = Peer::of(&stream, brokers);
        PeerStream { stream, peer }
    }

    /// The process at its other end.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether its calls will be refused.
    pub(super) fn is_refused(&self) -> bool {
        self.peer.user.is_err()
    }

    /// Tells the log who was refused, and why.
    pub(super) fn log_refusal(&self) {
        let why = self.peer.user.as_ref().err();
        tracing::warn!(uid = self.peer.uid, why = why.map(|why| &**why), "refused a caller");
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_refused() {
        assert!(check_process(Some(std::process::id() as i32), |_| false).is_ok());
        assert!(check_process(None, |_| false).is_err());
        assert!(check_process(Some(1), |_| true).is_err());
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        assert!(check_process(Some(gone.id() as i32), |_| false).is_err());
    }
}
