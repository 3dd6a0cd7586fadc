//! Container logs, read by our own client: how they are framed follows from the container's terminal, never from a
//! guess at the bytes (lessons 1.8), and a frame is passed on as it comes, however long it says it is.

use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, stream};
use http::Request;
use http_body_util::{BodyExt, Full};

use super::{Engine, raw::Answer};
use crate::model::error::{Error, Reason, Result};

/// Longest piece that is passed on.
const MAX_PIECE_BYTES: usize = 64 * 1024;
/// Bytes of the header before each frame of a container without a terminal.
const HEADER_BYTES: usize = 8;

/// Which container's log, and how it is framed.
#[derive(Debug, Clone)]
pub struct LogSource {
    /// Container id.
    pub id: String,
    /// Whether it has a terminal: then the log is raw.
    pub tty: bool,
}

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on until the container stops.
    pub follow: bool,
    /// Only so many last lines.
    pub tail: Option<u32>,
    /// Only what came after, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// With the engine's time stamps.
    pub timestamps: bool,
}

/// A piece of log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Standard error rather than standard output.
    pub stderr: bool,
    /// The bytes.
    pub data: Bytes,
}

/// Opens a container's log.
///
/// Errors: ENGINE_UNAVAILABLE, RESOURCE_NOT_FOUND, ENGINE_REFUSED; the same within the stream.
pub async fn logs(
    engine: &Engine,
    source: LogSource,
    options: LogOptions,
) -> Result<Pin<Box<dyn Stream<Item = Result<LogChunk>> + Send>>> {
    let request = Request::get(path(&source.id, &options)).body(Full::default());
    let request = request.map_err(|e| Error::bug("cannot put the request for a log together").caused_by(e))?;
    let answer = engine.ask(&source.id, request).await?;
    let reader = Reader { engine: engine.clone(), answer, frames: Frames::new(source.tty), id: source.id };
    Ok(Box::pin(stream::try_unfold(reader, |mut reader| async move {
        loop {
            if let Some(chunk) = reader.frames.next()? {
                return Ok(Some((chunk, reader)));
            }
            match reader.answer.body.frame().await {
                Some(Ok(frame)) => reader.frames.feed(frame.into_data().unwrap_or_default()),
                Some(Err(e)) => return Err(reader.engine.away(&reader.id, &e)),
                None => return Ok(None),
            }
        }
    })))
}

struct Reader {
    engine: Engine,
    answer: Answer,
    frames: Frames,
    id: String,
}

fn path(id: &str, options: &LogOptions) -> String {
    let tail = options.tail.map_or("all".to_owned(), |lines| lines.to_string());
    let since = options.since_ms.map_or(String::new(), |ms| format!("&since={}.{:03}", ms / 1000, ms % 1000));
    format!(
        "/containers/{id}/logs?stdout=1&stderr=1&follow={}&tail={tail}&timestamps={}{since}",
        u8::from(options.follow),
        u8::from(options.timestamps)
    )
}

/// Takes the engine's stream apart.
#[derive(Debug)]
struct Frames {
    tty: bool,
    buffer: BytesMut,
    /// Of the frame being read: its output, and what is still to come.
    open: Option<(bool, usize)>,
}

impl Frames {
    fn new(tty: bool) -> Self {
        Frames { tty, buffer: BytesMut::new(), open: None }
    }

    fn feed(&mut self, data: Bytes) {
        self.buffer.extend_from_slice(&data);
    }

    /// The next piece, or `None` when more has to be fed first.
    fn next(&mut self) -> Result<Option<LogChunk>> {
        loop {
            let (stderr, left) = match (self.tty, self.open) {
                (true, _) => (false, self.buffer.len()),
                (false, Some(open)) => open,
                (false, None) if self.buffer.len() < HEADER_BYTES => return Ok(None),
                (false, None) => {
                    let kind = self.buffer.get_u8();
                    self.buffer.advance(3);
                    let length = self.buffer.get_u32() as usize;
                    if kind > 2 {
                        let message = format!("the engine's log has a frame of the unknown kind {kind}");
                        return Err(Error::new(Reason::EngineRefused, "", message));
                    }
                    self.open = Some((kind == 2, length)).filter(|(_, length)| *length > 0);
                    continue;
                }
            };
            let take = left.min(self.buffer.len()).min(MAX_PIECE_BYTES);
            if take == 0 {
                return Ok(None);
            }
            self.open = Some((stderr, left - take)).filter(|(_, left)| *left > 0 && !self.tty);
            return Ok(Some(LogChunk { stderr, data: self.buffer.split_to(take).freeze() }));
        }
    }
}

/// What the engine's stream `bytes` holds when it comes in pieces of `size`; for fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn taken_apart(bytes: &[u8], size: usize) -> (Vec<u8>, bool) {
    let (mut frames, mut all) = (Frames::new(false), Vec::new());
    for piece in bytes.chunks(size) {
        frames.feed(Bytes::copy_from_slice(piece));
        loop {
            match frames.next() {
                Ok(Some(chunk)) => all.extend_from_slice(&chunk.data),
                Ok(None) => break,
                Err(_) => return (all, false),
            }
        }
    }
    (all, true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, data: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 0, 0, 0];
        out.extend((data.len() as u32).to_be_bytes());
        out.extend(data);
        out
    }

    fn read(frames: &mut Frames, pieces: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
        let mut all: Vec<(bool, Vec<u8>)> = Vec::new();
        for piece in pieces {
            frames.feed(Bytes::copy_from_slice(piece));
            while let Some(chunk) = frames.next().unwrap() {
                match all.last_mut() {
                    Some((stderr, data)) if *stderr == chunk.stderr => data.extend(&chunk.data),
                    _ => all.push((chunk.stderr, chunk.data.to_vec())),
                }
            }
        }
        all
    }

    #[test]
    fn a_terminal_is_raw_whatever_its_first_byte() {
        let bytes = [1, 0, 0, 0, 255, 255, 255, 255, b'x'];
        assert_eq!(read(&mut Frames::new(true), &[&bytes]), vec![(false, bytes.to_vec())]);
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            texts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            size in 1_usize..64,
        ) {
            let stream: Vec<u8> =
                texts.iter().flat_map(|(stderr, data)| frame(1 + u8::from(*stderr), data)).collect();
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            let mut expected: Vec<(bool, Vec<u8>)> = Vec::new();
            for (stderr, data) in texts.into_iter().filter(|(_, data)| !data.is_empty()) {
                match expected.last_mut() {
                    Some((last, all)) if *last == stderr => all.extend(data),
                    _ => expected.push((stderr, data)),
                }
            }
            prop_assert_eq!(read(&mut Frames::new(false), &pieces), expected);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut frames = Frames::new(false);
            frames.feed(bytes.into());
            while let Ok(Some(_)) = frames.next() {}
        }
    }
}
