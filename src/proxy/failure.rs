//! What a failed exchange tells: the backend left, or it does not speak HTTP.

use std::{io, time::Duration};

use super::{
    chunks::Misframed,
    headers::{MAX_HEADER_BYTES, MAX_HEADER_LINES},
    lanes::BoxError,
    progress::Progress,
    response::Unreadable,
};
use crate::model::error::{Error, Reason};

/// When a request may be sent again that the backend took nothing of.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// The connection ended before the response head was there.
pub(super) fn before_head(backend: &str, cause: Option<io::Error>, progress: &Progress) -> Error {
    let failure = if progress.sent() {
        let message = "the backend closed the connection before it answered; it may have acted on the request";
        Error::new(Reason::BackendBrokeBeforeHead, backend, message)
    } else {
        let message = "the backend closed the connection before it took any of the request; try again";
        Error::new(Reason::BackendBrokeBeforeHead, backend, message).retry_after(RETRY)
    };
    caused(failure, cause).sent(progress.sent())
}

/// A call over HTTP/2 ended before the head of its answer was there. The backend is meant to speak `speaks`, and answered as
/// HTTP/1 does where it `is_http1`.
pub(super) fn call_before_head(backend: &str, speaks: &str, is_http1: bool, error: BoxError, sent: bool) -> Error {
    let reset = h2_error(&*error).and_then(h2::Error::reason);
    let refused = |reason, message: &str| Error::new(reason, backend, message);
    let failure = match reset {
        _ if is_http1 => {
            refused(Reason::ResponseInvalid, &format!("the backend does not speak {speaks}: it answers as HTTP/1 does"))
        }
        // RFC 9113 8.7: nothing of a refused call was looked at.
        Some(h2::Reason::REFUSED_STREAM) => {
            let message = "the backend refused the call without looking at it; try again";
            return refused(Reason::BackendBrokeBeforeHead, message).retry_after(RETRY).caused_by(error).sent(false);
        }
        // RFC 9113 6.8: nor was one that began after the last that the backend says it takes before it goes away.
        Some(_) if is_remote_go_away(&*error) => {
            let message = "the backend went away without looking at the call; try again";
            return refused(Reason::BackendBrokeBeforeHead, message).retry_after(RETRY).caused_by(error).sent(false);
        }
        Some(h2::Reason::FRAME_SIZE_ERROR | h2::Reason::PROTOCOL_ERROR) => {
            refused(Reason::ResponseInvalid, &format!("the backend does not speak {speaks}: its answer is not HTTP/2"))
        }
        Some(reason) => {
            let message = format!("the backend ended the call before it answered: {reason}");
            refused(Reason::BackendBrokeBeforeHead, &message)
        }
        None if sent => {
            let message = "the backend closed the connection before it answered; it may have acted on the call";
            refused(Reason::BackendBrokeBeforeHead, message)
        }
        None => {
            let message = "the backend closed the connection before it took any of the call; try again";
            refused(Reason::BackendBrokeBeforeHead, message).retry_after(RETRY)
        }
    };
    failure.caused_by(error).sent(sent)
}

/// The backend answered with what is no head of an answer.
pub(super) fn bad_head(backend: &str, what: Unreadable, progress: &Progress) -> Error {
    let failure = match what {
        Unreadable::TooLarge => {
            let kib = MAX_HEADER_BYTES >> 10;
            let limit = format!("over {kib} KiB or {MAX_HEADER_LINES} lines");
            invalid(backend, &format!("the backend's response head is {limit}; send smaller headers"))
        }
        Unreadable::NotHttp(error) => {
            invalid(backend, &format!("the backend's answer is not HTTP/1.1: {error}")).caused_by(error)
        }
        Unreadable::Wrong(message) => invalid(backend, message),
    };
    failure.sent(progress.sent())
}

/// The backend's body is in no chunks.
pub(super) fn bad_body(backend: &str, _: Misframed) -> Error {
    invalid(backend, "the backend's response body is not framed as HTTP/1.1 chunks should be")
}

/// The connection ended with less body than was announced.
pub(super) fn broke_in_body(backend: &str, cause: Option<io::Error>) -> Error {
    let message = "the backend closed the connection before its response body was complete";
    caused(Error::new(Reason::BackendBrokeInBody, backend, message), cause).sent(true)
}

/// The stream of an answer over HTTP/2 ended with less than the whole of it.
pub(super) fn stream_broke(backend: &str, cause: h2::Error) -> Error {
    let message = match cause.reason() {
        Some(reason) if cause.is_library() => {
            return invalid(
                backend,
                &format!("the backend's response body is not framed as HTTP/2 should be: {reason}"),
            );
        }
        Some(reason) => format!("the backend ended the response before its body was complete: {reason}"),
        None => "the backend closed the connection before its response body was complete".to_owned(),
    };
    Error::new(Reason::BackendBrokeInBody, backend, message).caused_by(cause).sent(true)
}

/// A time limit passed.
pub(super) fn too_slow(backend: &str, limit: Duration, progress: &Progress) -> Error {
    let message = format!("the backend did not {} within {limit:?}", progress.waiting_for());
    Error::new(Reason::BackendTooSlow, backend, message).sent(progress.sent())
}

/// Another version of HTTP is spoken there than a moment before: another backend has registered.
pub(super) fn changed(backend: &str) -> Error {
    let message = "another backend has registered in the place of the one that was called; try again";
    Error::new(Reason::BackendStarting, backend, message).retry_after(RETRY).sent(false)
}

/// The backend answered what is not HTTP, or what can be read in two ways.
pub(super) fn invalid(backend: &str, message: &str) -> Error {
    Error::new(Reason::ResponseInvalid, backend, message).sent(true)
}

fn caused(failure: Error, cause: Option<io::Error>) -> Error {
    match cause {
        Some(cause) => failure.caused_by(cause),
        None => failure,
    }
}

/// Whether the backend went away without looking at the call.
pub(super) fn is_remote_go_away(error: &(dyn std::error::Error + 'static)) -> bool {
    h2_error(error).is_some_and(|error| error.is_go_away() && error.is_remote())
}

fn h2_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a h2::Error> {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<h2::Error>() {
            return Some(error);
        }
        cause = inner.source();
    }
    None
}
