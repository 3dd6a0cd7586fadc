//! The head of an answer, how its body is framed, and taking both out of what was read.

use bytes::{Buf, BytesMut};

use super::{
    HeaderLine,
    chunks::{Chunks, Misframed, Taken},
    headers::{self, MAX_HEADER_BYTES, MAX_HEADER_LINES},
    lines::Lines,
};

/// A head up to this size may lie in the same memory as the beginning of the body.
const MAX_SHARED_HEAD_BYTES: usize = 4 << 10;

/// What was asked for, as far as it decides how an answer is read (RFC 9112 6.3).
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// For the head alone.
    pub(super) head_only: bool,
    /// For another protocol.
    pub(super) may_switch: bool,
}

/// A head.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    /// Its lines as they came, with lower-case names.
    pub(super) lines: Vec<HeaderLine>,
    is_1_1: bool,
}

/// What follows a head.
#[derive(Debug)]
pub(super) enum Follows {
    /// Another head: this one is interim.
    Head,
    /// Another protocol.
    Switch,
    Body(Rest),
}

/// What is to come of a body.
#[derive(Debug)]
pub(super) enum Rest {
    /// So many bytes.
    Sized(u64),
    Chunked(Box<Chunks>),
    /// All that comes until the connection ends.
    ToEnd,
}

/// What is no answer.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// Its head is longer, or has more lines, than may be.
    TooLarge,
    /// It is no HTTP/1.
    NotHttp(httparse::Error),
    /// Two readers would take it for two things, or nobody asked for it.
    Wrong(&'static str),
}

/// Takes a head out of what was read, when all of it is there.
pub(super) fn take_head(received: &mut BytesMut, lines: &mut Lines) -> Result<Option<Answered>, Unreadable> {
    // Empty lines before it mean nothing (RFC 9112 2.2), however many there are.
    let empty = received.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    received.advance(empty);
    if !lines.may_be_whole(received) {
        return Ok(None);
    }
    parse_head(received)
}

/// The same, whether or not anything was added.
pub(super) fn parse_head(received: &mut BytesMut) -> Result<Option<Answered>, Unreadable> {
    let mut lines = [const { std::mem::MaybeUninit::uninit() }; MAX_HEADER_LINES];
    let mut head = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    parser.allow_obsolete_multiline_headers_in_responses(true);
    let taken = match parser.parse_response_with_uninit_headers(&mut head, received, &mut lines) {
        Ok(httparse::Status::Complete(bytes)) if bytes <= MAX_HEADER_BYTES => bytes,
        Ok(httparse::Status::Partial) if received.len() <= MAX_HEADER_BYTES => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Unreadable::TooLarge),
        Err(error) => return Err(Unreadable::NotHttp(error)),
    };
    let status = head.code.unwrap_or_default();
    let is_1_1 = head.version == Some(1);
    let lines = head.headers.iter().map(headers::received).collect();
    received.advance(taken);
    if taken > MAX_SHARED_HEAD_BYTES {
        // What follows, however little, would keep the room of the head.
        *received = BytesMut::from(&received[..]);
    }
    if status < 100 {
        return Err(Unreadable::NotHttp(httparse::Error::Status));
    }
    Ok(Some(Answered { status, lines, is_1_1 }))
}

impl Answered {
    /// What follows it. Refuses heads that a second reader could frame differently, or that end HTTP unasked.
    pub(super) fn follows(&self, asked: Asked) -> Result<Follows, Unreadable> {
        let body = match self.status {
            101 if asked.may_switch => return Ok(Follows::Switch),
            101 => {
                return Err(Unreadable::Wrong(
                    "the backend switches protocols (101), for which the request did not ask",
                ));
            }
            100..200 => return Ok(Follows::Head),
            204 | 304 => Rest::Sized(0),
            _ if asked.head_only => Rest::Sized(0),
            _ => self.framed()?,
        };
        Ok(Follows::Body(body))
    }

    fn framed(&self) -> Result<Rest, Unreadable> {
        let mut codings = self.values("transfer-encoding");
        let mut lengths = self.values("content-length");
        let length = lengths.next();
        let Some(coding) = codings.next() else {
            let Some(length) = length else { return Ok(Rest::ToEnd) };
            let bytes = bytes_of(length).filter(|_| lengths.all(|other| other == length));
            let message = "the response has a Content-Length that is no number of bytes, or two of them; send one";
            return bytes.map(Rest::Sized).ok_or(Unreadable::Wrong(message));
        };
        if length.is_some() {
            let message = "the response has both Content-Length and Transfer-Encoding; send one of them";
            return Err(Unreadable::Wrong(message));
        }
        if !self.is_1_1 || !coding.eq_ignore_ascii_case(b"chunked") || codings.next().is_some() {
            let message = "the response has a Transfer-Encoding other than chunked; send chunked alone, over HTTP/1.1";
            return Err(Unreadable::Wrong(message));
        }
        Ok(Rest::Chunked(Box::default()))
    }

    /// Whether the backend says that it keeps the connection open.
    pub(super) fn keeps(&self) -> bool {
        let mut tokens = self.values("connection").flat_map(|value| value.split(|byte| *byte == b','));
        self.is_1_1 && !tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
    }

    fn values(&self, name: &'static str) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().filter(move |line| line.name == name).map(|line| &line.value[..])
    }
}

/// A length as it is written: digits only.
fn bytes_of(length: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    // The greatest number stands for "unknown" with many a reader.
    digits.parse().ok().filter(|bytes| *bytes < u64::MAX)
}

impl Rest {
    /// Takes what is next.
    pub(super) fn take(&mut self, received: &mut BytesMut) -> Result<Taken, Misframed> {
        Ok(match self {
            Rest::Sized(0) => Taken::End(Vec::new()),
            _ if received.is_empty() => Taken::More,
            Rest::Sized(left) => {
                let now = received.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= now as u64;
                Taken::Data(received.split_to(now).freeze())
            }
            Rest::Chunked(chunks) => return chunks.take(received),
            Rest::ToEnd => Taken::Data(received.split().freeze()),
        })
    }

    /// How many bytes will come, where that was said.
    pub(super) fn announced(&self) -> Option<u64> {
        match self {
            Rest::Sized(bytes) => Some(*bytes),
            Rest::Chunked(_) | Rest::ToEnd => None,
        }
    }

    /// Whether the end of the connection is its end.
    pub(super) fn ends_with_connection(&self) -> bool {
        matches!(self, Rest::ToEnd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &str) -> Answered {
        let mut received = BytesMut::from(format!("HTTP/1.1 200 OK\r\n{lines}\r\n").as_bytes());
        parse_head(&mut received).unwrap().unwrap()
    }

    #[test]
    fn a_connection_is_kept_unless_it_is_said_otherwise() {
        for (lines, keeps) in [
            ("", true),
            ("Connection: keep-alive\r\n", true),
            ("Connection: x, Close\r\n", false),
            ("Connection: x\r\nConnection: close\r\n", false),
            ("X-Connection: close\r\n", true),
        ] {
            assert_eq!(head(lines).keeps(), keeps, "{lines}");
        }
    }

    #[test]
    fn lengths_are_digits() {
        for (length, bytes) in [("0", Some(0)), ("007", Some(7)), ("18446744073709551614", Some(u64::MAX - 1))] {
            assert_eq!(bytes_of(length.as_bytes()), bytes);
        }
        for length in ["", "+1", "1 1", "0x1", "18446744073709551615", "99999999999999999999", "\u{661}"] {
            assert_eq!(bytes_of(length.as_bytes()), None, "{length:?}");
        }
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_read_when_a_line_ends() {
        let all = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
        let (mut received, mut lines, mut whole) = (BytesMut::new(), Lines::default(), None);
        for byte in all {
            assert!(whole.is_none());
            received.extend_from_slice(&[*byte]);
            whole = take_head(&mut received, &mut lines).unwrap();
        }
        assert!(whole.is_some() && received.is_empty());
    }
}
