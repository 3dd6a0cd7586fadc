//! What a failed exchange tells: the backend left, or it does not speak HTTP.

use std::{
    error::Error as StdError,
    io::{self, ErrorKind},
    time::Duration,
};

use super::{
    headers::{MAX_HEADER_BYTES, MAX_HEADER_LINES},
    progress::Progress,
};
use crate::model::error::{Error, Reason};

/// When a request may be sent again that the backend took nothing of.
const RETRY: Duration = Duration::from_millis(100);

/// The exchange ended before the response head was there.
pub(super) fn before_head(backend: &str, error: hyper::Error, progress: &Progress) -> Error {
    let failure = if error.is_user() {
        Error::bug(format!("the http client refuses our request: {error}"))
    } else if error.is_parse() {
        invalid(backend, &bad_head(&error))
    } else if progress.sent() {
        let message = "the backend closed the connection before it answered; it may have acted on the request";
        Error::new(Reason::BackendBrokeBeforeHead, backend, message)
    } else {
        let message = "the backend closed the connection before it took any of the request; try again";
        Error::new(Reason::BackendBrokeBeforeHead, backend, message).retry_after(RETRY)
    };
    failure.caused_by(error).sent(progress.sent())
}

/// The exchange ended in the response body.
pub(super) fn in_body(backend: &str, error: hyper::Error) -> Error {
    let failure = match cause_kind(&error) {
        Some(ErrorKind::InvalidInput | ErrorKind::InvalidData) => {
            invalid(backend, "the backend's response body is not framed as HTTP/1.1 chunks should be")
        }
        _ => broke_in_body(backend),
    };
    failure.caused_by(error).sent(true)
}

/// The connection ended with less body than was announced.
pub(super) fn broke_in_body(backend: &str) -> Error {
    let message = "the backend closed the connection before its response body was complete";
    Error::new(Reason::BackendBrokeInBody, backend, message).sent(true)
}

/// The backend answered what is not HTTP, or what can be read in two ways.
pub(super) fn invalid(backend: &str, message: &str) -> Error {
    Error::new(Reason::ResponseInvalid, backend, message).sent(true)
}

/// A time limit passed.
pub(super) fn too_slow(backend: &str, limit: Duration, progress: &Progress) -> Error {
    let message = format!("the backend did not {} within {limit:?}", progress.waiting_for());
    Error::new(Reason::BackendTooSlow, backend, message).sent(progress.sent())
}

fn bad_head(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        let kib = MAX_HEADER_BYTES >> 10;
        return format!(
            "the backend's response head is over {kib} KiB or {MAX_HEADER_LINES} lines; send smaller headers"
        );
    }
    format!("the backend's answer is not HTTP/1.1: {error}")
}

fn cause_kind(error: &hyper::Error) -> Option<ErrorKind> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = inner.source();
    }
    None
}
