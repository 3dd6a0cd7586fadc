//! The stream of what a program writes: framed where there are two outputs, raw at a terminal, as was asked for and never
//! as the bytes look (lessons 1.8). A frame is passed on as it comes, however long it says it is.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of the header before each frame: its kind, three of nothing, and a length (big endian).
const HEADER_BYTES: usize = 8;
/// Longest piece that is passed on.
const MAX_PIECE_BYTES: usize = 64 << 10;
/// How much is read of what the engine says itself, in bytes.
const MAX_TOLD_BYTES: usize = 2 << 10;

/// Takes the stream apart.
#[derive(Debug)]
pub struct Frames {
    is_raw: bool,
    buffer: BytesMut,
    /// Of the frame being read: its kind, and how many bytes are still to come.
    open: Option<(Kind, usize)>,
}

/// What a program writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Torn {
    /// It has a frame of this kind, which none has.
    Unknown(u8),
    /// The engine broke it off and says why.
    Told(String),
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Torn::Unknown(kind) => write!(f, "the engine's stream has a frame of the unknown kind {kind}"),
            Torn::Told(why) => write!(f, "the engine broke its stream off: {why}"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Of(OutputStream),
    /// An error of the engine's own.
    Told,
}

impl Frames {
    /// Of a stream that is raw or framed.
    pub fn new(is_raw: bool) -> Self {
        Frames { is_raw, buffer: BytesMut::new(), open: None }
    }

    /// Room for what is read next.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next piece; `None` when more has to be read first.
    ///
    /// # Errors
    ///
    /// Where the stream cannot be read on.
    pub fn piece(&mut self) -> Result<Option<(OutputStream, Bytes)>, Torn> {
        if self.is_raw {
            let length = self.buffer.len().min(MAX_PIECE_BYTES);
            return Ok((length > 0).then(|| (OutputStream::Stdout, self.buffer.split_to(length).freeze())));
        }
        loop {
            let Some((kind, left)) = self.open.take() else {
                let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
                let kind = match header[0] {
                    // Some engines call what they say themselves the input's.
                    0 | 1 => Kind::Of(OutputStream::Stdout),
                    2 => Kind::Of(OutputStream::Stderr),
                    3 => Kind::Told,
                    unknown => return Err(Torn::Unknown(unknown)),
                };
                let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                self.buffer.advance(HEADER_BYTES);
                self.open = Some((kind, length as usize));
                continue;
            };
            let length = left.min(self.buffer.len()).min(MAX_PIECE_BYTES);
            match kind {
                Kind::Told if self.buffer.len() >= left.min(MAX_TOLD_BYTES) => {
                    let said = String::from_utf8_lossy(&self.buffer[..left.min(MAX_TOLD_BYTES)]);
                    return Err(Torn::Told(said.trim().to_owned()));
                }
                Kind::Of(_) if left == 0 => {}
                Kind::Of(output) if length > 0 => {
                    self.open = Some((kind, left - length)).filter(|(_, left)| *left > 0);
                    return Ok(Some((output, self.buffer.split_to(length).freeze())));
                }
                _ => {
                    self.open = Some((kind, left));
                    return Ok(None);
                }
            }
        }
    }

    /// All that is here, as a text: what is said where there should be a program.
    pub fn text(&mut self) -> String {
        let mut text = Vec::new();
        loop {
            match self.piece() {
                Ok(Some((_, data))) => text.extend_from_slice(&data),
                Ok(None) => {
                    // The beginning of something longer.
                    if self.open.is_some() {
                        text.extend_from_slice(&self.buffer);
                    }
                    break;
                }
                // Some engines say it without a frame.
                Err(Torn::Unknown(_)) if text.is_empty() => {
                    text.extend_from_slice(&self.buffer);
                    break;
                }
                Err(torn) => {
                    text.extend_from_slice(torn.to_string().as_bytes());
                    break;
                }
            }
        }
        String::from_utf8_lossy(&text).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, data: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind, 0, 0, 0];
        frame.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        frame.extend(data);
        frame
    }

    /// What each output got, pieces of one put together.
    fn read<'a>(
        frames: &mut Frames,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<(OutputStream, Vec<u8>)>, Torn> {
        let mut all: Vec<(OutputStream, Vec<u8>)> = Vec::new();
        for piece in pieces {
            frames.buffer().extend_from_slice(piece);
            while let Some((output, data)) = frames.piece()? {
                push(&mut all, output, &data);
            }
        }
        Ok(all)
    }

    fn push(all: &mut Vec<(OutputStream, Vec<u8>)>, output: OutputStream, data: &[u8]) {
        match all.last_mut() {
            Some((last, all)) if *last == output => all.extend_from_slice(data),
            _ => all.push((output, data.to_vec())),
        }
    }

    proptest! {
        #[test]
        fn every_byte_comes_however_it_is_cut(
            texts in prop::collection::vec((0..3_u8, prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            size in 1_usize..64,
        ) {
            let stream: Vec<u8> = texts.iter().flat_map(|(kind, data)| frame(*kind, data)).collect();
            let mut expected = Vec::new();
            for (kind, data) in texts.iter().filter(|(_, data)| !data.is_empty()) {
                push(&mut expected, if *kind == 2 { OutputStream::Stderr } else { OutputStream::Stdout }, data);
            }
            prop_assert_eq!(read(&mut Frames::new(false), stream.chunks(size)), Ok(expected));
        }

        #[test]
        fn a_terminal_is_never_taken_for_frames(bytes in prop::collection::vec(0..4_u8, 1..40)) {
            let found = read(&mut Frames::new(true), [&bytes[..]]);
            prop_assert_eq!(found, Ok(vec![(OutputStream::Stdout, bytes)]));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&mut Frames::new(false), [&bytes[..]]);
        }

        #[test]
        fn what_the_engine_says_itself_is_told_however_it_is_cut(said in "[a-z]{0,40}", size in 1_usize..20) {
            let stream = [frame(1, b"before"), frame(3, said.as_bytes())].concat();
            prop_assert_eq!(read(&mut Frames::new(false), stream.chunks(size)), Err(Torn::Told(said)));
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert_eq!(read(&mut Frames::new(false), [&[9; 8][..]]), Err(Torn::Unknown(9)));
    }

    #[test]
    fn long_pieces_are_cut_and_long_words_are_cut_off() {
        let long = vec![b'x'; 3 * MAX_PIECE_BYTES];
        let mut frames = Frames::new(false);
        frames.buffer().extend_from_slice(&frame(2, &long));
        let pieces: Vec<_> = std::iter::from_fn(|| frames.piece().unwrap()).map(|(_, data)| data.len()).collect();
        assert_eq!(pieces, [MAX_PIECE_BYTES; 3]);
        let told = read(&mut Frames::new(false), [&frame(3, &long)[..]]);
        assert_eq!(told, Err(Torn::Told("x".repeat(MAX_TOLD_BYTES))));
    }

    #[test]
    fn a_text_is_all_that_is_here() {
        let mut frames = Frames::new(false);
        frames.buffer().extend_from_slice(&[frame(1, b" no such"), frame(2, b" file\n"), frame(3, b"why")].concat());
        assert_eq!(frames.text(), "no such file\nthe engine broke its stream off: why");
        for (bytes, text) in [
            (b"OCI runtime exec failed\n".to_vec(), "OCI runtime exec failed"),
            (frame(3, b"half")[..10].to_vec(), "ha"),
        ] {
            let mut frames = Frames::new(false);
            frames.buffer().extend_from_slice(&bytes);
            assert_eq!(frames.text(), text);
        }
    }
}
