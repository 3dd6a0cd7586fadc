//! The engine's stream of an exec: framed where there are two outputs, raw at a terminal, as was asked for and never as
//! the bytes look (lessons 1.8). A frame is passed on as it comes, however long it says it is.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of the header before each frame: the output, three of nothing, and a length (big endian).
const HEADER_BYTES: usize = 8;

/// Takes the stream apart.
#[derive(Debug)]
pub(in crate::exec) struct Frames {
    is_raw: bool,
    buffer: BytesMut,
    /// Of the frame being read: its output, and how many bytes are still to come.
    open: Option<(usize, usize)>,
}

/// The stream is none.
#[derive(Debug)]
pub(in crate::exec) struct Malformed;

impl Frames {
    pub(in crate::exec) fn new(is_raw: bool) -> Self {
        Frames { is_raw, buffer: BytesMut::new(), open: None }
    }

    /// Room for what is read next.
    pub(in crate::exec) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next piece and its output, 0 or 1; `None` when more has to be read first.
    pub(in crate::exec) fn next(&mut self) -> Result<Option<(usize, Bytes)>, Malformed> {
        loop {
            let (output, left) = match (self.is_raw, self.open) {
                (true, _) => (0, self.buffer.len()),
                (false, Some(open)) => open,
                (false, None) => {
                    let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
                    let output = match header[0] {
                        // Some engines call what they say themselves the input's.
                        0 | 1 => 0,
                        2 => 1,
                        _ => return Err(Malformed),
                    };
                    let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                    self.buffer.advance(HEADER_BYTES);
                    self.open = Some((output, length as usize));
                    continue;
                }
            };
            let length = left.min(self.buffer.len());
            if length == 0 {
                let is_over = self.open.take_if(|(_, left)| *left == 0).is_some();
                if is_over {
                    continue;
                }
                return Ok(None);
            }
            self.open = self.open.map(|(output, left)| (output, left - length)).filter(|(_, left)| *left > 0);
            return Ok(Some((output, self.buffer.split_to(length).freeze())));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(output: u8, data: &[u8]) -> Vec<u8> {
        let mut frame = vec![output, 0, 0, 0];
        frame.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        frame.extend(data);
        frame
    }

    fn read(frames: &mut Frames, out: &mut [Vec<u8>; 2]) {
        while let Some((output, data)) = frames.next().unwrap() {
            out[output].extend_from_slice(&data);
        }
    }

    proptest! {
        #[test]
        fn every_byte_comes_however_it_is_cut(
            pieces in proptest::collection::vec((1..3u8, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
            cut in 1..20usize,
        ) {
            let bytes: Vec<u8> = pieces.iter().flat_map(|(output, data)| frame(*output, data)).collect();
            let (mut frames, mut out) = (Frames::new(false), [Vec::new(), Vec::new()]);
            for part in bytes.chunks(cut) {
                frames.buffer().extend_from_slice(part);
                read(&mut frames, &mut out);
            }
            for (wanted, found) in (1..3u8).zip(&out) {
                let of_it: Vec<u8> =
                    pieces.iter().filter(|(output, _)| *output == wanted).flat_map(|(_, data)| data.clone()).collect();
                prop_assert_eq!(&of_it, found);
            }
        }

        #[test]
        fn a_terminal_is_never_taken_for_frames(bytes in proptest::collection::vec(0..4u8, 1..40)) {
            let (mut frames, mut out) = (Frames::new(true), [Vec::new(), Vec::new()]);
            frames.buffer().extend_from_slice(&bytes);
            read(&mut frames, &mut out);
            prop_assert_eq!(&out[0], &bytes);
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut frames = Frames::new(false);
        frames.buffer().extend_from_slice(&[9; 8]);
        assert!(frames.next().is_err());
    }
}
