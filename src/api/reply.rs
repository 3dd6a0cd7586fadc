//! The bodies of answers.

use std::{
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::Stream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use prost::{
    Message,
    encoding::{encode_varint, encoded_len_varint},
};
use tonic::Status;

use super::{
    messages::{PREFIX_BYTES, key_of},
    passthrough::Carried,
    status::status,
};
use crate::{model::error::Error, proxy};

/// Some of a body, in two pieces side by side, so that what comes from elsewhere is framed without being copied.
#[derive(Debug)]
pub(super) struct Chunk {
    head: Bytes,
    rest: Bytes,
}

/// One message whose last field is a body.
#[derive(Debug)]
pub(super) struct Whole {
    /// What was not sent yet of the beginning.
    first: Option<Chunk>,
    rest: proxy::Body,
}

/// The messages of an answer of many, ready to be sent.
pub(super) type Chunks = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

/// The body of an answer.
pub(super) enum Reply {
    /// Nothing: what there is to say stands in the headers.
    Empty,
    /// One message, and that all went well.
    One(Whole),
    /// Messages as they come. Its end, or a failure, is told in the trailers.
    Many(Chunks),
    /// Of a backend.
    Carried(Carried),
    /// Of a service that the library runs.
    Library(tonic::body::Body),
}

/// An answer of messages.
pub(super) fn answer(body: Reply) -> http::Response<Reply> {
    let mut response = http::Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    response
}

/// An answer that is a status.
pub(super) fn refusal(status: Status) -> http::Response<Reply> {
    status.into_http::<()>().map(|()| Reply::Empty)
}

/// The trailers that tell a status.
pub(super) fn trailers(status: Status) -> HeaderMap {
    status.into_http::<()>().into_parts().0.headers
}

// === impl Chunk ===

impl Chunk {
    /// A message.
    pub(super) fn message(message: &impl Message) -> Chunk {
        let len = message.encoded_len();
        Chunk { head: framed(message, len, 0).freeze(), rest: Bytes::new() }
    }

    /// A message, and a field of it that is data, which the message itself does not hold: so many bytes, of which these
    /// are the first.
    fn opening(message: &impl Message, field: u8, data_len: u64, first: Bytes) -> Chunk {
        let key_len = 1 + encoded_len_varint(data_len);
        let len = message.encoded_len() + key_len + usize::try_from(data_len).unwrap_or(usize::MAX);
        let mut head = framed(message, len, key_len);
        head.put_u8(key_of(field));
        encode_varint(data_len, &mut head);
        Chunk { head: head.freeze(), rest: first }
    }

    /// A message that holds one other in a field, which has a last field that is data.
    pub(super) fn data_within(outer: u8, inner: &impl Message, field: u8, data: Bytes) -> Chunk {
        let data_len = data.len() as u64;
        let begin_len = inner.encoded_len() + 1 + encoded_len_varint(data_len);
        let inner_len = begin_len + data.len();
        let outer_len = 1 + encoded_len_varint(inner_len as u64);
        let mut head = framed(&(), outer_len + inner_len, outer_len + begin_len);
        head.put_u8(key_of(outer));
        encode_varint(inner_len as u64, &mut head);
        inner.encode_raw(&mut head);
        head.put_u8(key_of(field));
        encode_varint(data_len, &mut head);
        Chunk { head: head.freeze(), rest: data }
    }

    /// A message that is nothing but data.
    pub(super) fn data(field: u8, data: Bytes) -> Chunk {
        let data_len = data.len() as u64;
        let key_len = 1 + encoded_len_varint(data_len);
        let mut head = framed(&(), key_len + data.len(), key_len);
        head.put_u8(key_of(field));
        encode_varint(data_len, &mut head);
        Chunk { head: head.freeze(), rest: data }
    }
}

/// The prefix for so many bytes and a message, with room for more.
fn framed(message: &impl Message, len: usize, room: usize) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len() + room);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    message.encode_raw(&mut bytes);
    bytes
}

impl From<Bytes> for Chunk {
    fn from(head: Bytes) -> Self {
        Chunk { head, rest: Bytes::new() }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.head.len() + self.rest.len()
    }

    fn chunk(&self) -> &[u8] {
        if self.head.is_empty() { &self.rest } else { &self.head }
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let pieces = [&self.head, &self.rest].into_iter().filter(|piece| !piece.is_empty());
        out.iter_mut().zip(pieces).map(|(slot, piece)| *slot = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, count: usize) {
        let of_head = count.min(self.head.len());
        self.head.advance(of_head);
        self.rest.advance(count - of_head);
    }
}

// === impl Whole ===

impl Whole {
    /// A message, and a field of it that is a body, which the message itself does not hold.
    pub(super) fn new(message: &impl Message, field: u8, mut body: proxy::Body) -> Result<Whole, Error> {
        let len = body.len();
        let first = match body.next_piece()? {
            Some(piece) => Chunk::opening(message, field, len, piece),
            None => Chunk::message(message),
        };
        Ok(Whole { first: Some(first), rest: body })
    }

    fn next(&mut self) -> Result<Option<Chunk>, Error> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => Ok(self.rest.next_piece()?.map(Chunk::from)),
        }
    }
}

// === impl Reply ===

impl Body for Reply {
    type Data = Chunk;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, Status>>> {
        let last = match &mut *self {
            Reply::Empty => return Poll::Ready(None),
            Reply::One(whole) => match whole.next() {
                Ok(Some(chunk)) => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
                Ok(None) => Status::ok(""),
                Err(error) => status(error),
            },
            Reply::Many(chunks) => match ready!(chunks.as_mut().poll_next(cx)) {
                Some(Ok(chunk)) => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
                Some(Err(status)) => status,
                None => Status::ok(""),
            },
            Reply::Carried(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                return Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(Chunk::from))));
            }
            Reply::Library(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                return Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(Chunk::from))));
            }
        };
        // What the body holds ends now.
        *self = Reply::Empty;
        Poll::Ready(Some(Ok(Frame::trailers(trailers(last)))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Reply::Empty => true,
            Reply::One(_) | Reply::Many(_) => false,
            Reply::Carried(body) => body.is_end_stream(),
            Reply::Library(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Empty => SizeHint::with_exact(0),
            Reply::One(_) | Reply::Many(_) => SizeHint::default(),
            Reply::Carried(body) => body.size_hint(),
            Reply::Library(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::{self, stream_response::Part};

    /// The message in a chunk, taken as a vectored write takes it.
    fn sent<T: Message + Default>(mut chunk: Chunk) -> T {
        let mut bytes = Vec::new();
        while chunk.has_remaining() {
            let mut slices = [IoSlice::new(&[]); 4];
            let count = chunk.chunks_vectored(&mut slices);
            let now: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).take(3).collect();
            chunk.advance(now.len());
            bytes.extend(now);
        }
        assert_eq!((bytes[0], bytes[1..5].to_vec()), (0, (bytes.len() as u32 - 5).to_be_bytes().to_vec()));
        T::decode(&bytes[PREFIX_BYTES..]).unwrap()
    }

    #[test]
    fn data_is_the_field_it_is_said_to_be() {
        for len in [0, 1, 200, 70_000] {
            let bytes = Bytes::from(vec![7; len]);
            let message = pb::StreamResponse { part: Some(Part::Data(bytes.clone())) };
            assert_eq!(sent::<pb::StreamResponse>(Chunk::data(3, bytes.clone())), message);
            let head = pb::FetchResponse { status: 200, ..pb::FetchResponse::default() };
            let whole = pb::FetchResponse { body: bytes.clone(), ..head.clone() };
            let mut parts = Whole::new(&head, 3, bytes.clone().into()).unwrap();
            assert_eq!(sent::<pb::FetchResponse>(parts.next().unwrap().unwrap()), whole);
            assert!(parts.next().unwrap().is_none());
            let begun = pb::Output { stream: 2, ..pb::Output::default() };
            let output = pb::Output { data: bytes.clone(), ..begun.clone() };
            let ran = pb::RunResponse { event: Some(pb::run_response::Event::Output(output.clone())) };
            assert_eq!(sent::<pb::RunResponse>(Chunk::data_within(2, &begun, 2, bytes.clone())), ran);
            let exec = pb::ExecResponse { event: Some(pb::exec_response::Event::Output(output)) };
            assert_eq!(sent::<pb::ExecResponse>(Chunk::data_within(2, &begun, 2, bytes)), exec);
        }
    }
}
