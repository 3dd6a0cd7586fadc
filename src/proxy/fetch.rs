//! One request, one whole answer.

use std::future::Future;

use super::{
    Body, Dialled, Exchange, HeaderLine, Limits, Part, Request, RequestHead, Response, Route, held::Growing,
    upload::Upload,
};
use crate::model::error::{Detail, Error, Reason, Result};

/// Sends `request` and reads the whole answer.
///
/// Head and a small body leave in one write: there are backends that read once. Dropping the future closes the
/// connection at once.
///
/// # Errors
///
/// Those of [`Exchange::open`], `BACKEND_BROKE_IN_BODY`, `BODY_TOO_LARGE`, and `LIMIT_REACHED` where the memory for it runs short.
pub async fn fetch<D, F>(route: Route<'_, D>, request: Request, limits: &Limits) -> Result<Response<Body>>
where
    D: Fn() -> F,
    F: Future<Output = Result<Dialled>>,
{
    let Request { method, path, headers, body } = request;
    let head = RequestHead { method, path, headers, ..RequestHead::default() };
    let backend = route.backend;
    let mut exchange = Exchange::open(route, &head, Upload::whole(body), limits, false).await?;
    let response = collect(backend, &mut exchange, limits).await?;
    exchange.settle().await;
    Ok(response)
}

/// Reads the rest of an answer into memory.
///
/// # Errors
///
/// `RESPONSE_INVALID`, `BODY_TOO_LARGE` with the head, `BACKEND_BROKE_IN_BODY`, `LIMIT_REACHED`; all with `sent = true`.
async fn collect(backend: &str, exchange: &mut Exchange, limits: &Limits) -> Result<Response<Body>> {
    let max_body_bytes = limits.max_body_bytes;
    let (mut status, mut headers) = (0, Vec::new());
    let mut body = Growing::new(&limits.memory, backend, None);
    while let Some(part) = exchange.next().await {
        match part? {
            Part::Interim(_) => {}
            Part::Head(head) => {
                (status, headers) = (head.status, head.headers);
                body = Growing::new(&limits.memory, backend, exchange.announced());
                if exchange.announced().is_some_and(|bytes| bytes > max_body_bytes) {
                    return Err(too_large(backend, status, headers, max_body_bytes));
                }
            }
            Part::Data(chunk) if body.len() + chunk.len() as u64 > max_body_bytes => {
                return Err(too_large(backend, status, headers, max_body_bytes));
            }
            Part::Data(chunk) => body.push(chunk)?,
            Part::End(trailers) => return Ok(Response { status, headers, body: body.finish(), trailers }),
        }
    }
    Err(Error::bug("an answer ended without its end"))
}

fn too_large(backend: &str, status: u16, headers: Vec<HeaderLine>, max_body_bytes: u64) -> Error {
    let message = format!("the response body is larger than {max_body_bytes} bytes; raise max_body_bytes");
    let headers = headers.into_iter().map(|line| (line.name, line.value.to_vec())).collect();
    Error::new(Reason::BodyTooLarge, backend, message)
        .with_detail(Detail::BodyTooLarge { status, headers, max_body_bytes })
        .sent(true)
}
