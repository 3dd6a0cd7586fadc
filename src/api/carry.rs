//! Calls to a backend, as a whole and piece by piece: `Fetch`, `Stream` and `Connect`.
//!
//! They are served here and not by generated code, so that a body is never copied on its way between the two sockets.
//!
//! Nothing is spawned and nothing queued: the response stream, when it is asked for its next message, moves bytes both
//! ways. A caller that does not read so stops the backend, and one that does not write is waited for.

use std::{sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::poll_fn};

use super::{
    convert,
    messages::{Came, Messages},
    reply::{Chunk, Chunks, Reply, Whole, answer},
    scope::{self, InSession},
    status::status,
};
use crate::{
    core::{Broker, Callee},
    model::{
        error::{Error, Reason, Result},
        limits::{MAX_BODY_BYTES, MAX_TIME_LIMIT},
        registration::check_name,
    },
    pb::{self, connect_request, connect_response, stream_request, stream_response},
    proxy::{self, Exchange, Length, Part, Piece, Raw, Source, Upgraded, Upload},
};

/// The fields of messages that are data.
mod field {
    pub(super) const FETCH_RESPONSE_BODY: u8 = 3;
    pub(super) const STREAM_REQUEST_DATA: u8 = 2;
    pub(super) const STREAM_RESPONSE_DATA: u8 = 3;
    pub(super) const CONNECT_REQUEST_DATA: u8 = 2;
    pub(super) const CONNECT_RESPONSE_DATA: u8 = 2;
}

/// Least time limit.
const MIN_TIMEOUT: Duration = Duration::from_nanos(1);
/// Methods whose requests have no body unless a length is given.
const BODILESS: [&str; 5] = ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE"];

/// The time limits of a request, with the broker's own where it has none.
fn limits(broker: &Broker, asked: Option<pb::TimeLimits>) -> Result<proxy::Limits> {
    let asked = asked.unwrap_or_default();
    let limit = |field, value| convert::duration(field, value, MIN_TIMEOUT, MAX_TIME_LIMIT);
    let own = &broker.limits().exchange;
    Ok(proxy::Limits {
        connect: limit("time_limits.connect", asked.connect)?.unwrap_or(own.connect),
        head: limit("time_limits.head", asked.head)?.or(own.head),
        idle: limit("time_limits.idle", asked.idle)?.or(own.idle),
        total: limit("time_limits.total", asked.total)?.or(own.total),
        max_body_bytes: own.max_body_bytes,
        memory: own.memory.clone(),
    })
}

/// How long to wait for a backend that starts.
fn start_wait(asked: Option<prost_types::Duration>) -> Result<Duration> {
    Ok(convert::duration("start_wait", asked, Duration::ZERO, MAX_TIME_LIMIT)?.unwrap_or_default())
}

/// The method of a request.
fn method(asked: String) -> String {
    if asked.is_empty() { "GET".to_owned() } else { asked }
}

/// `BackendService.Fetch`.
pub(super) async fn fetch(
    broker: Arc<Broker>,
    session: InSession,
    requests: Messages,
) -> Result<http::Response<Reply>> {
    let request: pb::FetchRequest = requests.only().await?;
    let (callee, limits, start_wait) = fetch_terms(&broker, &session, &request).map_err(|error| error.sent(false))?;
    let fetch = proxy::Request {
        method: method(request.method),
        path: request.path,
        headers: convert::header_lines(request.headers),
        body: request.body,
    };
    let response = broker.fetch(&callee, fetch, limits, start_wait).await?;
    let message = pb::FetchResponse {
        status: i32::from(response.status),
        headers: convert::headers(response.headers),
        trailers: convert::headers(response.trailers),
        ..pb::FetchResponse::default()
    };
    Whole::new(&message, field::FETCH_RESPONSE_BODY, response.body).map(|whole| answer(Reply::One(whole)))
}

/// Whom to call, within which limits, and how long to wait for it to start.
fn fetch_terms(
    broker: &Broker,
    session: &InSession,
    request: &pb::FetchRequest,
) -> Result<(Callee, proxy::Limits, Duration)> {
    let callee = callee(session, &request.extension, &request.endpoint)?;
    let limits = limits(broker, request.time_limits)?;
    let limits = proxy::Limits { max_body_bytes: max_body_bytes(broker, request)?, ..limits };
    Ok((callee, limits, start_wait(request.start_wait)?))
}

/// Whom a request is for.
fn callee(session: &InSession, extension: &str, endpoint: &str) -> Result<Callee> {
    let extension = scope::extension(session.as_ref(), extension)?;
    if !endpoint.is_empty() {
        check_name(endpoint)?;
    }
    Ok(Callee { extension, endpoint: endpoint.to_owned() })
}

fn max_body_bytes(broker: &Broker, request: &pb::FetchRequest) -> Result<u64> {
    match u64::try_from(request.max_body_bytes) {
        Ok(0) => Ok(broker.limits().exchange.max_body_bytes),
        Ok(bytes) if bytes <= MAX_BODY_BYTES => Ok(bytes),
        _ => {
            let message = format!("max_body_bytes must lie between 1 and {MAX_BODY_BYTES}");
            Err(convert::invalid("max_body_bytes", message))
        }
    }
}

/// `BackendService.Stream`. Answers at once: there are callers that send nothing before they are answered.
pub(super) fn stream(broker: Arc<Broker>, session: InSession, requests: Messages) -> Chunks {
    // Boxed, so that a stream that is open does not keep the room that its beginning took.
    let begun = futures_util::stream::once(Box::pin(begin_stream(broker, session, requests)));
    let parts = begun.map_ok(|mut exchange| poll_fn(move |cx| exchange.poll_next(cx)).map_ok(streamed));
    Box::pin(parts.try_flatten().map_err(status))
}

async fn begin_stream(broker: Arc<Broker>, session: InSession, mut requests: Messages) -> Result<Box<Exchange>> {
    let first: Option<pb::StreamRequest> = requests.next().await?;
    let Some(stream_request::Part::Head(head)) = first.and_then(|first| first.part) else {
        return Err(out_of_order("the first message must hold `head`"));
    };
    let begun = Begun::of(&broker, &session, head, None).map_err(|error| error.sent(false))?;
    let pieces = poll_fn(move |cx| requests.poll_told(field::STREAM_REQUEST_DATA, cx).map(Result::transpose));
    let pieces = pieces.map(|came: Result<Came<pb::StreamRequest>>| match came? {
        Came::Data(data) => Ok(Piece::Data(data)),
        Came::Message(message) => match message.part {
            Some(stream_request::Part::Data(data)) => Ok(Piece::Data(data)),
            Some(stream_request::Part::Trailers(trailers)) => {
                Ok(Piece::Trailers(proxy::headers::trailers(convert::header_lines(trailers.headers))?))
            }
            Some(stream_request::Part::Head(_)) => Err(out_of_order("`head` comes once; send data or trailers")),
            None => Err(out_of_order("the message is empty; send data or trailers")),
        },
    });
    begun.open(&broker, Box::pin(pieces)).await.map(Box::new)
}

/// `BackendService.Connect`.
pub(super) fn connect(broker: Arc<Broker>, session: InSession, requests: Messages) -> Chunks {
    let begun = futures_util::stream::once(Box::pin(begin_connect(broker, session, requests)));
    let parts = begun.map_ok(|(head, mut rest)| {
        let head = connect_response::Part::Head(response_head(head));
        let head = pb::ConnectResponse { part: Some(head) };
        let head = futures_util::stream::once(std::future::ready(Ok(Chunk::message(&head))));
        head.chain(poll_fn(move |cx| rest.poll_next(cx)))
    });
    Box::pin(parts.try_flatten().map_err(status))
}

async fn begin_connect(broker: Arc<Broker>, session: InSession, mut requests: Messages) -> Result<(proxy::Head, Rest)> {
    let first: Option<pb::ConnectRequest> = requests.next().await?;
    let Some(connect_request::Part::Head(connect)) = first.and_then(|first| first.part) else {
        return Err(out_of_order("the first message must hold `head`"));
    };
    let Some(head) = connect.request else {
        return Err(convert::invalid("head.request", "say what to ask the backend for"));
    };
    if head.content_length.is_some_and(|length| length != 0) {
        return Err(convert::invalid("head.request.content_length", "a request to switch protocols has no body"));
    }
    let protocol = if connect.protocol.is_empty() { "websocket".to_owned() } else { connect.protocol };
    let head = pb::RequestHead { content_length: Some(0), ..head };
    let begun = Begun::of(&broker, &session, head, Some(protocol)).map_err(|error| error.sent(false))?;
    let mut exchange = begun.open(&broker, Box::pin(futures_util::stream::empty())).await?;
    let answer = loop {
        match exchange.next().await {
            Some(Ok(Part::Interim(_))) => {}
            Some(Ok(Part::Head(head))) => break head,
            Some(Err(error)) => return Err(error),
            Some(Ok(Part::Data(_) | Part::End(_))) | None => return Err(Error::bug("an answer without a head")),
        }
    };
    if answer.status != http::StatusCode::SWITCHING_PROTOCOLS.as_u16() {
        return Ok((answer, Rest::Body(Box::new(exchange))));
    }
    let bytes = poll_fn(move |cx| requests.poll_told(field::CONNECT_REQUEST_DATA, cx).map(Result::transpose));
    let bytes = bytes.map(|came: Result<Came<pb::ConnectRequest>>| match came? {
        Came::Data(data) => Ok(Piece::Data(data)),
        Came::Message(message) => match message.part {
            Some(connect_request::Part::Data(data)) => Ok(Piece::Data(data)),
            Some(connect_request::Part::Head(_)) => Err(out_of_order("`head` comes once; send data")),
            None => Err(out_of_order("the message is empty; send data")),
        },
    });
    Ok((answer, Rest::Upgraded(Box::new(exchange.into_upgraded()?.fed_by(Box::pin(bytes))))))
}

/// What follows the head of an answer to `Connect`.
enum Rest {
    Upgraded(Box<Upgraded>),
    Body(Box<Exchange>),
}

impl Rest {
    fn poll_next(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Option<Result<Chunk>>> {
        match self {
            Rest::Upgraded(upgraded) => upgraded.poll_next(cx).map_ok(|next| match next {
                Raw::Data(data) => connected(data),
                Raw::End => connection_end(),
            }),
            Rest::Body(exchange) => exchange.poll_next(cx).map(|next| {
                next.map(|part| match part? {
                    Part::Data(data) => Ok(connected(data)),
                    Part::End(_) => Ok(connection_end()),
                    Part::Interim(_) | Part::Head(_) => Err(Error::bug("an answer with two heads")),
                })
            }),
        }
    }
}

fn connected(data: Bytes) -> Chunk {
    Chunk::data(field::CONNECT_RESPONSE_DATA, data)
}

fn connection_end() -> Chunk {
    Chunk::message(&pb::ConnectResponse { part: Some(connect_response::Part::End(true)) })
}

/// A request whose head was read.
struct Begun {
    callee: Callee,
    head: proxy::RequestHead,
    length: Length,
    limits: proxy::Limits,
    start_wait: Duration,
}

impl Begun {
    fn of(broker: &Broker, session: &InSession, head: pb::RequestHead, upgrade: Option<String>) -> Result<Begun> {
        let callee = callee(session, &head.extension, &head.endpoint)?;
        let limits = limits(broker, head.time_limits)?;
        let start_wait = start_wait(head.start_wait)?;
        let method = method(head.method);
        let length = match head.content_length {
            Some(bytes) => Length::Known(
                u64::try_from(bytes)
                    .map_err(|_| convert::invalid("content_length", "content_length must not be below 0"))?,
            ),
            None if BODILESS.contains(&&*method) => Length::Known(0),
            None => Length::Unknown,
        };
        if length != Length::Unknown && !head.trailers.is_empty() {
            return Err(convert::invalid(
                "trailers",
                "trailers need a body of unknown length; leave content_length out",
            ));
        }
        let headers = convert::header_lines(head.headers);
        let head = proxy::RequestHead { method, path: head.path, headers, trailers: head.trailers, upgrade };
        Ok(Begun { callee, head, length, limits, start_wait })
    }

    async fn open(self, broker: &Broker, source: Source) -> Result<Exchange> {
        let upload = Upload::pieces(source, self.length);
        broker.exchange(&self.callee, &self.head, upload, self.limits, self.start_wait).await
    }
}

fn streamed(part: Part) -> Chunk {
    use stream_response::Part as Told;
    let told = match part {
        Part::Data(data) => return Chunk::data(field::STREAM_RESPONSE_DATA, data),
        Part::Interim(head) => Told::Interim(response_head(head)),
        Part::Head(head) => Told::Head(response_head(head)),
        Part::End(trailers) => Told::End(pb::Trailers { headers: convert::headers(trailers) }),
    };
    Chunk::message(&pb::StreamResponse { part: Some(told) })
}

fn response_head(head: proxy::Head) -> pb::ResponseHead {
    pb::ResponseHead { status: i32::from(head.status), headers: convert::headers(head.headers) }
}

fn out_of_order(message: &str) -> Error {
    Error::new(Reason::RequestInvalid, "part", message)
}
