//! Metrics on a Unix socket of their own: HTTP/1.1, `GET /metrics`, the text form of Prometheus (OpenMetrics 1.0).

mod spans;
#[cfg_attr(windows, path = "system_windows.rs")]
mod system;
mod text;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::Semaphore, time::timeout};

use super::{calls::Calls, listener::ControlSocket, peer::PeerStream, tally::Tally};
use crate::{core::Brokers, model::error::Result};
use text::Now;

pub use spans::SpanCounts;

/// Readers at a time; more wait.
const MAX_READERS: usize = 8;
/// How long a reader may take.
const READER_LIMIT: Duration = Duration::from_secs(30);
/// How long a request may take to come.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Where the numbers come from.
pub(super) struct Sources {
    pub(super) brokers: Arc<Brokers>,
    pub(super) calls: Calls,
    pub(super) tally: Arc<Tally>,
    pub(super) spans: Arc<SpanCounts>,
}

/// Tells whoever asks, for good; the socket goes with it. Who may not call may not ask either.
pub(super) async fn serve(socket: ControlSocket, sources: Sources) {
    let (sources, readers) = (Arc::new(sources), Arc::new(Semaphore::new(MAX_READERS)));
    loop {
        let Ok(reader) = Arc::clone(&readers).acquire_owned().await else { return };
        let stream = PeerStream::new(socket.accept().await, &sources.brokers);
        if stream.is_refused() && readers.available_permits() < MAX_READERS / 2 {
            // Who may not read shall not keep those from reading who may.
            continue;
        }
        let (sources, is_refused) = (Arc::clone(&sources), stream.is_refused());
        let answer = service_fn(move |request: Request<Incoming>| {
            let sources = Arc::clone(&sources);
            async move { Ok::<_, Infallible>(answer(&sources, &request, is_refused).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_LIMIT)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(async move {
            // A reader that goes is no failure.
            let _ = timeout(READER_LIMIT, connection).await;
            drop(reader);
        });
    }
}

async fn answer(sources: &Sources, request: &Request<Incoming>, is_refused: bool) -> Response<Full<Bytes>> {
    let (status, form, text) = match (is_refused, request.uri().path(), request.method()) {
        (true, ..) => (StatusCode::FORBIDDEN, PLAIN, "metrics are for the user of this broker\n".to_owned()),
        (_, "/metrics", &Method::GET) => match sources.text().await {
            Ok(text) => (StatusCode::OK, OPEN_METRICS, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
        },
        (_, "/metrics", _) => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, PLAIN, "metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(form));
    response
}

impl Sources {
    async fn text(&self) -> Result<String> {
        let now = Now {
            stats: self.brokers.stats().await,
            in_flight: self.calls.open(),
            tally: Arc::clone(&self.tally),
            spans: Arc::clone(&self.spans),
            process: system::ask(),
        };
        text::of(now)
    }
}
