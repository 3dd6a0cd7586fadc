//! One request and its answer, both piece by piece and both at once.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use hyper::body::Incoming;
use tokio::{
    net::UnixStream,
    time::{Instant, Sleep, sleep, timeout},
};

use super::{
    Head, HeaderLine, Limits, Pool, RequestHead,
    clock::{Clock, Watch},
    connection::Connection,
    failure, headers,
    progress::Progress,
    request, response,
    tunnel::Tunnel,
    upload::Upload,
};
use crate::model::error::{Error, Reason, Result};

/// How long a backend that has answered may go on without taking more of the request body.
const LATE_READER: Duration = Duration::from_millis(250);
/// Interim heads that wait for the caller; a backend that sends more of them faster is not worth listening to.
const MAX_INTERIM: usize = 64;

/// How a backend is reached.
pub struct Route<'a, D> {
    /// Whom failures concern.
    pub backend: &'a str,
    /// Connections that can be used again.
    pub pool: Option<&'a Arc<Pool>>,
    /// Makes a connection.
    pub dial: D,
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

/// An exchange under way. Dropping it closes its connection at once, unless it is complete.
pub struct Exchange {
    backend: Arc<str>,
    /// `None` once it was given back or ended.
    connection: Option<Box<Connection>>,
    pool: Option<Arc<Pool>>,
    progress: Arc<Progress>,
    upload: Upload,
    clock: Clock,
    interim: Arc<Interim>,
    may_switch: bool,
    announced: Option<u64>,
    state: State,
}

enum State {
    /// Nothing has come but interim answers.
    Waiting(Answer),
    /// No head will come, and why is not told yet.
    Failed(Box<Error>),
    /// The head is there and not told yet.
    Headed(Box<http::Response<Incoming>>),
    Body(Incoming, response::Framing),
    /// The answer is complete; the rest of the request may still be wanted.
    Ended(Option<Pin<Box<Sleep>>>),
    Over,
}

type Answer = Pin<Box<dyn Future<Output = hyper::Result<http::Response<Incoming>>> + Send>>;

/// Interim answers that came and are not told yet.
#[derive(Default)]
struct Interim(Mutex<VecDeque<Head>>);

impl Exchange {
    /// Sends a request, and waits until something of the answer is there. A request on a connection that had been used
    /// before and turns out closed is sent again on a fresh one, if nothing of it had left, or if it is safe, ends with its
    /// head, and was not read to its end.
    ///
    /// # Errors
    ///
    /// Before dialling: `PATH_INVALID`, `HEADER_INVALID`, `METHOD_INVALID`. Then what `dial` says. Then
    /// `BACKEND_BROKE_BEFORE_HEAD`, `BACKEND_TOO_SLOW`, `RESPONSE_INVALID`, and what was wrong with the request's body.
    /// Each says whether any of the request was sent.
    pub async fn open<D, F>(
        route: Route<'_, D>,
        head: &RequestHead,
        upload: Upload,
        limits: &Limits,
        with_interim: bool,
    ) -> Result<Exchange>
    where
        D: Fn() -> F,
        F: Future<Output = Result<UnixStream>>,
    {
        let built = request::build(head, upload.length()).map_err(|error| error.sent(false))?;
        let mut clock = Clock::start(limits);
        let pooled = route.pool.and_then(|pool| pool.take());
        let is_reused = pooled.is_some();
        let connection = match pooled {
            Some(connection) => connection,
            // Boxed, here and below: most calls find a connection, and shall not carry the room that making one takes.
            None => Box::pin(dial(&route, &mut clock, limits)).await?,
        };
        let mut exchange = Exchange::on(&route, connection, &built, upload, clock, with_interim);
        let mut begun = exchange.first(is_reused).await;
        if is_reused && exchange.is_stale(&begun, built.is_safe()) {
            let Exchange { upload, clock, .. } = exchange;
            let mut clock = clock.again();
            let connection = Box::pin(dial(&route, &mut clock, limits)).await?;
            exchange = Exchange::on(&route, connection, &built, upload, clock, with_interim);
            begun = exchange.first(false).await;
        }
        begun.map(|()| exchange)
    }

    /// Whether the connection was of no use: nothing of the request left, so what came is no answer to it; or the backend
    /// was closing while the request came, which no look at the connection beforehand can tell. What is wrong with the
    /// request itself, or took too long, is not for another connection to mend.
    fn is_stale(&self, begun: &Result<()>, is_safe: bool) -> bool {
        let is_backends =
            |error: &Error| matches!(error.reason(), Reason::BackendBrokeBeforeHead | Reason::ResponseInvalid);
        let failed = begun.as_ref().err();
        !self.progress.sent() && failed.is_none_or(is_backends)
            || is_safe && self.progress.is_ignored() && failed.is_some_and(is_backends)
    }

    fn on<D>(
        route: &Route<'_, D>,
        mut connection: Box<Connection>,
        built: &request::Built,
        upload: Upload,
        mut clock: Clock,
        with_interim: bool,
    ) -> Exchange {
        clock.connected(connection.timer.take());
        let progress = Arc::clone(connection.progress());
        progress.begin();
        let interim = Arc::<Interim>::default();
        let mut request = built.request(upload.send(Arc::clone(&progress)));
        if with_interim {
            let heard = Arc::clone(&interim);
            hyper::ext::on_informational(&mut request, move |head| {
                heard.push(Head { status: head.status().as_u16(), headers: headers::forwardable(head.headers()) });
            });
        }
        let answer = Box::pin(connection.send(request));
        Exchange {
            backend: route.backend.into(),
            connection: Some(connection),
            pool: route.pool.cloned(),
            progress,
            upload,
            clock,
            interim,
            may_switch: built.may_switch(),
            announced: None,
            state: State::Waiting(answer),
        }
    }

    /// Waits until there is something to tell, or until it is clear that nothing will come of a reused connection.
    async fn first(&mut self, is_reused: bool) -> Result<()> {
        poll_fn(|cx| {
            if let Poll::Ready(error) = self.upload.poll_excess(cx) {
                return Poll::Ready(Err(error.sent(self.progress.sent())));
            }
            let answered = self.poll_answer(cx);
            let is_deaf = is_reused && self.progress.is_write_broken() && !self.progress.sent();
            if !self.interim.is_empty() || is_deaf {
                return Poll::Ready(Ok(()));
            }
            ready!(answered);
            match std::mem::replace(&mut self.state, State::Over) {
                State::Failed(error) => Poll::Ready(Err(*error)),
                other => {
                    self.state = other;
                    Poll::Ready(Ok(()))
                }
            }
        })
        .await
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
        let next = match self.upload.poll_excess(cx) {
            Poll::Ready(error) => Poll::Ready(Some(Err(error.sent(self.progress.sent())))),
            Poll::Pending => self.poll_part(cx),
        };
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            self.state = State::Over;
            self.connection = None;
        }
        next
    }

    /// How long the body will be, once the head was told, where that is known.
    pub fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// The bare stream of a backend that switched protocols; asked for after its head, a 101, was told.
    ///
    /// # Errors
    ///
    /// Only bugs.
    pub async fn into_tunnel(mut self) -> Result<Tunnel> {
        let connection = self.connection.take().ok_or_else(|| Error::bug("a tunnel without a connection"))?;
        let (stream, ahead) = connection.into_stream().await;
        self.progress.switched();
        Ok(Tunnel::new(stream, ahead, Watch { backend: self.backend, clock: self.clock, progress: self.progress }))
    }

    /// Waits, for a moment, until a backend that answered early has taken the body that it was sent.
    pub(super) async fn settle(mut self) {
        if self.progress.write_pending()
            && let Some(connection) = &mut self.connection
        {
            let _ = timeout(LATE_READER, poll_fn(|cx| connection.poll_flush(cx))).await;
        }
        self.give_back();
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part>>> {
        loop {
            let answered = self.poll_answer(cx);
            if let Some(head) = self.interim.pop() {
                return Poll::Ready(Some(Ok(Part::Interim(head))));
            }
            ready!(answered);
            match std::mem::replace(&mut self.state, State::Over) {
                State::Failed(error) => return Poll::Ready(Some(Err(*error))),
                State::Headed(response) => return Poll::Ready(Some(self.head(*response))),
                State::Body(body, framing) => {
                    let (body, part) = self.poll_body(cx, body, framing);
                    self.state = body;
                    return part;
                }
                State::Ended(patience) => return self.poll_ended(cx, patience).map(|()| None),
                State::Over => return Poll::Ready(None),
                waiting @ State::Waiting(_) => self.state = waiting,
            }
        }
    }

    /// Moves bytes until the head is there, or never will be.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Waiting(answer) = &mut self.state else { return Poll::Ready(()) };
        if let Some(connection) = &mut self.connection {
            connection.poll_bytes(cx);
        }
        self.state = match answer.as_mut().poll(cx) {
            Poll::Pending => State::Failed(Box::new(ready!(self.clock.poll_passed(&self.backend, &self.progress, cx)))),
            Poll::Ready(Ok(response)) => {
                self.progress.head_seen();
                State::Headed(Box::new(response))
            }
            Poll::Ready(Err(error)) => State::Failed(Box::new(match self.upload.take_failure() {
                Some(wrong) => wrong.sent(self.progress.sent()),
                None => failure::before_head(&self.backend, error, &self.progress),
            })),
        };
        Poll::Ready(())
    }

    fn head(&mut self, response: http::Response<Incoming>) -> Result<Part> {
        let (head, body) = response.into_parts();
        let framing = response::Framing::of(&self.backend, &head, &body, self.may_switch)?;
        self.announced = framing.announced();
        let told = Head { status: head.status.as_u16(), headers: headers::forwardable(&head.headers) };
        self.state =
            if head.status == StatusCode::SWITCHING_PROTOCOLS { State::Over } else { State::Body(body, framing) };
        Ok(Part::Head(told))
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        mut body: Incoming,
        mut framing: response::Framing,
    ) -> (State, Poll<Option<Result<Part>>>) {
        let mut asked = false;
        // A body that always has more is never waited for.
        if let Some(error) = self.clock.spent(&self.backend, &self.progress) {
            return (State::Over, Poll::Ready(Some(Err(error))));
        }
        loop {
            if let Some(connection) = &mut self.connection {
                connection.poll_bytes(cx);
            }
            let frame = match Pin::new(&mut body).poll_frame(cx) {
                // The connection gives out nothing before it was asked; it may have it at hand.
                Poll::Pending if !std::mem::replace(&mut asked, true) => continue,
                Poll::Pending => {
                    let passed = self.clock.poll_passed(&self.backend, &self.progress, cx);
                    return (State::Body(body, framing), passed.map(|error| Some(Err(error))));
                }
                Poll::Ready(frame) => frame,
            };
            let part = match frame {
                None => framing.end(&self.backend).map(Part::End),
                Some(Err(error)) => Err(match self.upload.take_failure() {
                    Some(wrong) => wrong.sent(true),
                    None => failure::in_body(&self.backend, error),
                }),
                Some(Ok(frame)) => match framing.take(frame) {
                    Some(data) => Ok(Part::Data(data)),
                    None => continue,
                },
            };
            let state = match &part {
                Ok(Part::End(_)) => State::Ended(None),
                Ok(_) => State::Body(body, framing),
                Err(_) => State::Over,
            };
            return (state, Poll::Ready(Some(part)));
        }
    }

    /// A backend may answer before it has read the whole request, and want the rest all the same: it is sent as long as
    /// it is taken. One that does not take any for a moment has lost interest.
    fn poll_ended(&mut self, cx: &mut Context<'_>, patience: Option<Pin<Box<Sleep>>>) -> Poll<()> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(()) };
        connection.poll_bytes(cx);
        if connection.is_over() || self.upload.is_over() && !self.progress.write_pending() {
            self.give_back();
            return Poll::Ready(());
        }
        // The answer is complete: who asked has what they asked for, however long the rest of the request takes.
        if self.progress.is_write_broken() || self.clock.poll_passed(&self.backend, &self.progress, cx).is_ready() {
            return Poll::Ready(());
        }
        let mut patience = match patience {
            Some(patience) => patience,
            None => Box::pin(sleep(LATE_READER)),
        };
        if !self.progress.write_pending() {
            patience.as_mut().reset(Instant::now() + LATE_READER);
        }
        let lost = self.progress.write_pending() && patience.as_mut().poll(cx).is_ready();
        self.state = State::Ended(Some(patience));
        if lost { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Gives the connection back, where it can be used again.
    fn give_back(&mut self) {
        let (Some(mut connection), Some(pool)) = (self.connection.take(), &self.pool) else { return };
        if self.upload.is_over() && connection.is_idle() {
            connection.timer = self.clock.take_timer();
            pool.put(connection);
        }
    }
}

async fn dial<D, F>(route: &Route<'_, D>, clock: &mut Clock, limits: &Limits) -> Result<Box<Connection>>
where
    D: Fn() -> F,
    F: Future<Output = Result<UnixStream>>,
{
    let progress = Arc::<Progress>::default();
    let dialled = async {
        let stream = timeout(limits.connect, (route.dial)())
            .await
            .map_err(|_| failure::too_slow(route.backend, limits.connect, &progress))?;
        stream.map_err(|error| error.sent(false))
    };
    let stream = clock.hold(route.backend, &progress, dialled).await?;
    progress.connected();
    let opened = Connection::open(stream, progress).await;
    opened
        .map(Box::new)
        .map_err(|error| Error::bug("the http client refuses a fresh connection").caused_by(error).sent(false))
}

// === impl Interim ===

impl Interim {
    fn push(&self, head: Head) {
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heads.len() < MAX_INTERIM {
            heads.push_back(head);
        }
    }

    fn pop(&self) -> Option<Head> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}
