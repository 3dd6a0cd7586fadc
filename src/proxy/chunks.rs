//! The chunked coding (RFC 9112 7.1), taken out of what was read.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    HeaderLine,
    headers::{self, MAX_HEADER_BYTES, MAX_HEADER_LINES},
    lines::Lines,
};

/// Most digits of a size: as many as a number of 64 bits has.
const MAX_DIGITS: u32 = 16;
/// Bytes that all extensions of one body, and blanks before them, may take together: nobody uses them.
const MAX_EXTENSION_BYTES: usize = 16 << 10;

/// Where in a chunked body its reader is.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    position: Position,
    extension_bytes: usize,
    trailers: Lines,
}

#[derive(Debug)]
enum Position {
    /// In a size: its digits so far and their value.
    Size { digits: u32, size: u64 },
    /// In the blanks behind it.
    Blank { size: u64 },
    /// In what may follow it.
    Extension { size: u64 },
    /// Before the line feed behind it.
    LineFeed { size: u64 },
    /// In a chunk that has so many bytes to come.
    Data { left: u64 },
    /// Behind a chunk's bytes.
    DataEnd,
    /// Before the line feed behind a chunk's bytes.
    DataLineFeed,
    /// Behind the last chunk.
    Trailers,
}

/// What is next in a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Some of its bytes.
    Data(Bytes),
    /// Nothing; its trailers, as they came.
    End(Vec<HeaderLine>),
    /// More must be read.
    More,
}

/// The bytes are no chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misframed;

impl Default for Position {
    fn default() -> Self {
        Position::Size { digits: 0, size: 0 }
    }
}

impl Chunks {
    /// Takes what is next.
    pub(super) fn take(&mut self, received: &mut BytesMut) -> Result<Taken, Misframed> {
        loop {
            match self.position {
                Position::Data { left } if received.is_empty() => {
                    self.position = Position::Data { left };
                    return Ok(Taken::More);
                }
                Position::Data { left } => {
                    let now = received.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - now as u64;
                    self.position = if left == 0 { Position::DataEnd } else { Position::Data { left } };
                    return Ok(Taken::Data(received.split_to(now).freeze()));
                }
                Position::Trailers => return self.take_trailers(received),
                _ => match received.first() {
                    None => return Ok(Taken::More),
                    Some(byte) => self.position = self.step(*byte)?,
                },
            }
            received.advance(1);
        }
    }

    /// Where one byte leads.
    fn step(&mut self, byte: u8) -> Result<Position, Misframed> {
        Ok(match (&self.position, byte) {
            (Position::Size { digits: MAX_DIGITS, .. }, _) if byte.is_ascii_hexdigit() => return Err(Misframed),
            (Position::Size { digits, size }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                let size = size * 16 + u64::from(digit);
                Position::Size { digits: digits + 1, size }
            }
            (Position::Size { digits: 0, .. }, _) => return Err(Misframed),
            (&(Position::Size { size, .. } | Position::Blank { size }), b' ' | b'\t')
                if self.extension_bytes < MAX_EXTENSION_BYTES =>
            {
                self.extension_bytes += 1;
                Position::Blank { size }
            }
            (&(Position::Size { size, .. } | Position::Blank { size }), b';') => Position::Extension { size },
            (&(Position::Size { size, .. } | Position::Blank { size } | Position::Extension { size }), b'\r') => {
                Position::LineFeed { size }
            }
            (&Position::Extension { size }, _) if byte != b'\n' && self.extension_bytes < MAX_EXTENSION_BYTES => {
                self.extension_bytes += 1;
                Position::Extension { size }
            }
            (Position::LineFeed { size: 0 }, b'\n') => Position::Trailers,
            (&Position::LineFeed { size }, b'\n') => Position::Data { left: size },
            (Position::DataEnd, b'\r') => Position::DataLineFeed,
            (Position::DataLineFeed, b'\n') => Position::default(),
            _ => return Err(Misframed),
        })
    }

    fn take_trailers(&mut self, received: &mut BytesMut) -> Result<Taken, Misframed> {
        if !self.trailers.may_be_whole(received) {
            return Ok(Taken::More);
        }
        let mut lines = [httparse::EMPTY_HEADER; MAX_HEADER_LINES];
        match httparse::parse_headers(received, &mut lines) {
            Ok(httparse::Status::Complete((bytes, lines))) if bytes <= MAX_HEADER_BYTES => {
                let lines = lines.iter().map(headers::received).collect();
                received.advance(bytes);
                Ok(Taken::End(lines))
            }
            Ok(httparse::Status::Partial) if !self.trailers.is_too_long(received) => Ok(Taken::More),
            Ok(_) | Err(_) => Err(Misframed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a body holds that comes in pieces of a size: its bytes, its trailers, and what is left behind it.
    fn read(bytes: &[u8], size: usize) -> Result<Option<(Vec<u8>, usize, usize)>, Misframed> {
        let (mut chunks, mut received, mut data) = (Chunks::default(), BytesMut::new(), Vec::new());
        let mut pieces = bytes.chunks(size);
        loop {
            match chunks.take(&mut received)? {
                Taken::Data(more) => data.extend_from_slice(&more),
                Taken::End(trailers) => {
                    let behind = received.len() + pieces.map(<[u8]>::len).sum::<usize>();
                    return Ok(Some((data, trailers.len(), behind)));
                }
                Taken::More => match pieces.next() {
                    Some(piece) => received.extend_from_slice(piece),
                    None => return Ok(None),
                },
            }
        }
    }

    #[test]
    fn a_body_is_what_its_chunks_hold() {
        let body = b"3\r\nabc\r\n00a ;x=\"y\"\r\n0123456789\r\n0\r\nA: b\r\nC:\r\n\r\nHTTP";
        for size in 1..=body.len() {
            assert_eq!(read(body, size), Ok(Some((b"abc0123456789".to_vec(), 2, 4))), "{size}");
            assert_eq!(read(&body[..body.len() - 5], size), Ok(None), "{size}");
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(MAX_EXTENSION_BYTES + 1));
        let blank = format!("1{}\r\na\r\n0\r\n\r\n", " ".repeat(MAX_EXTENSION_BYTES + 1));
        let zeros = format!("{}1\r\na\r\n0\r\n\r\n", "0".repeat(16));
        for body in [
            "\r\n",
            "g\r\n",
            "1\n",
            "1\r\rabc",
            "1\r\nabc",
            "1\r\na\n",
            "1 1\r\n",
            "1;\n",
            "11111111111111111\r\n",
            &long,
            &blank,
            &zeros,
        ] {
            assert_eq!(read(body.as_bytes(), 7), Err(Misframed), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_does_not_depend_on_how_it_comes(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            size in 1usize..50,
            noise in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:x}\r\n", chunk.len()).bytes());
                body.extend(chunk);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            match noise {
                None => prop_assert_eq!(read(&body, size), Ok(Some((chunks.concat(), 0, 0)))),
                Some((at, byte)) => {
                    let at = at.index(body.len());
                    body[at] = byte;
                    // One that is wrong and does not end is the one or the other.
                    prop_assert_eq!(read(&body, size).ok().flatten(), read(&body, body.len()).ok().flatten());
                }
            }
        }
    }
}
