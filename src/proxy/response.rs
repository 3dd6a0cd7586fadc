//! What an answer must keep to, and reading a whole one within its limit.

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
    response::Parts,
};
use http_body::{Body, Frame};
use hyper::body::Incoming;

use super::{
    Exchange, HeaderLine, Part, Response,
    failure::{broke_in_body, invalid},
    headers,
};
use crate::model::error::{Detail, Error, Reason, Result};

/// How the body of one answer ends, and what must be true when it has.
pub(super) struct Framing {
    announced: Option<u64>,
    came: u64,
    trailers: Vec<HeaderLine>,
}

impl Framing {
    /// By the head. `may_switch`: the request asked for another protocol.
    ///
    /// # Errors
    ///
    /// `RESPONSE_INVALID` with `sent = true`.
    pub(super) fn of(backend: &str, head: &Parts, body: &Incoming, may_switch: bool) -> Result<Framing> {
        check_head(backend, head, body, may_switch)?;
        Ok(Framing { announced: body.size_hint().exact(), came: 0, trailers: Vec::new() })
    }

    /// How many bytes will come, where that was said.
    pub(super) fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// Takes note of a frame; gives its data.
    pub(super) fn take(&mut self, frame: Frame<Bytes>) -> Option<Bytes> {
        match frame.into_data() {
            Ok(data) => {
                self.came += data.len() as u64;
                Some(data)
            }
            Err(frame) => {
                self.trailers = frame.trailers_ref().map(trailer_lines).unwrap_or_default();
                None
            }
        }
    }

    /// The body is over; its trailers.
    ///
    /// # Errors
    ///
    /// `BACKEND_BROKE_IN_BODY` with `sent = true`.
    pub(super) fn end(&mut self, backend: &str) -> Result<Vec<HeaderLine>> {
        if self.announced.is_some_and(|bytes| bytes != self.came) {
            return Err(broke_in_body(backend));
        }
        Ok(std::mem::take(&mut self.trailers))
    }
}

/// Reads the rest of an answer into memory.
///
/// # Errors
///
/// `RESPONSE_INVALID`, `BODY_TOO_LARGE` with the head, `BACKEND_BROKE_IN_BODY`; all with `sent = true`.
pub(super) async fn collect(backend: &str, exchange: &mut Exchange, max_body_bytes: u64) -> Result<Response> {
    let mut response = Response { status: 0, headers: Vec::new(), body: Bytes::new(), trailers: Vec::new() };
    let mut content = Content::new(None);
    while let Some(part) = exchange.next().await {
        match part? {
            Part::Interim(_) => {}
            Part::Head(head) => {
                (response.status, response.headers) = (head.status, head.headers);
                content = Content::new(exchange.announced());
                if exchange.announced().is_some_and(|bytes| bytes > max_body_bytes) {
                    return Err(too_large(backend, response, max_body_bytes));
                }
            }
            Part::Data(chunk) if content.len() + chunk.len() as u64 > max_body_bytes => {
                return Err(too_large(backend, response, max_body_bytes));
            }
            Part::Data(chunk) => content.push(chunk),
            Part::End(trailers) => {
                (response.trailers, response.body) = (trailers, content.finish());
                return Ok(response);
            }
        }
    }
    Err(Error::bug("an answer ended without its end"))
}

/// Refuses heads that a second reader could frame differently (RFC 9112 6.3), or that end HTTP.
fn check_head(backend: &str, head: &Parts, body: &Incoming, may_switch: bool) -> Result<()> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS && !may_switch {
        return Err(invalid(backend, "the backend switches protocols (101), for which the request did not ask"));
    }
    if body.is_end_stream() || !head.headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    if head.headers.contains_key(CONTENT_LENGTH) {
        return Err(invalid(backend, "the response has both Content-Length and Transfer-Encoding; send one of them"));
    }
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !chunked || codings.next().is_some() {
        return Err(invalid(backend, "the response has a Transfer-Encoding other than chunked; send chunked alone"));
    }
    Ok(())
}

fn trailer_lines(trailers: &HeaderMap) -> Vec<HeaderLine> {
    let mut lines = headers::forwardable(trailers);
    // RFC 9110 6.5.1: what frames the message means nothing after it.
    lines.retain(|line| line.name != CONTENT_LENGTH.as_str());
    lines
}

fn too_large(backend: &str, head: Response, max_body_bytes: u64) -> Error {
    let message = format!("the response body is larger than {max_body_bytes} bytes; raise max_body_bytes");
    let headers = head.headers.into_iter().map(|line| (line.name, line.value.to_vec())).collect();
    Error::new(Reason::BodyTooLarge, backend, message)
        .with_detail(Detail::BodyTooLarge { status: head.status, headers, max_body_bytes })
        .sent(true)
}

/// A body as it grows. A body of one chunk is never copied; more are, since tiny chunks would each pin a read buffer.
struct Content {
    first: Bytes,
    joined: BytesMut,
    announced: Option<u64>,
}

impl Content {
    fn new(announced: Option<u64>) -> Self {
        Content { first: Bytes::new(), joined: BytesMut::new(), announced }
    }

    fn len(&self) -> u64 {
        (self.first.len() + self.joined.len()) as u64
    }

    fn push(&mut self, chunk: Bytes) {
        if self.len() == 0 {
            self.first = chunk;
            return;
        }
        if self.joined.is_empty() {
            // The announced length is within the limit, but only a promise: what has come may only double at once.
            let announced = self.announced.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
            self.joined.reserve(announced.min(1 << 20).max(self.first.len() + chunk.len()));
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&chunk);
    }

    fn finish(self) -> Bytes {
        if self.joined.is_empty() { self.first } else { self.joined.freeze() }
    }
}
