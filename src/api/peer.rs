//! Who is calling: what the kernel says of the process at the other end of the control socket.
//!
//! A program that we started and a container have their own ways in (sessions, the extension socket); on the control
//! socket neither may act as the user, though its user id may be the user's (design section 3).

use std::{
    os::fd::AsFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};

use crate::{
    model::error::{Error, Reason},
    peer,
};

/// The process at the other end, and whether it may call.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Its user id.
    pub(super) uid: u32,
    /// Why it may not call, where it may not.
    refusal: Option<&'static str>,
}

/// Tells whether a process was started by us as some extension's program.
pub(super) type IsOurs = Arc<dyn Fn(i32) -> bool + Send + Sync>;

impl Peer {
    /// Looks at a client that has just connected.
    pub(super) fn of(stream: &UnixStream, is_ours: &IsOurs) -> Peer {
        let Ok(credentials) = stream.peer_cred() else {
            return Peer { uid: u32::MAX, refusal: Some("the system does not say who is calling") };
        };
        let uid = credentials.uid();
        let pid = credentials.pid().filter(|pid| *pid > 0);
        let refusal = refusal(uid, pid, is_ours).or_else(|| {
            // What was found out about that number is about the caller only if the caller still has it.
            (!peer::is_alive(stream.as_fd())).then_some("the calling process is gone")
        });
        Peer { uid, refusal }
    }

    /// The error for a peer that may not call.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.refusal {
            None => Ok(()),
            Some(why) => Err(Error::new(Reason::CallerRefused, "", why)),
        }
    }
}

fn refusal(uid: u32, pid: Option<i32>, is_ours: &IsOurs) -> Option<&'static str> {
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Some("this control socket belongs to another user");
    }
    // Ourselves: the library's own tests and embedders call from within the process.
    if pid.is_some_and(|pid| pid.unsigned_abs() == std::process::id()) {
        return None;
    }
    let Some(pid) = pid else {
        return Some("the caller's process cannot be told; containers do not use the control socket");
    };
    match peer::is_in_foreign_container(pid) {
        None => return Some("the calling process is gone or cannot be looked at"),
        Some(true) => return Some("the caller runs in a container; containers do not use the control socket"),
        Some(false) => {}
    }
    if is_ours(pid) {
        return Some("the caller is a program of an extension; it does not use the control socket");
    }
    None
}

/// A client's connection with what is known of its process.
pub(super) struct PeerStream {
    stream: UnixStream,
    peer: Peer,
}

impl PeerStream {
    pub(super) fn new(stream: UnixStream, is_ours: &IsOurs) -> Self {
        let peer = Peer::of(&stream, is_ours);
        PeerStream { stream, peer }
    }

    /// The process at its other end.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether its calls will be refused.
    pub(super) fn is_refused(&self) -> bool {
        self.peer.refusal.is_some()
    }

    /// Tells the log who was refused, and why.
    pub(super) fn log_refusal(&self) {
        tracing::warn!(uid = self.peer.uid, why = self.peer.refusal, "refused a caller");
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
        let nobody: IsOurs = Arc::new(|_| false);
        let everybody: IsOurs = Arc::new(|_| true);
        let own = rustix::process::geteuid().as_raw();
        assert!(refusal(own, Some(std::process::id() as i32), &nobody).is_none());
        assert!(refusal(own + 1, Some(1), &nobody).is_some());
        assert!(refusal(own, None, &nobody).is_some());
        assert!(refusal(own, Some(1), &everybody).is_some());
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        assert!(refusal(own, Some(gone.id() as i32), &nobody).is_some());
    }
}
