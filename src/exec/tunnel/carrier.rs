//! The engine's stream of the far end's exec, as the connection that it is for the tunnel.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::{Said, lock};
use crate::{
    dockerd::{Frames, OutputStream},
    exec::container::MAX_SAID_BYTES,
};

/// What is read at once, in bytes: several of the engine's frames, each of which has 32 KiB.
const READ_BYTES: usize = 256 << 10;

/// What the far end writes to its standard output, and what it reads.
pub(super) struct Carrier<S> {
    stream: S,
    frames: Frames,
    unread: Bytes,
    said: Said,
}

impl<S> Carrier<S> {
    /// What comes on the standard error is put behind `said`.
    pub(super) fn new(stream: S, said: Said) -> Self {
        Carrier { stream, frames: Frames::new(false), unread: Bytes::new(), said }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Carrier<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let carrier = &mut *self;
        while carrier.unread.is_empty() {
            match carrier.frames.piece() {
                Ok(Some((OutputStream::Stdout, data))) => carrier.unread = data,
                Ok(Some((OutputStream::Stderr, data))) => {
                    let mut said = lock(&carrier.said);
                    if said.len() < MAX_SAID_BYTES {
                        said.push_str(&String::from_utf8_lossy(&data));
                        let end = said.floor_char_boundary(MAX_SAID_BYTES);
                        said.truncate(end);
                    }
                }
                Ok(None) => {
                    // Held, it would keep the buffer from being used again.
                    carrier.unread = Bytes::new();
                    carrier.frames.buffer().reserve(READ_BYTES);
                    let read = poll_read_buf(pin!(&mut carrier.stream), cx, carrier.frames.buffer());
                    if ready!(read)? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(_) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            }
        }
        let len = carrier.unread.len().min(buf.remaining());
        buf.put_slice(&carrier.unread[..len]);
        carrier.unread.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Carrier<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
