//! One request, one whole answer.

use std::future::Future;

use tokio::net::UnixStream;

use super::{Exchange, Limits, Request, RequestHead, Response, Route, response, upload::Upload};
use crate::model::error::Result;

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
    let response = response::collect(backend, &mut exchange, limits.max_body_bytes).await?;
    exchange.settle().await;
    Ok(response)
}
