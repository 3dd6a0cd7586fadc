//! The messages of a request, length-prefixed as gRPC has them, out of the frames as they come.
//!
//! The library's decoder copies every byte into a buffer of its own and waits until a message is whole. Here a message that
//! came in one frame is decoded where it lies, and the bytes of one that is nothing but data go on as they come.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use hyper::body::Incoming;
use prost::{
    Message,
    encoding::{WireType, decode_varint},
};

use super::MAX_REQUEST_BYTES;
use crate::model::error::{Error, Reason, Result};

/// What is before each message: whether it is compressed, and its length.
pub(super) const PREFIX_BYTES: usize = 5;
/// The key and the length of a field that is data: one byte, and a varint.
const MAX_FIELD_BYTES: usize = 1 + 10;

/// A piece of a stream of messages of which many are nothing but data.
#[derive(Debug)]
pub(super) enum Came<T> {
    /// Some of the data of a message that holds only that; messages and pieces need not match.
    Data(Bytes),
    /// Any other message.
    Message(T),
}

/// The messages of one request.
pub(super) struct Messages<B = Incoming> {
    body: B,
    held: VecDeque<Bytes>,
    held_bytes: usize,
    /// Bytes of data that are still to come of the message that is passed on.
    data_left: usize,
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(body: B) -> Self {
        Messages { body, held: VecDeque::new(), held_bytes: 0, data_left: 0 }
    }

    /// The message of a call that has one.
    ///
    /// # Errors
    ///
    /// `REQUEST_INVALID`, also where there is none or another.
    pub(super) async fn only<T: Message + Default>(mut self) -> Result<T> {
        let first = poll_fn(|cx| self.poll_message(cx)).await?;
        let message = decoded(first.ok_or_else(|| invalid("the call has no message"))?)?;
        match poll_fn(|cx| self.poll_message(cx)).await? {
            None => Ok(message),
            Some(_) => Err(invalid("the call takes one message, and more came")),
        }
    }

    /// The next message, whole; `None` when there are no more.
    ///
    /// # Errors
    ///
    /// `REQUEST_INVALID`.
    pub(super) async fn next<T: Message + Default>(&mut self) -> Result<Option<T>> {
        poll_fn(|cx| self.poll_message(cx)).await?.map(decoded).transpose()
    }

    /// The next piece; `field` is the number of the field that is data.
    ///
    /// # Errors
    ///
    /// `REQUEST_INVALID`.
    pub(super) fn poll_told<T: Message + Default>(
        &mut self,
        field: u8,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Came<T>>>> {
        if self.data_left == 0 {
            let Some(len) = ready!(self.poll_prefix(cx))? else { return Poll::Ready(Ok(None)) };
            let begins = PREFIX_BYTES + len.min(MAX_FIELD_BYTES);
            ready!(self.poll_held(cx, begins))?;
            let Some(head) = self.data_head(field, len, begins) else {
                let message = ready!(self.poll_message(cx))?;
                return Poll::Ready(message.map(|message| decoded(message).map(Came::Message)).transpose());
            };
            self.take(PREFIX_BYTES + head);
            self.data_left = len - head;
            if self.data_left == 0 {
                return Poll::Ready(Ok(Some(Came::Data(Bytes::new()))));
            }
        }
        ready!(self.poll_held(cx, 1))?;
        let now = self.held.front().map_or(0, Bytes::len).min(self.data_left);
        self.data_left -= now;
        Poll::Ready(Ok(Some(Came::Data(self.take(now)))))
    }

    /// How long key and length are of a message, of which `begins` bytes are held, that is one field of data.
    fn data_head(&self, field: u8, len: usize, begins: usize) -> Option<usize> {
        let mut bytes = [0; PREFIX_BYTES + MAX_FIELD_BYTES];
        let bytes = self.peek(bytes.get_mut(..begins)?).get(PREFIX_BYTES..)?;
        let (key, mut rest) = bytes.split_first()?;
        let data = (*key == key_of(field)).then(|| decode_varint(&mut rest).ok())??;
        let head = bytes.len() - rest.len();
        (data == (len - head) as u64).then_some(head)
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        let Some(len) = ready!(self.poll_prefix(cx))? else { return Poll::Ready(Ok(None)) };
        ready!(self.poll_held(cx, PREFIX_BYTES + len))?;
        self.take(PREFIX_BYTES);
        Poll::Ready(Ok(Some(self.take(len))))
    }

    /// The length of the message that is next, once its prefix is held.
    fn poll_prefix(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>>> {
        if !ready!(self.poll_more(cx, PREFIX_BYTES))? {
            let cut = || Err(invalid("the request ends within a message"));
            return Poll::Ready(if self.held_bytes == 0 { Ok(None) } else { cut() });
        }
        let mut prefix = [0; PREFIX_BYTES];
        let mut prefix = self.peek(&mut prefix);
        let flag = prefix.get_u8();
        let len = prefix.get_u32() as usize;
        if flag != 0 {
            let message = "the message is compressed, which this broker does not take";
            return Poll::Ready(Err(Error::new(Reason::MethodUnknown, "", message)));
        }
        if len > MAX_REQUEST_BYTES {
            let message = format!("the message has {len} bytes; send at most {MAX_REQUEST_BYTES}");
            return Poll::Ready(Err(invalid(message)));
        }
        Poll::Ready(Ok(Some(len)))
    }

    fn poll_held(&mut self, cx: &mut Context<'_>, least: usize) -> Poll<Result<()>> {
        let is_there = ready!(self.poll_more(cx, least))?;
        Poll::Ready(if is_there { Ok(()) } else { Err(invalid("the request ends within a message")) })
    }

    /// Reads until so many bytes are held; false when the request ends before.
    fn poll_more(&mut self, cx: &mut Context<'_>, least: usize) -> Poll<Result<bool>> {
        while self.held_bytes < least {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(Ok(false)),
                Some(Err(error)) => return Poll::Ready(Err(invalid("the request broke off").caused_by(error))),
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.held_bytes += data.len();
                    match data.is_empty() {
                        true => {}
                        false if least > PREFIX_BYTES + MAX_FIELD_BYTES => self.join(data),
                        false => self.held.push_back(data),
                    }
                }
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Holds more of a message that is waited for as a whole: copied behind what came before, so that many small frames
    /// take no more memory than their bytes.
    fn join(&mut self, data: Bytes) {
        let Some(last) = self.held.pop_back() else { return self.held.push_back(data) };
        let mut joined = last.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        joined.extend_from_slice(&data);
        self.held.push_back(joined.freeze());
    }

    /// The first bytes that are held, which are at least as many.
    fn peek<'a>(&self, out: &'a mut [u8]) -> &'a [u8] {
        let mut at = 0;
        for chunk in &self.held {
            let now = chunk.len().min(out.len() - at);
            out[at..at + now].copy_from_slice(&chunk[..now]);
            at += now;
            if at == out.len() {
                break;
            }
        }
        out
    }

    /// Takes the first bytes that are held, which are at least as many; copies only what lies apart.
    fn take(&mut self, len: usize) -> Bytes {
        self.held_bytes -= len;
        match self.held.front_mut() {
            Some(first) if first.len() > len => return first.split_to(len),
            Some(first) if first.len() == len => return self.held.pop_front().unwrap_or_default(),
            _ => {}
        }
        let mut joined = BytesMut::with_capacity(len);
        while let Some(mut chunk) = self.held.pop_front() {
            let left = len - joined.len();
            if chunk.len() > left {
                joined.extend_from_slice(&chunk.split_to(left));
                self.held.push_front(chunk);
                break;
            }
            joined.extend_from_slice(&chunk);
        }
        joined.freeze()
    }
}

/// The key that precedes a field of bytes; its number is below 16.
pub(super) const fn key_of(field: u8) -> u8 {
    field << 3 | WireType::LengthDelimited as u8
}

fn decoded<T: Message + Default>(message: Bytes) -> Result<T> {
    T::decode(message).map_err(|error| invalid(format!("the message cannot be read: {error}")))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Reason::RequestInvalid, "", message)
}

#[cfg(test)]
mod tests {
    use http_body::Frame;
    use http_body_util::StreamBody;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        api::reply::Chunk,
        pb::{self, stream_request::Part},
    };

    fn data(bytes: &[u8]) -> pb::StreamRequest {
        pb::StreamRequest { part: Some(Part::Data(Bytes::copy_from_slice(bytes))) }
    }

    fn head(path: &str) -> pb::StreamRequest {
        let head = pb::RequestHead { path: path.into(), ..pb::RequestHead::default() };
        pb::StreamRequest { part: Some(Part::Head(head)) }
    }

    fn wire(messages: &[pb::StreamRequest]) -> Vec<u8> {
        messages.iter().flat_map(|message| all(Chunk::message(message))).collect()
    }

    fn all(mut chunk: Chunk) -> Bytes {
        chunk.copy_to_bytes(chunk.remaining())
    }

    /// The bytes as a body, cut into frames of that size.
    fn body(
        bytes: &[u8],
        size: usize,
    ) -> StreamBody<impl futures_util::Stream<Item = std::io::Result<Frame<Bytes>>> + use<>> {
        let frames: Vec<_> = bytes.chunks(size).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        StreamBody::new(futures_util::stream::iter(frames))
    }

    /// What is told: data joined, other messages apart.
    async fn told(bytes: &[u8], size: usize) -> Result<Vec<pb::StreamRequest>> {
        let mut messages = Messages::new(body(bytes, size));
        let (mut told, mut is_open) = (Vec::new(), false);
        while let Some(piece) = poll_fn(|cx| messages.poll_told::<pb::StreamRequest>(2, cx)).await? {
            match (piece, told.last_mut()) {
                (Came::Message(message), _) => {
                    told.push(message);
                    is_open = false;
                }
                (Came::Data(more), Some(pb::StreamRequest { part: Some(Part::Data(last)) })) if is_open => {
                    *last = [&last[..], &more].concat().into();
                }
                (Came::Data(first), _) => {
                    told.push(data(&first));
                    is_open = true;
                }
            }
            is_open &= messages.data_left > 0;
        }
        Ok(told)
    }

    #[tokio::test]
    async fn messages_are_told_however_they_are_cut() {
        let sent = [head("/a"), data(b""), data(&[7; 300]), head(&"x".repeat(200)), data(b"end"), head("")];
        let bytes = wire(&sent);
        for size in [1, 2, 3, 5, 7, 16, 100, bytes.len()] {
            assert_eq!(told(&bytes, size).await.unwrap(), sent, "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_message_that_is_more_than_data_is_decoded_as_a_whole() {
        // The same field twice: the last one counts.
        let twice = b"\0\0\0\0\x06\x12\x01a\x12\x01b";
        assert_eq!(told(twice, 4).await.unwrap(), [data(b"b")]);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_refused() {
        let whole = wire(&[data(&[1; 40])]);
        for cut in 1..whole.len() {
            assert_eq!(told(&whole[..cut], 8).await.unwrap_err().reason(), Reason::RequestInvalid, "{cut}");
        }
        let compressed = told(b"\x01\0\0\0\x01a", 8).await.unwrap_err();
        assert_eq!(compressed.reason(), Reason::MethodUnknown);
        for wrong in [&b"\0\xff\xff\xff\xff"[..], b"\0\0\0\0\x02\x12\xff", b"\0\0\0\0\x01\x0a"] {
            assert_eq!(told(wrong, 8).await.unwrap_err().reason(), Reason::RequestInvalid, "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_call_of_one_message_has_one() {
        let only = async |bytes: &[u8]| Messages::new(body(bytes, 3)).only::<pb::StreamRequest>().await;
        let (one, two) = (wire(&[head("/a")]), wire(&[head("/a"), head("/b")]));
        assert_eq!(only(&one).await.unwrap(), head("/a"));
        for wrong in [&b""[..], &two, &one[..one.len() - 1]] {
            assert_eq!(only(wrong).await.unwrap_err().reason(), Reason::RequestInvalid);
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..64), size in 1usize..9) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(told(&bytes, size));
        }
    }
}
