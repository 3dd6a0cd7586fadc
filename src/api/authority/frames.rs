//! The client's half of an HTTP/2 connection, followed frame by frame (RFC 9113 section 4).
//!
//! Sans-io: [`Follower::next`] is shown the bytes at hand and says how many may go on as they are. Payloads are only counted;
//! header blocks alone are looked into.

use std::borrow::Cow;

use super::hpack;

/// What a client sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The length of a frame's header (RFC 9113 section 4.1).
pub(super) const HEAD_LEN: usize = 9;

/// The largest payload that every receiver accepts (RFC 9113 section 4.2).
const MAX_PAYLOAD: usize = 16_384;

/// The most that is held of one header block, frame headers and padding counted. hyper refuses decoded blocks above 16 KiB,
/// so a longer one is not worth keeping.
pub(super) const MAX_HELD: usize = 64 * 1024;

/// Frame types (RFC 9113 section 6) that carry parts of header blocks.
mod kind {
    /// `HEADERS` (section 6.2).
    pub(super) const HEADERS: u8 = 1;
    /// `PUSH_PROMISE` (section 6.6), which a client may not send.
    pub(super) const PUSH_PROMISE: u8 = 5;
    /// `CONTINUATION` (section 6.10).
    pub(super) const CONTINUATION: u8 = 9;
}

/// Flags of `HEADERS` and `CONTINUATION` (RFC 9113 sections 6.2 and 6.10).
mod flag {
    /// The block ends with this frame.
    pub(super) const END_HEADERS: u8 = 0x04;
    /// A pad length leads and padding ends the payload.
    pub(super) const PADDED: u8 = 0x08;
    /// Five octets of priority precede the fragment.
    pub(super) const PRIORITY: u8 = 0x20;
}

/// A frame's header (RFC 9113 section 4.1).
#[derive(Clone, Copy)]
struct Head {
    /// The payload's length.
    len: usize,
    /// The frame's type.
    kind: u8,
    /// The flags, whose meaning depends on `kind`.
    flags: u8,
    /// The stream identifier with its reserved bit, as it came.
    stream: [u8; 4],
}

impl Head {
    /// Reads the header that begins `bytes`, once all of it is there.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, s0, s1, s2, s3] = bytes.first_chunk::<HEAD_LEN>()?;
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        Some(Self { len, kind, flags, stream: [s0, s1, s2, s3] })
    }

    /// The length of the whole frame.
    fn frame_len(&self) -> usize {
        HEAD_LEN + self.len
    }

    /// Appends this header to `out`. `len` is at most what a header could say, for it came from one or is [`MAX_PAYLOAD`].
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.len as u32).to_be_bytes()[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream);
    }
}

/// What to do with the bytes that [`Follower::next`] was shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// So many of them (at least one) go on as they are.
    Pass(usize),
    /// So many of them are done with: their replacement was appended.
    Replaced(usize),
    /// They begin a frame header or a header block that is not complete: show them again, with more behind them.
    More,
}

/// Where in the stream the next byte belongs.
#[derive(Debug)]
enum Place {
    /// In the preface, of which so many bytes have been seen.
    Preface(usize),
    /// In a frame of which so many bytes are left to pass, or, with none left, at the next frame's header.
    Frame(usize),
    /// At the `HEADERS` frame of a block that lacks its end; so many of its bytes are whole frames that have been looked at.
    Block(usize),
    /// Track is lost: all that comes passes.
    Lost,
}

/// Follows what one client sends.
#[derive(Debug)]
pub(super) struct Follower {
    /// Where the next byte belongs.
    place: Place,
    /// Reads the header blocks.
    hpack: hpack::Rewriter,
}

impl Follower {
    /// A follower for a new connection.
    pub(super) fn new() -> Self {
        Self { place: Place::Preface(0), hpack: hpack::Rewriter::new() }
    }

    /// Whether the stream is no longer followed.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.place, Place::Lost)
    }

    /// Gives up: from here on, every byte passes. h2 sees what the client sent and answers it in its own way.
    pub(super) fn lose(&mut self) {
        self.place = Place::Lost;
    }

    /// Looks at `bytes`, which are not empty and start where the last answer ended. A replacement is appended to `out`.
    pub(super) fn next(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Next {
        let next = match self.place {
            Place::Preface(seen) => self.preface(seen, bytes),
            Place::Frame(0) => match Head::parse(bytes) {
                None => Some(Next::More),
                Some(head) => match head.kind {
                    kind::HEADERS => self.block(0, bytes, out),
                    kind::CONTINUATION | kind::PUSH_PROMISE => None,
                    _ => Some(self.pass(head.frame_len(), bytes)),
                },
            },
            Place::Frame(left) => Some(self.pass(left, bytes)),
            Place::Block(looked_at) => self.block(looked_at, bytes, out),
            Place::Lost => None,
        };
        next.unwrap_or_else(|| {
            self.lose();
            Next::Pass(bytes.len())
        })
    }

    /// Compares with the preface; anything else (HTTP/1, say) is not followed.
    fn preface(&mut self, seen: usize, bytes: &[u8]) -> Option<Next> {
        let due = PREFACE.get(seen..)?;
        let len = due.len().min(bytes.len());
        if due[..len] != bytes[..len] {
            return None;
        }
        self.place = if len == due.len() { Place::Frame(0) } else { Place::Preface(seen + len) };
        Some(Next::Pass(len))
    }

    /// Passes what `bytes` hold of a frame with `left` bytes to go.
    fn pass(&mut self, left: usize, bytes: &[u8]) -> Next {
        let now = left.min(bytes.len());
        self.place = Place::Frame(left - now);
        Next::Pass(now)
    }

    /// Looks for the end of the block that begins `bytes`, whose first `at` bytes are frames already looked at. `None` when
    /// it is too long or other frames are mixed into it, which RFC 9113 section 6.10 forbids.
    fn block(&mut self, mut at: usize, bytes: &[u8], out: &mut Vec<u8>) -> Option<Next> {
        let stream = Head::parse(bytes)?.stream;
        loop {
            self.place = Place::Block(at);
            let Some(head) = Head::parse(&bytes[at..]) else {
                return Some(Next::More);
            };
            let due = if at == 0 { kind::HEADERS } else { kind::CONTINUATION };
            let end = at + head.frame_len();
            if head.kind != due || head.stream != stream || end > MAX_HELD {
                return None;
            }
            if end > bytes.len() {
                return Some(Next::More);
            }
            at = end;
            if head.flags & flag::END_HEADERS != 0 {
                break;
            }
        }
        self.place = Place::Frame(0);
        let block = Block::of(&bytes[..at])?;
        Some(match self.hpack.block(&block.fragment).ok()? {
            None => Next::Pass(at),
            Some(fragment) => {
                block.write(&fragment, out);
                Next::Replaced(at)
            }
        })
    }
}

/// A whole header block, out of its frames.
struct Block<'a> {
    /// The header of the `HEADERS` frame.
    head: Head,
    /// Its priority field: five octets or none.
    priority: &'a [u8],
    /// The frames' fragments, joined.
    fragment: Cow<'a, [u8]>,
    /// The largest payload of the frames, and [`MAX_PAYLOAD`] at the least.
    max_payload: usize,
}

impl<'a> Block<'a> {
    /// Takes a `HEADERS` frame and its `CONTINUATION`s apart; `None` when the padding or the priority does not fit.
    fn of(frames: &'a [u8]) -> Option<Self> {
        let head = Head::parse(frames)?;
        let (first, mut rest) = frames.split_at_checked(head.frame_len())?;
        let mut payload = first.get(HEAD_LEN..)?;
        if head.flags & flag::PADDED != 0 {
            let (&padding, padded) = payload.split_first()?;
            payload = padded.get(..padded.len().checked_sub(padding.into())?)?;
        }
        let priority_len = if head.flags & flag::PRIORITY == 0 { 0 } else { 5 };
        let (priority, fragment) = payload.split_at_checked(priority_len)?;
        let mut block = Self { head, priority, fragment: fragment.into(), max_payload: MAX_PAYLOAD.max(head.len) };
        while let Some(head) = Head::parse(rest) {
            let (frame, later) = rest.split_at_checked(head.frame_len())?;
            block.fragment.to_mut().extend_from_slice(frame.get(HEAD_LEN..)?);
            block.max_payload = block.max_payload.max(head.len);
            rest = later;
        }
        Some(block)
    }

    /// Appends frames that carry `fragment` in this block's stead: as few as there can be, and without padding, which counts
    /// for nothing here (RFC 9113 section 6.9.1: only `DATA` is flow-controlled).
    fn write(&self, fragment: &[u8], out: &mut Vec<u8>) {
        let mut head = Head { flags: self.head.flags & !(flag::PADDED | flag::END_HEADERS), ..self.head };
        let (mut lead, mut rest) = (self.priority, fragment);
        loop {
            let (now, later) = rest.split_at(rest.len().min(self.max_payload - lead.len()));
            head.len = lead.len() + now.len();
            if later.is_empty() {
                head.flags |= flag::END_HEADERS;
            }
            head.write(out);
            out.extend_from_slice(lead);
            out.extend_from_slice(now);
            if later.is_empty() {
                return;
            }
            head = Head { kind: kind::CONTINUATION, flags: 0, ..head };
            (lead, rest) = (&[], later);
        }
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
