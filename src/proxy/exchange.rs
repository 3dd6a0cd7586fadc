//! One request and its answer, both piece by piece and both at once, over whichever HTTP the backend speaks.

use std::{
    future::{Future, poll_fn},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::time::timeout;

use super::{
    Head, HeaderLine, HttpLanes, Limits, Pool, RequestHead,
    connection::Connection,
    failure,
    http1::Http1,
    http2::{Http2, Via},
    progress::Progress,
    request::{self, Built},
    timer::Timer,
    upgraded::Upgraded,
    upload::Upload,
};
use crate::{local::Stream, model::error::Result};

/// How a backend is reached.
pub struct Route<'a, D> {
    /// Whom failures concern.
    pub backend: &'a str,
    /// Connections for HTTP/1.1 that can be used again.
    pub pool: Option<&'a Arc<Pool>>,
    /// Connections for HTTP/2.
    pub lanes: &'a HttpLanes,
    /// Makes a connection.
    pub dial: D,
}

/// A fresh connection, by what the backend speaks on it.
#[derive(Debug)]
pub enum Dialled {
    /// HTTP/1.1.
    Http1(Stream),
    /// HTTP/2 with prior knowledge.
    Http2(Stream),
}

/// A piece of an answer.
#[derive(Debug)]
pub enum Part {
    /// An interim answer, 1xx; any number of them comes before the head.
    Interim(Head),
    /// Status and headers.
    Head(Head),
    /// Some of the body.
    Data(Bytes),
    /// The body is complete. Comes once, after the last byte, with what trailers there were.
    End(Vec<HeaderLine>),
}

/// An exchange under way. Dropping it tells the backend at once, unless it is complete: HTTP/1.1 by closing the connection,
/// HTTP/2 by a reset of the stream.
pub struct Exchange(Kind);

#[expect(clippy::large_enum_variant, reason = "most are the large one, which shall cost no allocation more")]
enum Kind {
    Http1(Http1),
    Http2(Box<Http2>),
}

/// What is asked for, on whichever connection.
pub(super) struct Asking<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) built: Built,
    pub(super) upload: Upload,
    pub(super) timer: Timer,
    pub(super) limits: &'a Limits,
    pub(super) with_interim: bool,
}

impl Exchange {
    /// Sends a request, and waits until something of the answer is there. What a connection that had been used before
    /// lost, and the backend cannot have acted on, is sent again on a fresh one.
    ///
    /// # Errors
    ///
    /// Before dialling: `PATH_INVALID`, `HEADER_INVALID`, `METHOD_INVALID`. Then what `dial` says. Then
    /// `BACKEND_BROKE_BEFORE_HEAD`, `BACKEND_TOO_SLOW`, `RESPONSE_INVALID`, what was wrong with the request's body, and
    /// `ENDPOINT_NOT_FOUND` for another protocol over an HTTP/2 that does not offer it. Each says whether any of the
    /// request was sent.
    pub async fn open<D, F>(
        route: Route<'_, D>,
        head: &RequestHead,
        upload: Upload,
        limits: &Limits,
        with_interim: bool,
    ) -> Result<Exchange>
    where
        D: Fn() -> F,
        F: Future<Output = Result<Dialled>>,
    {
        let built = request::build(head, upload.length()).map_err(|error| error.sent(false))?;
        let timer = Timer::start(limits);
        let mut asking = Asking { head, built, upload, timer, limits, with_interim };
        if let Some(connection) = route.pool.and_then(|pool| pool.take()) {
            return Http1::open(&route, connection, true, asking).await.map(|http1| Exchange(Kind::Http1(http1)));
        }
        // Boxed, here and below: most calls find a connection for HTTP/1.1, and shall not carry the room that others take.
        if let Some((lane, place)) = route.lanes.take() {
            let opening = Http2::open(&route, Via::Lane(lane, place), asking);
            return Box::pin(opening).await.map(|http2| Exchange(Kind::Http2(Box::new(http2))));
        }
        match Box::pin(dial(&route, &mut asking.timer, limits)).await? {
            (Dialled::Http1(stream), progress) => {
                let connection = Box::new(Connection::new(stream, progress));
                Http1::open(&route, connection, false, asking).await.map(|http1| Exchange(Kind::Http1(http1)))
            }
            (Dialled::Http2(stream), _) => {
                let opening = Http2::open(&route, Via::Stream(stream), asking);
                Box::pin(opening).await.map(|http2| Exchange(Kind::Http2(Box::new(http2))))
            }
        }
    }

    /// The next piece of the answer; `None` when nothing more comes and nothing more of the request is wanted.
    ///
    /// # Errors
    ///
    /// As [`Exchange::open`], and `BACKEND_BROKE_IN_BODY`.
    pub async fn next(&mut self) -> Option<Result<Part>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// See [`Exchange::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part>>> {
        match &mut self.0 {
            Kind::Http1(http1) => http1.poll_next(cx),
            Kind::Http2(http2) => http2.poll_next(cx),
        }
    }

    /// How long the body will be, once the head was told, where that is known.
    pub fn announced(&self) -> Option<u64> {
        match &self.0 {
            Kind::Http1(http1) => http1.announced(),
            Kind::Http2(http2) => http2.announced(),
        }
    }

    /// The bare bytes of a backend that switched protocols; asked for after its head, a 101, was told.
    ///
    /// # Errors
    ///
    /// Only bugs.
    pub fn into_upgraded(self) -> Result<Upgraded> {
        match self.0 {
            Kind::Http1(http1) => http1.into_upgraded().map(Upgraded::http1),
            Kind::Http2(http2) => Ok(Upgraded::http2(http2)),
        }
    }

    /// Waits, for a moment, until a backend that answered early has taken the body that it was sent.
    pub(super) async fn settle(self) {
        match self.0 {
            Kind::Http1(http1) => http1.settle().await,
            Kind::Http2(http2) => http2.settle().await,
        }
    }
}

/// A fresh connection, within the limits.
pub(super) async fn dial<D, F>(route: &Route<'_, D>, timer: &mut Timer, limits: &Limits) -> Result<(Dialled, Progress)>
where
    D: Fn() -> F,
    F: Future<Output = Result<Dialled>>,
{
    let mut progress = route.pool.map(|pool| Progress::counted(pool.traffic())).unwrap_or_default();
    let dialled = async {
        let dialled = timeout(limits.connect, (route.dial)())
            .await
            .map_err(|_| failure::too_slow(route.backend, limits.connect, &Progress::default()))?;
        dialled.map_err(|error| error.sent(false))
    };
    let dialled = timer.hold(route.backend, &progress, dialled).await?;
    progress.connected();
    Ok((dialled, progress))
}
