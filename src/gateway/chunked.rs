//! The chunked coding, followed byte by byte and passed on as it is. Only the plain form is let through: extensions and
//! lenient line ends are where readers differ.

use super::head::Refusal;

/// Most digits of a chunk's size.
const MAX_DIGITS: u32 = 15;
/// Longest trailer section, in bytes.
const MAX_TRAILER_BYTES: usize = 8 << 10;

/// Where in a chunked body its reader is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunked {
    at: At,
    trailer_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    /// In the size of a chunk: its digits so far and their value.
    Size(u32, u64),
    /// Behind the CR that ends the size.
    SizeEnd(u64),
    /// In a chunk that has so many bytes to come.
    Data(u64),
    /// Behind a chunk's bytes.
    DataCr,
    DataLf,
    /// At the beginning of a trailer line, or of the empty line that ends everything.
    Trailer,
    TrailerLine,
    TrailerLf,
    LastLf,
    Done,
}

impl Chunked {
    /// At the beginning.
    pub(super) fn new() -> Self {
        Chunked { at: At::Size(0, 0), trailer_bytes: 0 }
    }

    /// Whether the body is complete.
    pub(super) fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// Reads on; how many of `bytes` belong to the body. `data` gets what the chunks hold.
    ///
    /// # Errors
    ///
    /// It is no plain chunked body.
    pub(super) fn read(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Refusal> {
        let mut read = 0;
        while let (false, Some(byte)) = (self.is_done(), bytes.get(read)) {
            if let At::Data(left) = self.at {
                let here = &bytes[read..];
                let take = here.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                data(&here[..take]);
                read += take;
                let left = left - take as u64;
                self.at = if left == 0 { At::DataCr } else { At::Data(left) };
                continue;
            }
            self.at = self.step(*byte)?;
            read += 1;
        }
        Ok(read)
    }

    fn step(&mut self, byte: u8) -> Result<At, Refusal> {
        if matches!(self.at, At::Trailer | At::TrailerLine | At::TrailerLf) {
            self.trailer_bytes += 1;
            if self.trailer_bytes > MAX_TRAILER_BYTES {
                return Err(Refusal("the trailers of a chunked body are too long"));
            }
        }
        match (&self.at, byte) {
            (At::Size(digits, value), digit) if digit.is_ascii_hexdigit() && *digits < MAX_DIGITS => {
                let digit = char::from(digit).to_digit(16).unwrap_or_default();
                Ok(At::Size(digits + 1, value * 16 + u64::from(digit)))
            }
            (At::Size(1.., value), b'\r') => Ok(At::SizeEnd(*value)),
            (At::SizeEnd(0), b'\n') => Ok(At::Trailer),
            (At::SizeEnd(size), b'\n') => Ok(At::Data(*size)),
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => Ok(At::Size(0, 0)),
            (At::Trailer, b'\r') => Ok(At::LastLf),
            (At::Trailer, b' ' | b'\t') => Err(Refusal("a trailer line goes on with another")),
            (At::Trailer | At::TrailerLine, byte) if byte >= b' ' || byte == b'\t' => Ok(At::TrailerLine),
            (At::TrailerLine, b'\r') => Ok(At::TrailerLf),
            (At::TrailerLf, b'\n') => Ok(At::Trailer),
            (At::LastLf, b'\n') => Ok(At::Done),
            _ => Err(Refusal("the body is not in plain chunks")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], size: usize) -> Result<(Vec<u8>, usize, bool), Refusal> {
        let (mut chunked, mut data, mut all) = (Chunked::new(), Vec::new(), 0);
        for piece in bytes.chunks(size) {
            let read = chunked.read(piece, |bytes| data.extend_from_slice(bytes))?;
            all += read;
            if read < piece.len() {
                break;
            }
        }
        Ok((data, all, chunked.is_done()))
    }

    #[test]
    fn it_ends_where_it_ends() {
        for size in [1, 2, 3, 100] {
            let body = b"4\r\nWiki\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n";
            let all = [body, &b"GET / HTTP/1.1"[..]].concat();
            assert_eq!(read(&all, size), Ok((b"Wiki0123456789".to_vec(), body.len(), true)));
        }
        assert_eq!(read(b"5\r\nab", 9), Ok((b"ab".to_vec(), 5, false)));
    }

    #[test]
    fn what_readers_differ_on_is_refused() {
        for body in [
            "4;x=y\r\nWiki\r\n",
            " 4\r\nWiki\r\n",
            "4 \r\nWiki\r\n",
            "0x4\r\nWiki\r\n",
            "+4\r\nWiki\r\n",
            "\r\nWiki\r\n",
            "4\nWiki\r\n",
            "4\r\nWiki\n0\r\n\r\n",
            "4\r\nWikiX\r\n",
            "1000000000000000\r\nx",
            "0\r\nX: y\n\r\n",
            "0\r\n X: y\r\n\r\n",
            "0\r\n\n",
        ] {
            assert!(read(body.as_bytes(), 100).is_err(), "{body:?}");
        }
        let long = format!("0\r\nX: {}\r\n\r\n", "y".repeat(MAX_TRAILER_BYTES));
        assert!(read(long.as_bytes(), 100).is_err());
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            behind in prop::collection::vec(any::<u8>(), 0..20),
            size in 1_usize..50,
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:x}\r\n", chunk.len()).bytes());
                body.extend(chunk);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            let length = body.len();
            body.extend(behind);
            prop_assert_eq!(read(&body, size), Ok((chunks.concat(), length, true)));
        }
    }
}
