//! One direction of a connection: what was read and is not written yet. Everything here can be dropped at any await and
//! gone on with later; no byte is lost.

use std::{cell::RefCell, io};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;

use super::{
    chunked::Chunked,
    head::{Framing, Refusal, end_of},
};
use crate::local::{ReadHalf, WriteHalf};

/// How much is read at a time of a body, in bytes: a socket's queue holds about this much.
const READ_BYTES: usize = 128 << 10;
/// How much is read at a time of a head.
const HEAD_READ_BYTES: usize = 4 << 10;
/// Buffers that a thread keeps for whoever needs one next.
const MAX_SPARE: usize = 8;

thread_local! {
    /// Buffers that are not in use: a stream that waits holds none.
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Flow {
    buffer: BytesMut,
    /// How many bytes at the front of the buffer belong to the body that is being passed on.
    due: usize,
    /// Whether nothing more comes.
    ended: bool,
}

/// What is still to come of a body.
#[derive(Debug)]
pub(super) enum Body {
    Length(u64),
    Chunked(Chunked),
    Raw,
}

/// Why bytes do not go on.
#[derive(Debug)]
pub(super) enum Broken {
    /// Nothing can be read, or it ended too early.
    Reading,
    /// Nothing can be written.
    Writing,
    /// What comes is no body.
    Refused(Refusal),
}

impl From<Refusal> for Broken {
    fn from(refusal: Refusal) -> Self {
        Broken::Refused(refusal)
    }
}

impl Body {
    /// One that ends so.
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Chunked::new()),
            Framing::Raw => Body::Raw,
        }
    }

    /// Whether it is complete. A raw one never is.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Body::Length(left) => *left == 0,
            Body::Chunked(chunked) => chunked.is_done(),
            Body::Raw => false,
        }
    }

    /// How many of `bytes` are its next ones; `data` gets what they hold.
    fn take(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Refusal> {
        match self {
            Body::Length(left) => {
                let take = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                data(&bytes[..take]);
                *left -= take as u64;
                Ok(take)
            }
            Body::Chunked(chunked) => chunked.read(bytes, data),
            Body::Raw => {
                data(bytes);
                Ok(bytes.len())
            }
        }
    }
}

impl Flow {
    /// Whether nothing was read that is not passed on.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether nothing more comes.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Reads until a whole head is there and takes it out; `None` where nothing came but the end.
    pub(super) async fn head(&mut self, from: &ReadHalf<'_>) -> Result<Option<BytesMut>, Broken> {
        let mut seen = 0;
        loop {
            if let Some(end) = end_of(&self.buffer, seen)? {
                return Ok(Some(self.buffer.split_to(end)));
            }
            seen = self.buffer.len();
            if self.fill(from, HEAD_READ_BYTES).await? == 0 {
                return if seen == 0 { Ok(None) } else { Err(Broken::Reading) };
            }
        }
    }

    /// Waits until there is something, or the end.
    pub(super) async fn wait(&mut self, from: &ReadHalf<'_>) -> Result<(), Broken> {
        if self.buffer.is_empty() && !self.ended {
            self.fill(from, HEAD_READ_BYTES).await?;
        }
        Ok(())
    }

    /// Passes a body on to its end; of a raw one, to the end of the stream.
    pub(super) async fn pass(
        &mut self,
        from: &ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
        body: &mut Body,
    ) -> Result<(), Broken> {
        loop {
            if self.due == 0 {
                self.due = body.take(&self.buffer, |_| {})?;
            }
            while self.due > 0 {
                let written = to.write(&self.buffer[..self.due]).await.map_err(|_| Broken::Writing)?;
                if written == 0 {
                    return Err(Broken::Writing);
                }
                self.buffer.advance(written);
                self.due -= written;
            }
            if body.is_done() {
                return Ok(());
            }
            if self.fill(from, READ_BYTES).await? == 0 {
                return if matches!(body, Body::Raw) { Ok(()) } else { Err(Broken::Reading) };
            }
        }
    }

    /// Reads a whole body, as it is and what it holds, unless the latter is larger than `most`.
    pub(super) async fn whole(
        &mut self,
        from: &ReadHalf<'_>,
        framing: Framing,
        most: usize,
    ) -> Result<Option<Whole>, Broken> {
        let mut body = Body::new(framing);
        let mut whole = Whole::default();
        loop {
            let taken = body.take(&self.buffer, |bytes| whole.data.extend_from_slice(bytes))?;
            whole.raw.extend_from_slice(&self.buffer[..taken]);
            self.buffer.advance(taken);
            // Chunks of one byte each are six times as long as what they hold.
            if whole.data.len() > most || whole.raw.len() > 8 * most {
                return Ok(None);
            }
            if body.is_done() {
                return Ok(Some(whole));
            }
            if self.fill(from, HEAD_READ_BYTES).await? == 0 {
                return if matches!(body, Body::Raw) { Ok(Some(whole)) } else { Err(Broken::Reading) };
            }
        }
    }

    /// Reads some more: how many bytes came, 0 at the end. A buffer is taken only once there is something to read.
    async fn fill(&mut self, from: &ReadHalf<'_>, most: usize) -> Result<usize, Broken> {
        while !self.ended {
            self.make_room(most);
            match from.try_read_buf(&mut self.buffer) {
                Ok(0) => self.ended = true,
                Ok(read) => return Ok(read),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.give_room_back();
                    from.readable().await.map_err(|_| Broken::Reading)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.ended = true;
                    return Err(Broken::Reading);
                }
            }
        }
        Ok(0)
    }

    fn make_room(&mut self, most: usize) {
        if self.buffer.capacity() == 0 && most >= READ_BYTES {
            let spare = SPARE.with_borrow_mut(Vec::pop);
            self.buffer = spare.unwrap_or_else(|| BytesMut::with_capacity(READ_BYTES));
        }
        if self.buffer.is_empty() || self.buffer.capacity() == self.buffer.len() {
            self.buffer.reserve(most);
        }
    }

    fn give_room_back(&mut self) {
        if self.buffer.is_empty() {
            let mut spare = std::mem::take(&mut self.buffer);
            spare.clear();
            if spare.capacity() >= READ_BYTES {
                SPARE.with_borrow_mut(|all| {
                    if all.len() < MAX_SPARE {
                        all.push(spare)
                    }
                });
            }
        }
    }
}

/// A body that was read whole.
#[derive(Debug, Default)]
pub(super) struct Whole {
    /// As it came.
    pub(super) raw: Vec<u8>,
    /// What it holds.
    pub(super) data: Vec<u8>,
}
