//! Bodies that cost nothing to make, so that what is measured is their way.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};

/// Size of the pieces of large HTTP bodies.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

/// What is sent, by the backend and by its callers.
pub(crate) enum Sent {
    /// One piece or none.
    Whole(Option<Bytes>),
    /// So many bytes, in pieces of this one's size.
    Many { piece: Bytes, left: u64 },
    /// One piece, and then nothing until the reader goes.
    Open(Option<Bytes>),
    /// Pieces of a gRPC answer, so many of them, and the trailers of success.
    Messages { message: Bytes, left: u64, ended: bool },
}

impl Sent {
    pub(crate) fn many(bytes: u64) -> Sent {
        Sent::Many { piece: Bytes::from(vec![b'x'; CHUNK_BYTES]), left: bytes }
    }
}

/// A gRPC message with its prefix (length-prefixed message of the gRPC protocol).
pub(crate) fn message(payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + payload.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    message.put_slice(payload);
    message.freeze()
}

fn success() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))])
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match &mut *self {
            Sent::Whole(bytes) => bytes.take().map(Frame::data),
            Sent::Open(first) => match first.take() {
                Some(first) => Some(Frame::data(first)),
                None => return Poll::Pending,
            },
            Sent::Many { left: 0, .. } | Sent::Messages { ended: true, .. } => None,
            Sent::Many { piece, left } => {
                let now = (piece.len() as u64).min(*left);
                *left -= now;
                Some(Frame::data(piece.slice(..usize::try_from(now).unwrap_or(piece.len()))))
            }
            Sent::Messages { left: 0, ended, .. } => {
                *ended = true;
                Some(Frame::trailers(success()))
            }
            Sent::Messages { message, left, .. } => {
                *left -= 1;
                Some(Frame::data(message.clone()))
            }
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Sent::Whole(None) | Sent::Many { left: 0, .. } | Sent::Messages { ended: true, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Sent::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Sent::Many { left, .. } => SizeHint::with_exact(*left),
            Sent::Open(_) | Sent::Messages { .. } => SizeHint::default(),
        }
    }
}
