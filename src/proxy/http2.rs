//! An exchange over HTTP/2: a stream among others on a connection, driven by whoever waits on it. A task moves the frames
//! of the connection; none is for a single exchange.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    Reason as Reset, RecvStream, SendStream,
    client::{Builder, Connection, ResponseFuture, SendRequest},
};
use http::HeaderMap;
use tokio::time::timeout;

use super::{
    Dialled, Head, HeaderLine, Limits, Part, Raw, RequestHead, Route, Source,
    exchange::{self, Asking},
    failure, headers,
    lanes::{
        CALL_WINDOW_BYTES, LANE_WINDOW_BYTES, Lane, Listening, MAX_FRAME_BYTES, MAX_HEADER_BYTES, Place,
        SEND_BUFFER_BYTES, Speaker, before_head, enter_by,
    },
    patience::{LATE_READER, Patience},
    progress::Progress,
    request,
    response::{Asked, Unreadable},
    timer::Timer,
    upload::{Length, Piece, Upload, is_announced},
};
use crate::{
    local::Stream,
    model::error::{Error, Reason, Result},
};

/// How often a request is sent that a backend refuses to look at.
const MAX_ATTEMPTS: usize = 3;

/// What sends requests.
#[derive(Clone)]
pub struct Requests(SendRequest<Bytes>);

/// Where a request goes.
pub(super) enum Via {
    /// A connection that is open already.
    Lane(Lane<Requests>, Place),
    /// A stream that was just made.
    Stream(Stream),
}

/// An exchange under way.
pub(super) struct Http2 {
    backend: Arc<str>,
    upload: Upload,
    /// The names of trailers that the request may have.
    trailers: Vec<String>,
    /// What was taken of the request and not sent yet.
    unsent: Bytes,
    /// `None` once nothing more is sent, or taken.
    sending: Option<SendStream<Bytes>>,
    timer: Timer,
    progress: Progress,
    with_interim: bool,
    asked: Asked,
    /// The backend switched protocols.
    is_upgraded: bool,
    announced: Option<u64>,
    state: State,
    /// The first piece, which was waited for and not told yet.
    first: Option<Part>,
    lane: Option<(Lane<Requests>, Place)>,
    /// The backend says that it did not look at the request, or it was never sent.
    is_unseen: bool,
}

enum State {
    /// Nothing has come but interim answers.
    Waiting(ResponseFuture),
    Body(RecvStream),
    /// The answer is complete; the rest of the request may still be wanted.
    Ended(Patience),
    Over,
}

impl Http2 {
    /// Sends a request, and waits until something of the answer is there. One that the backend says it did not look at is
    /// sent again, where all of it is still there.
    ///
    /// # Errors
    ///
    /// As [`Exchange::open`](super::Exchange::open).
    pub(super) async fn open<D, F>(route: &Route<'_, D>, mut via: Via, asking: Asking<'_>) -> Result<Http2>
    where
        D: Fn() -> F,
        F: Future<Output = Result<Dialled>>,
    {
        let Asking { head, built, upload, timer, limits, with_interim } = asking;
        let again = upload.again();
        let mut exchange = Http2 {
            backend: route.backend.into(),
            upload,
            trailers: head.trailers.clone(),
            unsent: Bytes::new(),
            sending: None,
            timer,
            progress: Progress::default(),
            with_interim,
            asked: built.asked,
            is_upgraded: false,
            announced: None,
            state: State::Over,
            first: None,
            lane: None,
            is_unseen: false,
        };
        for attempt in 1.. {
            let error = match exchange.begin(route, via, head, limits).await {
                Ok(()) => return Ok(exchange),
                Err(error) => error,
            };
            let is_lost = !exchange.is_unseen || attempt == MAX_ATTEMPTS;
            if is_lost || !exchange.restart(again.as_ref()) {
                return Err(error);
            }
            via = exchange.via_anew(route, limits).await?;
        }
        Err(Error::bug("more attempts than can be counted"))
    }

    /// Another connection, or another place on one.
    async fn via_anew<D, F>(&mut self, route: &Route<'_, D>, limits: &Limits) -> Result<Via>
    where
        D: Fn() -> F,
        F: Future<Output = Result<Dialled>>,
    {
        if let Some((lane, place)) = route.lanes.take() {
            return Ok(Via::Lane(lane, place));
        }
        match exchange::dial(route, &mut self.timer, limits).await? {
            (Dialled::Http2(stream), _) => Ok(Via::Stream(stream)),
            (Dialled::Http1(_), _) => Err(failure::changed(&self.backend)),
        }
    }

    /// Readies it for another attempt; false where something of the request is gone.
    fn restart(&mut self, again: Option<&Upload>) -> bool {
        if self.upload.was_taken() {
            let Some(again) = again.and_then(Upload::again) else { return false };
            self.upload = again;
        }
        self.timer.disconnected();
        (self.unsent, self.sending, self.lane) = (Bytes::new(), None, None);
        (self.state, self.first, self.is_unseen, self.progress) = (State::Over, None, false, Progress::default());
        true
    }

    /// Sends the head, and waits until there is something to tell.
    async fn begin<D>(&mut self, route: &Route<'_, D>, via: Via, head: &RequestHead, limits: &Limits) -> Result<()> {
        let is_used = matches!(via, Via::Lane(..));
        let entering = async {
            match via {
                Via::Lane(lane, place) => Ok((lane, place)),
                Via::Stream(stream) => timeout(limits.connect, enter_by(route.backend, route.lanes, stream))
                    .await
                    .map_err(|_| failure::too_slow(route.backend, limits.connect, &Progress::default()))?,
            }
        };
        let (lane, place) = self.timer.hold(&self.backend, &self.progress, entering).await?;
        self.progress.connected();
        self.timer.connected(None);
        if self.asked.may_switch && !lane.sender.0.is_extended_connect_protocol_enabled() {
            return Err(no_extended_connect(&self.backend).sent(false));
        }
        let request = request::build_http2(head, self.upload.length()).map_err(|error| error.sent(false))?;
        let ends = self.upload.is_over() && !self.asked.may_switch;
        let sending = lane.sender.0.clone().ready();
        let sent = async { Ok(sending.await.and_then(|mut sender| sender.send_request(request, ends))) };
        let sent = self.timer.hold(&self.backend, &self.progress, sent).await?;
        let (response, sending) = sent.map_err(|error| {
            lane.load.close();
            self.is_unseen = is_used;
            before_head::<Requests>(&self.backend, error, false, &lane.load)
        })?;
        // How long the head is on the wire is not known, nor when it leaves.
        self.progress.wrote(1, true);
        self.sending = (!ends).then_some(sending);
        (self.state, self.lane) = (State::Waiting(response), Some((lane, place)));
        poll_fn(|cx| match ready!(self.poll_part(cx)) {
            Some(Ok(part)) => {
                self.first = Some(part);
                Poll::Ready(Ok(()))
            }
            Some(Err(error)) => Poll::Ready(Err(error)),
            None => Poll::Ready(Err(Error::bug("an exchange ended before its answer"))),
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
            self.end();
        }
        next
    }

    /// See [`Exchange::announced`](super::Exchange::announced).
    pub(super) fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// See [`Exchange::settle`](super::Exchange::settle).
    pub(super) async fn settle(mut self: Box<Self>) {
        let sent = poll_fn(|cx| match self.poll_send(cx) {
            Ok(()) if self.sending.is_some() => Poll::Pending,
            _ => Poll::Ready(()),
        });
        let _ = timeout(LATE_READER, sent).await;
    }

    /// From where the bytes for a backend come that switched protocols.
    pub(super) fn feed(&mut self, source: Source) {
        self.upload = Upload::pieces(source, Length::Unknown);
    }

    /// See [`Upgraded::poll_next`](super::Upgraded::poll_next).
    pub(super) fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Raw>>> {
        Poll::Ready(match ready!(self.poll_next(cx)) {
            Some(Ok(Part::Data(data))) => Some(Ok(Raw::Data(data))),
            Some(Ok(Part::End(_))) => Some(Ok(Raw::End)),
            // A backend that is gone has ended as well; what it sent was delivered before.
            Some(Err(error)) if error.reason() == Reason::BackendBrokeInBody => Some(Ok(Raw::End)),
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(Part::Interim(_) | Part::Head(_))) => Some(Err(Error::bug("an upgrade with two heads"))),
            None => None,
        })
    }

    /// Lets go of the stream. The backend is told where either side of it is open still.
    fn end(&mut self) {
        if let Some(mut sending) = self.sending.take() {
            sending.send_reset(Reset::CANCEL);
        }
        (self.state, self.lane, self.unsent) = (State::Over, None, Bytes::new());
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part>>> {
        let sent = self.poll_send(cx);
        match &self.state {
            State::Over => return Poll::Ready(None),
            State::Ended(_) if self.is_upgraded => {
                return match sent {
                    Err(error) => Poll::Ready(Some(Err(error))),
                    Ok(()) => self.poll_ended(cx),
                };
            }
            State::Ended(_) if sent.is_err() => return Poll::Ready(None),
            State::Ended(_) => return self.poll_ended(cx),
            State::Waiting(_) | State::Body(_) => {}
        }
        if let Err(error) = sent {
            return Poll::Ready(Some(Err(error.sent(true))));
        }
        self.poll_answer(cx).map(Some)
    }

    /// Sends as much of the request as there is and as is taken.
    ///
    /// # Errors
    ///
    /// What is wrong with the body.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<()> {
        if let Poll::Ready(error) = self.upload.poll_excess(cx) {
            return Err(error);
        }
        while let Some(stream) = &mut self.sending {
            if !self.unsent.is_empty() {
                stream.reserve_capacity(self.unsent.len());
                if stream.capacity() == 0 {
                    match stream.poll_capacity(cx) {
                        Poll::Pending => {
                            self.progress.write_blocked();
                            return Ok(());
                        }
                        Poll::Ready(Some(Ok(_))) => continue,
                        // The backend takes no more: what it answered (or its end) decides.
                        Poll::Ready(Some(Err(_)) | None) => break,
                    }
                }
                let now = self.unsent.split_to(stream.capacity().min(self.unsent.len()));
                let (bytes, is_last) = (now.len(), self.unsent.is_empty() && self.upload.is_over());
                if stream.send_data(now, is_last).is_err() {
                    break;
                }
                self.progress.wrote(bytes, self.unsent.is_empty());
                if is_last {
                    self.sending = None;
                }
                continue;
            }
            if self.upload.is_over() {
                // Upgraded and not fed yet.
                return Ok(());
            }
            let Poll::Ready(piece) = self.upload.poll_checked(cx) else { return Ok(()) };
            let ended = match piece? {
                Some(Piece::Data(data)) => {
                    self.unsent = data;
                    continue;
                }
                Some(Piece::Trailers(lines)) => stream.send_trailers(trailers(&lines, &self.trailers)?),
                None => stream.send_data(Bytes::new(), true),
            };
            // One that could not be told is seen by its answer.
            let _ = ended;
            self.sending = None;
        }
        (self.sending, self.unsent) = (None, Bytes::new());
        Ok(())
    }

    /// Reads on until there is something to tell, or a limit has passed.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part>> {
        loop {
            // An answer that always has more is never waited for.
            if let Some(error) = self.timer.spent(&self.backend, &self.progress) {
                return Poll::Ready(Err(error));
            }
            let part = match &mut self.state {
                State::Waiting(response) => match response.poll_informational(cx) {
                    Poll::Ready(Some(interim)) if self.with_interim => Poll::Ready(interim.map(|interim| {
                        let (status, lines) = (interim.status(), lines(interim.headers()));
                        Some(Part::Interim(Head { status: status.as_u16(), headers: headers::forwardable(lines) }))
                    })),
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
                    Poll::Ready(None) | Poll::Pending => match Pin::new(response).poll(cx) {
                        Poll::Ready(Ok(answer)) => return Poll::Ready(self.take_head(answer)),
                        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                        Poll::Pending => Poll::Pending,
                    },
                },
                State::Body(body) => poll_body(body, &mut self.progress, cx),
                State::Ended(_) | State::Over => return Poll::Ready(Err(Error::bug("nothing of an answer is left"))),
            };
            return match part {
                Poll::Ready(Ok(Some(part))) => {
                    if matches!(part, Part::End(_)) {
                        self.state = State::Ended(Patience::default());
                    }
                    Poll::Ready(Ok(part))
                }
                Poll::Ready(Ok(None)) => continue,
                Poll::Ready(Err(error)) => Poll::Ready(Err(self.broken(error))),
                Poll::Pending => self.timer.poll_passed(&self.backend, &self.progress, cx).map(Err),
            };
        }
    }

    fn take_head(&mut self, answer: http::Response<RecvStream>) -> Result<Part> {
        let (head, body) = answer.into_parts();
        if head.headers.len() > headers::MAX_HEADER_LINES {
            return Err(failure::bad_head(&self.backend, Unreadable::TooLarge, &self.progress));
        }
        self.progress.read(1);
        self.progress.head_seen();
        let mut status = head.status.as_u16();
        if self.asked.may_switch {
            self.is_upgraded = head.status.is_success();
            if self.is_upgraded {
                // RFC 8441 5: what is 101 in HTTP/1.1 is any 2xx here.
                status = http::StatusCode::SWITCHING_PROTOCOLS.as_u16();
                self.progress.switched();
            } else if let Some(mut sending) = self.sending.take() {
                let _ = sending.send_data(Bytes::new(), true);
            }
        }
        let length = head.headers.get(http::header::CONTENT_LENGTH).filter(|_| !self.asked.head_only);
        self.announced = length.and_then(|length| length.to_str().ok()?.parse().ok());
        self.state = State::Body(body);
        Ok(Part::Head(Head { status, headers: headers::forwardable(lines(&head.headers)) }))
    }

    /// What a stream that broke tells.
    fn broken(&mut self, error: h2::Error) -> Error {
        match (&self.state, &self.lane) {
            (State::Waiting(_), Some((lane, _))) => {
                if failure::is_remote_go_away(&error) {
                    lane.load.close();
                }
                let failure = before_head::<Requests>(&self.backend, error, true, &lane.load);
                self.is_unseen = failure.was_sent() == Some(false);
                failure
            }
            _ => failure::stream_broke(&self.backend, error),
        }
    }

    /// A backend may answer before it has read the whole request, and want the rest all the same: it is sent as long as
    /// it is taken. One that does not take any for a moment has lost interest; after an upgrade it has all the time that the
    /// limits leave.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part>>> {
        let State::Ended(patience) = &mut self.state else { return Poll::Ready(None) };
        let Some(sending) = &mut self.sending else { return Poll::Ready(None) };
        if sending.poll_reset(cx).is_ready() {
            self.sending = None;
            return Poll::Ready(None);
        }
        if let Poll::Ready(error) = self.timer.poll_passed(&self.backend, &self.progress, cx) {
            // The answer is complete: who asked has what they asked for, however long the rest of the request takes.
            return Poll::Ready(self.is_upgraded.then_some(Err(error)));
        }
        if self.is_upgraded || !self.progress.write_pending() {
            patience.reset();
            return Poll::Pending;
        }
        let moved_bytes = self.progress.moved_bytes();
        patience.poll_lost(moved_bytes, cx).map(|()| None)
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.end();
    }
}

/// The next piece of a body; nothing for an empty frame.
fn poll_body(
    body: &mut RecvStream,
    progress: &mut Progress,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Part>, h2::Error>> {
    match ready!(body.poll_data(cx)).transpose()? {
        Some(data) => {
            // Whoever asks for the next piece has this one: only what nobody asked for counts against the window.
            body.flow_control().release_capacity(data.len())?;
            progress.read(data.len());
            Poll::Ready(Ok((!data.is_empty()).then_some(Part::Data(data))))
        }
        None => {
            let trailers = ready!(body.poll_trailers(cx))?;
            let lines = trailers.map(|trailers| lines(&trailers)).unwrap_or_default();
            Poll::Ready(Ok(Some(Part::End(headers::forwardable_trailers(lines)))))
        }
    }
}

fn lines(headers: &HeaderMap) -> Vec<HeaderLine> {
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        HeaderLine::new(name.as_str(), Bytes::copy_from_slice(value.as_bytes()))
    };
    headers.iter().map(line).collect()
}

/// The trailers of a request, those that were announced.
fn trailers(lines: &[HeaderLine], announced: &[String]) -> Result<HeaderMap> {
    let mut trailers = HeaderMap::with_capacity(lines.len());
    for line in lines.iter().filter(|line| is_announced(line, announced)) {
        let (name, value) = headers::for_http2(line)?;
        trailers.append(name, value);
    }
    Ok(trailers)
}

fn no_extended_connect(backend: &str) -> Error {
    let message =
        "the backend speaks h2c and takes no other protocol over it: it does not offer extended CONNECT (RFC 8441)";
    Error::new(Reason::EndpointNotFound, backend, message)
}

// === impl Requests ===

impl Speaker for Requests {
    const NAME: &'static str = "h2c";
    type Driver = Connection<Listening, Bytes>;
    type Broken = h2::Error;

    async fn handshake(stream: Listening) -> Result<(Self, Self::Driver), h2::Error> {
        let handshake = Builder::new()
            .enable_push(false)
            .initial_window_size(CALL_WINDOW_BYTES)
            .initial_connection_window_size(LANE_WINDOW_BYTES)
            .max_frame_size(MAX_FRAME_BYTES)
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .handshake(stream);
        handshake.await.map(|(sender, driver)| (Requests(sender), driver))
    }

    fn most(driver: &Self::Driver) -> usize {
        driver.max_concurrent_send_streams()
    }

    /// What it says is known by its driver alone.
    fn is_closed(&self) -> bool {
        false
    }
}
