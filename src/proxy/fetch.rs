//! One request, one whole answer.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{Limits, Request, Response, connection::Connection, failure, progress::Progress, request, response};
use crate::model::error::{Error, Result};

/// How long a backend that answered early may go on reading a body that it has not taken yet.
const LATE_READER: Duration = Duration::from_millis(250);

/// Sends `request` over a stream that `dial` makes, and reads the whole answer. `backend` is whom failures concern.
///
/// Head and a small body leave in one write: there are backends that read once. Dropping the future closes the
/// connection at once.
///
/// # Errors
///
/// Before dialling: `PATH_INVALID`, `HEADER_INVALID`, `METHOD_INVALID`. Then what `dial` says. Then
/// `BACKEND_BROKE_BEFORE_HEAD`, `BACKEND_BROKE_IN_BODY`, `BACKEND_TOO_SLOW`, `BODY_TOO_LARGE`, `RESPONSE_INVALID`. Each
/// says whether any of the request was sent.
pub async fn fetch<D, F, S>(backend: &str, dial: D, request: Request, limits: &Limits) -> Result<Response>
where
    D: FnOnce() -> F,
    F: Future<Output = Result<S>>,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = request::build(request).map_err(|error| error.sent(false))?;
    let progress = Arc::new(Progress::default());
    let exchange = exchange(backend, dial, request, limits, Arc::clone(&progress));
    let (response, mut connection) = match limits.total {
        None => exchange.await?,
        Some(total) => timeout(total, exchange).await.map_err(|_| failure::too_slow(backend, total, &progress))??,
    };
    if progress.write_pending() {
        // An answer may come before the body was read to its end, by a backend that still wants it.
        let _ = timeout(LATE_READER, connection.flush()).await;
    }
    Ok(response)
}

async fn exchange<D, F, S>(
    backend: &str,
    dial: D,
    request: http::Request<Full<Bytes>>,
    limits: &Limits,
    progress: Arc<Progress>,
) -> Result<(Response, Connection<S, Full<Bytes>>)>
where
    D: FnOnce() -> F,
    F: Future<Output = Result<S>>,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = connect(backend, dial, limits, progress).await?;
    let answer = connection.send(request);
    let progress = Arc::clone(connection.progress());
    let response = connection.drive(async {
        let response = answer.await.map_err(|error| failure::before_head(backend, error, &progress))?;
        progress.head_seen();
        response::collect(backend, response, limits.max_body_bytes).await
    });
    let response = response.await?;
    Ok((response, connection))
}

/// Where a pool will hand out idle connections of the same generation.
async fn connect<D, F, S>(
    backend: &str,
    dial: D,
    limits: &Limits,
    progress: Arc<Progress>,
) -> Result<Connection<S, Full<Bytes>>>
where
    D: FnOnce() -> F,
    F: Future<Output = Result<S>>,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = timeout(limits.connect, dial())
        .await
        .map_err(|_| failure::too_slow(backend, limits.connect, &progress))?
        .map_err(|error| error.sent(false))?;
    progress.connected();
    let opened = Connection::open(stream, progress).await;
    opened.map_err(|error| Error::bug("the http client refuses a fresh connection").caused_by(error).sent(false))
}
