//! The shim's end of a channel: one request, its answers, and the broker's presence.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    signals::Signals,
    socket::{self, Delivery, Inbox},
    wire::{MAX_REQUEST_BYTES, Message},
};

/// A channel to the broker. When the broker half-closes or goes, it is over.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
    inbox: Inbox,
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Channel { socket, inbox: Inbox::new(MAX_REQUEST_BYTES) }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next message, waited for. `None` when the channel is over, or this process was told to end.
    pub(super) fn next(&mut self, signals: &Signals) -> Option<Delivery> {
        loop {
            if let Some(delivery) = self.inbox.take().ok()? {
                return Some(delivery);
            }
            let ready = signals.wait(Some(self.socket.as_fd()), None).ok()?;
            if ready.terminate || (ready.socket && !self.fill()) {
                return None;
            }
        }
    }

    /// A message that is there already.
    pub(super) fn take(&mut self) -> io::Result<Option<Message>> {
        Ok(self.inbox.take()?.map(|(message, _)| message))
    }

    /// Reads what is there. False when the channel is over.
    pub(super) fn fill(&mut self) -> bool {
        match self.inbox.fill(&self.socket) {
            Ok(open) => open,
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    /// Says it. Answers are few and small, so they always fit; a broker that is gone hears nothing.
    pub(super) fn say(&self, messages: &[Message], fds: &[BorrowedFd<'_>]) {
        let bytes: Vec<u8> = messages.iter().flat_map(Message::to_frame).collect();
        if !bytes.is_empty() {
            let _ = socket::send(&self.socket, &bytes, fds);
        }
    }
}
