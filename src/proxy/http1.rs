//! An exchange over HTTP/1.1, on a connection of its own.

use std::{
    future::{Future, poll_fn},
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::time::timeout;

use super::{
    Dialled, Head, Limits, Part, Pool, Route,
    chunks::Taken,
    connection::Connection,
    exchange::{self, Asking},
    failure, headers,
    lines::Lines,
    patience::{LATE_READER, Patience},
    progress::Progress,
    request::Built,
    response::{self, Answered, Asked, Follows, Rest, Unreadable},
    switched::Switched,
    timer::{Timer, Watch},
    upload::Upload,
};
use crate::model::error::{Error, Reason, Result};

/// An exchange under way. Dropping it closes its connection at once, unless it is complete.
pub(super) struct Http1 {
    backend: Arc<str>,
    /// `None` once it was given back or ended.
    connection: Option<Box<Connection>>,
    pool: Option<Arc<Pool>>,
    upload: Upload,
    /// The names of trailers that the request may have.
    trailers: Vec<String>,
    timer: Timer,
    asked: Asked,
    with_interim: bool,
    /// The backend keeps the connection open behind its answer.
    is_kept: bool,
    announced: Option<u64>,
    state: State,
    /// The first piece, which was waited for and not told yet.
    first: Option<Part>,
}

enum State {
    /// Nothing has come but interim answers.
    Waiting(Lines),
    Body(Rest),
    /// The answer is complete; the rest of the request may still be wanted.
    Ended(Patience),
    /// What follows is no HTTP, or nothing.
    Over,
}

impl Http1 {
    /// Sends a request on a connection, and waits until something of the answer is there. One on a connection that had
    /// been used before and turns out closed is sent again on a fresh one, if nothing of it had left, or if it is safe,
    /// ends with its head, and was not read to its end.
    ///
    /// # Errors
    ///
    /// As [`Exchange::open`](super::Exchange::open).
    pub(super) async fn open<D, F>(
        route: &Route<'_, D>,
        mut connection: Box<Connection>,
        is_reused: bool,
        asking: Asking<'_>,
    ) -> Result<Http1>
    where
        D: Fn() -> F,
        F: Future<Output = Result<Dialled>>,
    {
        let Asking { head, built, upload, mut timer, limits, with_interim } = asking;
        timer.connected(connection.timer.take());
        connection.begin();
        connection.unsent.push_back(built.head.clone());
        let mut exchange = Http1 {
            backend: route.backend.into(),
            connection: Some(connection),
            pool: route.pool.cloned(),
            upload,
            trailers: head.trailers.clone(),
            timer,
            asked: built.asked,
            with_interim,
            is_kept: false,
            announced: None,
            state: State::Waiting(Lines::default()),
            first: None,
        };
        let mut begun = exchange.begin(is_reused).await;
        if is_reused && exchange.is_stale(&begun, &built) {
            let was_sent = exchange.was_sent();
            begun = Box::pin(exchange.begin_anew(route, limits, &built)).await;
            // What left before has left.
            begun = begun.map_err(|error| if was_sent { error.sent(true) } else { error });
        }
        begun.map(|()| exchange)
    }

    /// Whether the connection was of no use: nothing of the request left, so what came is no answer to it; or the backend
    /// was closing while the request came, which no look at the connection beforehand can tell. What is wrong with the
    /// request itself, or took too long, is not for another connection to mend.
    fn is_stale(&self, begun: &Result<()>, built: &Built) -> bool {
        let Some(Connection { progress, .. }) = self.connection.as_deref() else { return false };
        let is_backends =
            |error: &Error| matches!(error.reason(), Reason::BackendBrokeBeforeHead | Reason::ResponseInvalid);
        let failed = begun.as_ref().err();
        !progress.sent() && failed.is_none_or(is_backends)
            || built.is_safe && progress.is_ignored() && failed.is_some_and(is_backends)
    }

    /// Sends the request over a fresh connection: all that has not left yet, or all of one that is nothing but a head.
    async fn begin_anew<D, F>(&mut self, route: &Route<'_, D>, limits: &Limits, built: &Built) -> Result<()>
    where
        D: Fn() -> F,
        F: Future<Output = Result<Dialled>>,
    {
        self.timer.disconnected();
        let mut fresh = match exchange::dial(route, &mut self.timer, limits).await? {
            (Dialled::Http1(stream), progress) => Box::new(Connection::new(stream, progress)),
            (Dialled::Http2(_), _) => return Err(failure::changed(&self.backend)),
        };
        match self.connection.take() {
            Some(stale) if !stale.progress.sent() => fresh.unsent = stale.unsent,
            _ => fresh.unsent.push_back(built.head.clone()),
        }
        self.timer.connected(None);
        self.connection = Some(fresh);
        (self.state, self.first, self.is_kept) = (State::Waiting(Lines::default()), None, false);
        self.begin(false).await
    }

    /// Whether any of the request left.
    fn was_sent(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.progress.sent())
    }

    /// Waits until there is something to tell, or until it is clear that nothing will come of a reused connection.
    async fn begin(&mut self, is_reused: bool) -> Result<()> {
        poll_fn(|cx| {
            let part = self.poll_part(cx);
            let is_deaf = |progress: &Progress| progress.is_write_broken() && !progress.sent();
            match part {
                Poll::Ready(Some(Ok(part))) => self.first = Some(part),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Err(Error::bug("an exchange ended before its answer"))),
                Poll::Pending => match &self.connection {
                    Some(connection) if is_reused && is_deaf(&connection.progress) => {}
                    _ => return Poll::Pending,
                },
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// See [`Exchange::next`](super::Exchange::next).
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let next = self.poll_part(cx);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            (self.state, self.connection) = (State::Over, None);
        }
        next
    }

    /// See [`Exchange::announced`](super::Exchange::announced).
    pub(super) fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// See [`Exchange::into_upgraded`](super::Exchange::into_upgraded).
    pub(super) fn into_upgraded(mut self) -> Result<Switched> {
        let connection = self.connection.take().ok_or_else(|| Error::bug("an upgrade without a connection"))?;
        let (stream, ahead, mut progress) = connection.into_stream();
        progress.switched();
        Ok(Switched::new(stream, ahead, Watch { backend: self.backend, timer: self.timer, progress }))
    }

    /// Waits, for a moment, until a backend that answered early has taken the body that it was sent.
    pub(super) async fn settle(mut self) {
        if let Some(connection) = &mut self.connection
            && connection.progress.write_pending()
        {
            let _ = timeout(LATE_READER, poll_fn(|cx| connection.poll_write(cx))).await;
        }
        self.give_back();
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part>>> {
        let sent = self.poll_send(cx);
        match &self.state {
            State::Over => return Poll::Ready(None),
            State::Ended(_) if sent.is_err() => return Poll::Ready(None),
            State::Ended(_) => return self.poll_ended(cx).map(|()| None),
            State::Waiting(_) | State::Body(_) => {}
        }
        if let Err(error) = sent {
            return Poll::Ready(Some(Err(error.sent(self.was_sent()))));
        }
        self.poll_answer(cx).map(Some)
    }

    /// Sends as much of the request as there is and as is taken.
    ///
    /// # Errors
    ///
    /// What is wrong with the body.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let Http1 { connection: Some(connection), upload, trailers, .. } = self else { return Ok(()) };
        if let Poll::Ready(error) = upload.poll_excess(cx) {
            return Err(error);
        }
        loop {
            // Nothing is taken from a caller that goes nowhere.
            if connection.progress.write_pending() && connection.poll_write(cx).is_pending()
                || connection.progress.is_write_broken()
            {
                return Ok(());
            }
            let is_fed = match upload.is_over() {
                true => false,
                false => match upload.poll_framed(trailers, &mut connection.unsent, cx) {
                    Poll::Ready(framed) => framed.map(|()| true)?,
                    Poll::Pending => false,
                },
            };
            if connection.poll_write(cx).is_pending() || !is_fed {
                return Ok(());
            }
        }
    }

    /// Reads on until there is something to tell, or a limit has passed.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part>> {
        loop {
            let Some(connection) = &mut self.connection else { return Poll::Ready(Err(Error::bug("no connection"))) };
            // An answer that always has more is never waited for.
            if let Some(error) = self.timer.spent(&self.backend, &connection.progress) {
                return Poll::Ready(Err(error));
            }
            if let Some(part) = self.take_part().transpose() {
                return Poll::Ready(part);
            }
            let Some(connection) = &mut self.connection else { return Poll::Ready(Err(Error::bug("no connection"))) };
            let read = match connection.is_asked() {
                true => connection.poll_read(cx),
                false => Poll::Pending,
            };
            let failure = match read {
                Poll::Ready(Ok(true)) => continue,
                Poll::Ready(Ok(false)) => None,
                Poll::Ready(Err(error)) => Some(error),
                Poll::Pending => return self.timer.poll_passed(&self.backend, &connection.progress, cx).map(Err),
            };
            return Poll::Ready(self.ended(failure));
        }
    }

    /// Takes the next piece out of what was read.
    fn take_part(&mut self) -> Result<Option<Part>> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        loop {
            match &mut self.state {
                State::Waiting(lines) => {
                    let taken = response::take_head(&mut connection.received, lines);
                    let follows =
                        taken.and_then(|head| head.map(|head| Ok((head.follows(self.asked)?, head))).transpose());
                    let follows =
                        follows.map_err(|what| failure::bad_head(&self.backend, what, &connection.progress))?;
                    let Some((follows, head)) = follows else { return Ok(None) };
                    match follows {
                        Follows::Head => {
                            *lines = Lines::default();
                            match self.with_interim {
                                true => return Ok(Some(Part::Interim(told(head)))),
                                false => continue,
                            }
                        }
                        Follows::Switch if !connection.unsent.is_empty() => {
                            let what =
                                Unreadable::Wrong("the backend switches protocols before it has read the request");
                            return Err(failure::bad_head(&self.backend, what, &connection.progress));
                        }
                        Follows::Switch => self.state = State::Over,
                        Follows::Body(body) => {
                            self.is_kept = head.keeps() && !body.ends_with_connection();
                            self.announced = body.announced();
                            self.state = State::Body(body);
                        }
                    }
                    connection.progress.head_seen();
                    return Ok(Some(Part::Head(told(head))));
                }
                State::Body(body) => {
                    let taken = body.take(&mut connection.received);
                    return match taken.map_err(|what| failure::bad_body(&self.backend, what))? {
                        Taken::More => Ok(None),
                        Taken::Data(data) => Ok(Some(Part::Data(data))),
                        Taken::End(trailers) => {
                            self.state = State::Ended(Patience::default());
                            Ok(Some(Part::End(headers::forwardable_trailers(trailers))))
                        }
                    };
                }
                State::Ended(_) | State::Over => return Ok(None),
            }
        }
    }

    /// The connection ended.
    fn ended(&mut self, failure: Option<std::io::Error>) -> Result<Part> {
        let Some(connection) = &mut self.connection else { return Err(Error::bug("no connection")) };
        match &self.state {
            State::Body(body) if body.ends_with_connection() && failure.is_none() => {
                self.state = State::Ended(Patience::default());
                Ok(Part::End(Vec::new()))
            }
            State::Body(_) => Err(failure::broke_in_body(&self.backend, failure)),
            // What came may be no beginning of a head at all.
            _ => match response::parse_head(&mut connection.received) {
                Err(what) => Err(failure::bad_head(&self.backend, what, &connection.progress)),
                Ok(_) => Err(failure::before_head(&self.backend, failure, &connection.progress)),
            },
        }
    }

    /// A backend may answer before it has read the whole request, and want the rest all the same: it is sent as long as
    /// it is taken. One that does not take any for a moment has lost interest.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(connection), State::Ended(patience)) = (&mut self.connection, &mut self.state) else {
            return Poll::Ready(());
        };
        let progress = &connection.progress;
        if progress.is_write_broken() || self.upload.is_over() && !progress.write_pending() {
            self.give_back();
            return Poll::Ready(());
        }
        // Whoever sends more than an answer does not speak HTTP, and whoever is gone takes nothing.
        let has_spoken = !connection.received.is_empty() || matches!(connection.poll_read(cx), Poll::Ready(Ok(true)));
        if has_spoken || connection.is_gone() {
            return Poll::Ready(());
        }
        // The answer is complete: who asked has what they asked for, however long the rest of the request takes.
        if self.timer.poll_passed(&self.backend, &connection.progress, cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            let is_blocked = connection.progress.write_pending();
            // One that says no more is not heard when it goes: it is looked at again.
            if !is_blocked && !connection.has_ended() {
                patience.reset();
                return Poll::Pending;
            }
            let moved_bytes = connection.progress.moved_bytes();
            ready!(patience.poll_lost(moved_bytes, cx));
            if is_blocked || connection.is_gone() {
                return Poll::Ready(());
            }
            patience.reset();
        }
    }

    /// Gives the connection back, where it can be used again.
    fn give_back(&mut self) {
        let (Some(mut connection), Some(pool)) = (self.connection.take(), &self.pool) else { return };
        if self.is_kept && self.upload.is_over() && connection.is_clean() {
            connection.timer = self.timer.take_timer();
            connection.rest();
            pool.put(connection);
        }
    }
}

/// A head as it is told.
fn told(head: Answered) -> Head {
    Head { status: head.status, headers: headers::forwardable(head.lines) }
}
