//! Makes `:authority` acceptable before h2 sees it.
//!
//! gRPC clients that dial a Unix socket name the socket in `:authority`: grpc-go its plain path, the C core (Python, C++,
//! Ruby) the path percent-encoded. Neither is an authority (RFC 3986 section 3.2), and h2's server answers
//! `RST_STREAM PROTOCOL_ERROR` before any of our code runs. [`AuthorityRewrite`] wraps an accepted stream and puts a valid
//! authority in such a one's place.
//!
//! The new value has the length of the old, as HPACK counts it after decoding (RFC 7541 section 4.1). So the dynamic tables
//! of the peer's encoder and of h2's decoder hold entries of the same sizes and evict at the same time, and a later reference
//! to the entry yields the valid value.
//!
//! All else passes untouched: payloads are read straight into the caller's buffer, and whatever cannot be followed (HTTP/1, a
//! malformed or an oversized header block) ends the rewriting for the connection, so that h2 finds the fault itself.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::frames::{Follower, HEAD_LEN, Next};

mod frames;
mod hpack;
mod huffman;

/// A connection whose reader sees a valid `:authority` in each request; see the [module](self).
#[derive(Debug)]
pub(crate) struct AuthorityRewrite<S> {
    /// The connection.
    inner: S,
    /// Knows where in the client's stream the next byte belongs.
    follower: Follower,
    /// Bytes that were read but may not go on yet: the beginning of a frame header or of a header block. At most
    /// [`frames::MAX_HELD`] and what one read brought.
    held: Vec<u8>,
    /// Bytes that may go on but did not fit into, or could not stay in, the reader's buffer.
    ready: Vec<u8>,
    /// How many of `ready` have gone on.
    taken: usize,
}

impl<S> AuthorityRewrite<S> {
    /// Wraps a connection of which nothing has been read yet.
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, follower: Follower::new(), held: Vec::new(), ready: Vec::new(), taken: 0 }
    }

    /// Moves as much of `ready` as fits into `buf`, and frees it once all has gone: rewriting is rare, usually once a
    /// connection, so an idle connection should not keep the memory.
    fn drain(&mut self, buf: &mut ReadBuf<'_>) {
        let rest = &self.ready[self.taken..];
        let now = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..now]);
        self.taken += now;
        if self.taken == self.ready.len() {
            (self.ready, self.taken) = (Vec::new(), 0);
        }
    }

    /// Lets go of what `buf` holds from `start` on: all that may pass stays there, the rest moves to `ready` and `held`.
    /// Called with nothing held and nothing ready.
    fn skim(&mut self, buf: &mut ReadBuf<'_>, start: usize) {
        let read = &buf.filled()[start..];
        let mut passed = 0;
        while passed < read.len() {
            match self.follower.next(&read[passed..], &mut self.ready) {
                Next::Pass(len) => passed += len,
                Next::Replaced(len) => {
                    self.held.extend_from_slice(&read[passed + len..]);
                    self.release();
                    break;
                }
                Next::More => {
                    self.held.extend_from_slice(&read[passed..]);
                    break;
                }
            }
        }
        buf.set_filled(start + passed);
    }

    /// Moves what may go on from `held` to `ready`.
    fn release(&mut self) {
        let mut done = 0;
        while done < self.held.len() {
            match self.follower.next(&self.held[done..], &mut self.ready) {
                Next::Pass(len) => {
                    self.ready.extend_from_slice(&self.held[done..done + len]);
                    done += len;
                }
                Next::Replaced(len) => done += len,
                Next::More => break,
            }
        }
        self.held.drain(..done);
        if self.held.len() < HEAD_LEN {
            self.held.shrink_to(HEAD_LEN);
        }
    }

    /// Handles the end of the stream: what was held goes on as it is.
    fn finish(&mut self) {
        self.follower.lose();
        self.release();
    }
}

impl<S: AsyncRead + Unpin> AuthorityRewrite<S> {
    /// Reads once. Afterwards `buf` or `ready` may hold more than before, or neither, when all that came must be held.
    /// Answers whether the stream has ended.
    fn poll_more(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let start = buf.filled().len();
        // The beginning of a frame header goes ahead of what is read now: the frame is then whole where it should be, and a
        // header that came in two pieces costs its payload no copy.
        let in_front = self.held.len() < HEAD_LEN.min(buf.remaining());
        if in_front {
            buf.put_slice(&self.held);
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if !matches!(read, Poll::Ready(Ok(()))) || buf.filled().len() == before {
            buf.set_filled(start);
            return read.map_ok(|()| true);
        }
        if in_front {
            self.held.clear();
            self.skim(buf, start);
        } else {
            self.held.extend_from_slice(&buf.filled()[start..]);
            buf.set_filled(start);
            self.release();
        }
        Poll::Ready(Ok(false))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AuthorityRewrite<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        loop {
            if !this.ready.is_empty() {
                this.drain(buf);
                return Poll::Ready(Ok(()));
            }
            if buf.filled().len() > start || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() && this.follower.is_lost() {
                return Pin::new(&mut this.inner).poll_read(cx, buf);
            }
            if ready!(this.poll_more(cx, buf))? {
                if this.held.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                this.finish();
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AuthorityRewrite<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
