//! Reading one whole answer, within its limit.

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
    response::Parts,
};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{
    Response,
    failure::{broke_in_body, in_body, invalid},
    headers,
};
use crate::model::error::{Detail, Error, Reason, Result};

/// Reads the body and trailers of `response`.
///
/// # Errors
///
/// `RESPONSE_INVALID`, `BODY_TOO_LARGE` with the head, `BACKEND_BROKE_IN_BODY`; all with `sent = true`.
pub(super) async fn collect(
    backend: &str,
    response: http::Response<Incoming>,
    max_body_bytes: u64,
) -> Result<Response> {
    let (head, mut body) = response.into_parts();
    check_head(backend, &head, &body)?;
    let announced = body.size_hint().exact();
    let over = |bytes: u64| bytes > max_body_bytes;
    if announced.is_some_and(over) {
        return Err(too_large(backend, &head, max_body_bytes));
    }
    let mut content = Content::new(announced);
    let mut trailers = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| in_body(backend, error))?.into_data() {
            Ok(chunk) if over(content.len() + chunk.len() as u64) => {
                return Err(too_large(backend, &head, max_body_bytes));
            }
            Ok(chunk) => content.push(chunk),
            Err(frame) => trailers = frame.trailers_ref().map(trailer_lines).unwrap_or_default(),
        }
    }
    if announced.is_some_and(|bytes| bytes != content.len()) {
        return Err(broke_in_body(backend));
    }
    let headers = headers::forwardable(&head.headers);
    Ok(Response { status: head.status.as_u16(), headers, body: content.finish(), trailers })
}

/// Refuses heads that a second reader could frame differently (RFC 9112 6.3), or that end HTTP.
fn check_head(backend: &str, head: &Parts, body: &Incoming) -> Result<()> {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
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

fn trailer_lines(trailers: &HeaderMap) -> Vec<super::HeaderLine> {
    let mut lines = headers::forwardable(trailers);
    // RFC 9110 6.5.1: what frames the message means nothing after it.
    lines.retain(|line| line.name != CONTENT_LENGTH.as_str());
    lines
}

fn too_large(backend: &str, head: &Parts, max_body_bytes: u64) -> Error {
    let message = format!("the response body is larger than {max_body_bytes} bytes; raise max_body_bytes");
    let lines = headers::forwardable(&head.headers).into_iter();
    let headers = lines.map(|line| (line.name, line.value.to_vec())).collect();
    Error::new(Reason::BodyTooLarge, backend, message)
        .with_detail(Detail::ResponseHead { status: head.status.as_u16(), headers, max_body_bytes })
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
