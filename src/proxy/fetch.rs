//! One request, one whole answer.

use std::future::Future;

use bytes::{Bytes, BytesMut};
use tokio::net::UnixStream;

use super::{Exchange, Limits, Part, Request, RequestHead, Response, Route, upload::Upload};
use crate::model::error::{Detail, Error, Reason, Result};

/// Sends `request` and reads the whole answer.
///
/// Head and a small body leave in one write: there are backends that read once. Dropping the future closes the
/// connection at once.
///
/// # Errors
///
/// Those of [`Exchange::open`], `BACKEND_BROKE_IN_BODY` and `BODY_TOO_LARGE`.
pub async fn fetch<D, F>(route: Route<'_, D>, request: Request, limits: &Limits) -> Result<Response>
where
    D: Fn() -> F,
    F: Future<Output = Result<UnixStream>>,
{
    let Request { method, path, headers, body } = request;
    let head = RequestHead { method, path, headers, ..RequestHead::default() };
    let backend = route.backend;
    let mut exchange = Exchange::open(route, &head, Upload::whole(body), limits, false).await?;
    let response = collect(backend, &mut exchange, limits.max_body_bytes).await?;
    exchange.settle().await;
    Ok(response)
}

/// Reads the rest of an answer into memory.
///
/// # Errors
///
/// `RESPONSE_INVALID`, `BODY_TOO_LARGE` with the head, `BACKEND_BROKE_IN_BODY`; all with `sent = true`.
async fn collect(backend: &str, exchange: &mut Exchange, max_body_bytes: u64) -> Result<Response> {
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
