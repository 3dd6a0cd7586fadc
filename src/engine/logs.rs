//! Container logs.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use super::Engine;
use crate::{
    dockerd::{Dockerd, Frames, OutputStream},
    model::error::{Error, Reason, Result},
};

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
/// # Errors
///
/// `ENGINE_UNAVAILABLE`, `RESOURCE_NOT_FOUND`, `ENGINE_REFUSED`; the same within the stream.
pub async fn logs(
    engine: &Engine,
    source: LogSource,
    options: LogOptions,
) -> Result<Pin<Box<dyn Stream<Item = Result<LogChunk>> + Send>>> {
    let request = Request::get(path(&source.id, &options)).body(Full::default());
    let request = request.map_err(|e| Error::bug("cannot put the request for a log together").caused_by(e))?;
    let body = engine.dockerd.body(&source.id, request).await?;
    let frames = Frames::new(source.tty);
    let reader = Reader { dockerd: engine.dockerd.clone(), body, frames, id: source.id };
    Ok(Box::pin(stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|chunk| (chunk, reader)))
    })))
}

struct Reader {
    dockerd: Dockerd,
    body: Incoming,
    frames: Frames,
    id: String,
}

impl Reader {
    /// `None` at the log's end.
    async fn next(&mut self) -> Result<Option<LogChunk>> {
        loop {
            let piece = self.frames.piece();
            let piece = piece.map_err(|torn| Error::new(Reason::EngineRefused, &self.id, torn.to_string()))?;
            if let Some((output, data)) = piece {
                return Ok(Some(LogChunk { stderr: output == OutputStream::Stderr, data }));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.frames.buffer().extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(self.dockerd.away(&self.id, &error)),
                None => return Ok(None),
            }
        }
    }
}

fn path(id: &str, options: &LogOptions) -> String {
    let tail = options.tail.map_or("all".to_owned(), |lines| lines.to_string());
    // Before 1970 there is nothing, and the engine counts from there.
    let since = options.since_ms.filter(|ms| *ms > 0);
    let since = since.map_or(String::new(), |ms| format!("&since={}.{:03}", ms / 1000, ms % 1000));
    format!(
        "/containers/{id}/logs?stdout=1&stderr=1&follow={}&tail={tail}&timestamps={}{since}",
        u8::from(options.follow),
        u8::from(options.timestamps)
    )
}
