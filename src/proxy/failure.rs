//! What a failed exchange tells: the backend left, or it does not speak HTTP.

use std::{io, time::Duration};

use super::{
    chunks::Misframed,
    headers::{MAX_HEADER_BYTES, MAX_HEADER_LINES},
    progress::Progress,
    response::Unreadable,
};
use crate::model::error::{Error, Reason};

/// When a request may be sent again that the backend took nothing of.
const RETRY: Duration = Duration::from_millis(100);

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
