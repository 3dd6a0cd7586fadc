//! Sending and receiving bytes with descriptors over Unix stream sockets, never blocking.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::wire::{Message, WireError};

/// The most descriptors that one message carries.
const MAX_DESCRIPTORS: usize = 4;
/// What is read at once, in bytes.
const READ_BYTES: usize = 16 << 10;

/// Two connected stream sockets, closed on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Sends what fits of `bytes` with `fds`: how many bytes were taken. The descriptors travel with the first byte.
/// Fails with `WouldBlock` where nothing fits.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
}

/// Receives what is there, up to the length of `bytes`, and puts descriptors behind `fds`. 0 is the end.
/// Fails with `WouldBlock` where nothing is there.
pub fn receive(socket: impl AsFd, bytes: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(received.bytes)
}

/// Puts messages together from what a socket gives.
#[derive(Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
    max_message_bytes: usize,
}

/// A message with the descriptors that belong to it.
pub type Delivery = (Message, Vec<OwnedFd>);

impl Inbox {
    /// An empty one that refuses longer messages.
    pub fn new(max_message_bytes: usize) -> Self {
        Inbox { bytes: Vec::new(), fds: VecDeque::new(), max_message_bytes }
    }

    /// Reads once from `socket`. False at the end; `WouldBlock` where nothing is there.
    pub fn fill(&mut self, socket: impl AsFd) -> io::Result<bool> {
        let len = self.bytes.len();
        self.bytes.resize(len + READ_BYTES, 0);
        let result = receive(socket, &mut self.bytes[len..], &mut self.fds);
        self.bytes.truncate(len + result.as_ref().copied().unwrap_or(0));
        if self.fds.len() > MAX_DESCRIPTORS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more descriptors came than any message has"));
        }
        Ok(result? > 0)
    }

    /// The next whole message, where there is one. Fails where the bytes are none, or descriptors are missing.
    pub fn take(&mut self) -> io::Result<Option<Delivery>> {
        let invalid = |error: WireError| io::Error::new(io::ErrorKind::InvalidData, error);
        let Some((message, len)) = Message::from_bytes(&self.bytes, self.max_message_bytes).map_err(invalid)? else {
            return Ok(None);
        };
        self.bytes.drain(..len);
        let wanted = message.descriptors();
        if self.fds.len() < wanted {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a descriptor is missing"));
        }
        Ok(Some((message, self.fds.drain(..wanted).collect())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::wire::{MAX_ANSWER_BYTES, Start};

    #[test]
    fn messages_and_descriptors_arrive_in_order() {
        let (near, far) = pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let run = Message::Run(Start { argv: vec!["a".into()], ..Start::default() });
        send(&near, &Message::Signal(15).to_frame(), &[]).unwrap();
        send(&near, &run.to_frame(), &[read.as_fd(), write.as_fd(), write.as_fd()]).unwrap();
        send(&near, &Message::Empty.to_frame(), &[]).unwrap();
        drop(near);
        let mut inbox = Inbox::new(MAX_ANSWER_BYTES);
        let mut got = Vec::new();
        while inbox.fill(&far).unwrap() {
            while let Some((message, fds)) = inbox.take().unwrap() {
                got.push((message, fds.len()));
            }
        }
        assert_eq!(got, [(Message::Signal(15), 0), (run, 3), (Message::Empty, 0)]);
    }

    #[test]
    fn a_missing_descriptor_is_an_error() {
        let (near, far) = pair().unwrap();
        send(&near, &Message::Connected.to_frame(), &[]).unwrap();
        let mut inbox = Inbox::new(MAX_ANSWER_BYTES);
        assert!(inbox.fill(&far).unwrap());
        assert!(inbox.take().is_err());
    }

    #[test]
    fn nothing_there_does_not_block() {
        let (_near, far) = pair().unwrap();
        let error = Inbox::new(MAX_ANSWER_BYTES).fill(&far).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
