//! The only place that turns an error into a gRPC status.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::convert;
use crate::{
    model::{
        error::{Detail, Error, Kind, Reason},
        grant::Need,
    },
    pb,
};

/// Longest message of an error. A status travels in HTTP/2 trailers, of which clients take 8 KiB in all, and the message
/// travels twice: in base64, and percent-encoded, in which form it takes no more than this either.
const MAX_TEXT_BYTES: usize = 1536;
/// Longest subject.
const MAX_SUBJECT_BYTES: usize = 256;
/// Longest detail of our own.
const MAX_DETAIL_BYTES: usize = 2560;
/// The domain of every reason.
const DOMAIN: &str = "longshore.dev";

/// Maps an error. A bug's text goes to the log under a number; the caller gets the number.
pub(super) fn status(error: Error) -> Status {
    let message = match error.reason() {
        Reason::Bug => logged_bug(&error),
        _ => clipped(error.message(), MAX_TEXT_BYTES),
    };
    let mut facts = HashMap::from([("retry".to_owned(), error.retry_delay().is_some().to_string())]);
    if !error.subject().is_empty() {
        facts.insert("subject".into(), clipped(error.subject(), MAX_SUBJECT_BYTES));
    }
    if let Some(sent) = error.was_sent() {
        facts.insert("sent".into(), sent.to_string());
    }
    let mut details = ErrorDetails::with_error_info(error.reason().as_str(), DOMAIN, facts);
    if let Some(delay) = error.retry_delay() {
        details.set_retry_info(Some(delay));
    }
    let status = Status::with_error_details(code(error.kind()), message, details);
    match error.detail() {
        Some(detail) => with_detail(status, detail),
        None => status,
    }
}

/// The status that ends calls when the broker stops.
pub(super) fn stopping() -> Status {
    let error = Error::new(Reason::ShuttingDown, "", "the broker is shutting down; call again when it is back");
    status(error.retry_after(Duration::from_secs(1)))
}

/// The status that ends calls whose deadline has passed.
pub(super) fn deadline_exceeded() -> Status {
    status(Error::new(Reason::DeadlineExceeded, "", "the deadline that the caller set for this call has passed"))
}

/// Gives a reason to the failures that the library answers with before a call reaches us. What other services than
/// ours answer is theirs, except that a method is unknown.
pub(super) fn reasoned<B: Default>(response: http::Response<B>, is_ours: bool) -> http::Response<B> {
    let has_details = response.headers().contains_key("grpc-status-details-bin");
    let Some(failure) = Status::from_header_map(response.headers()).filter(|_| !has_details) else { return response };
    let reason = match failure.code() {
        Code::Unimplemented => Reason::MethodUnknown,
        // It was too large, or is no message of that type.
        Code::OutOfRange | Code::ResourceExhausted | Code::Internal | Code::InvalidArgument if is_ours => {
            Reason::RequestInvalid
        }
        _ => return response,
    };
    let message = match failure.message() {
        "" => "this broker has no such method",
        message => message,
    };
    status(Error::new(reason, "", message)).into_http()
}

/// Gives a reason to the failure with which the library ends a stream of requests that it cannot read.
pub(super) fn unreadable(failure: Status) -> Status {
    match failure.code() {
        // It was too large, or is no message of that type.
        Code::OutOfRange | Code::ResourceExhausted | Code::Internal | Code::InvalidArgument => {
            status(Error::new(Reason::RequestInvalid, "", failure.message()))
        }
        _ => failure,
    }
}

fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Exists => Code::AlreadyExists,
        Kind::State => Code::FailedPrecondition,
        Kind::Busy => Code::Aborted,
        Kind::Denied => Code::PermissionDenied,
        Kind::Unknown => Code::Unimplemented,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Gone => Code::OutOfRange,
        Kind::Timeout => Code::DeadlineExceeded,
        Kind::DataLoss => Code::DataLoss,
        Kind::Internal => Code::Internal,
    }
}

fn logged_bug(error: &Error) -> String {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    tracing::error!(number, error = error.message(), cause = ?std::error::Error::source(error), "bug");
    format!("something went wrong inside the broker; its log says more under bug number {number}")
}

/// The needs, as many as fit; Inspect tells all of them.
fn grants_required(needs: &[Need]) -> pb::GrantsRequired {
    let mut room = MAX_DETAIL_BYTES;
    let fits = |grant: &pb::NeededGrant| {
        let size = grant.encoded_len();
        let fits = size <= room;
        room = room.saturating_sub(size);
        fits
    };
    pb::GrantsRequired { grants: needs.iter().map(|need| convert::need(need, false)).take_while(fits).collect() }
}

/// The header lines, as many as fit.
fn fitting(headers: &[(String, Vec<u8>)]) -> Vec<pb::Header> {
    let mut room = MAX_DETAIL_BYTES;
    let headers = headers.iter().take_while(|(name, value)| {
        let fits = name.len() + value.len() < room;
        room = room.saturating_sub(name.len() + value.len());
        fits
    });
    headers.map(|(name, value)| convert::header(name.clone(), value.clone())).collect()
}

/// So much of a text that it takes at most so many bytes when it is percent-encoded.
fn clipped(text: &str, most: usize) -> String {
    let mut room = most;
    let end = text.char_indices().find(|(_, c)| {
        let size = if matches!(c, ' '..='~') && *c != '%' { 1 } else { 3 * c.len_utf8() };
        let fits = size <= room;
        room = room.saturating_sub(size);
        !fits
    });
    match end {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Adds a detail of our own to those that the standard ones are packed with.
fn with_detail(status: Status, detail: &Detail) -> Status {
    let (name, value) = match detail {
        Detail::GrantsRequired(needs) => ("GrantsRequired", grants_required(needs).encode_to_vec()),
        Detail::BodyTooLarge { status, headers, max_body_bytes } => {
            let headers = fitting(headers);
            let max_body_bytes = i64::try_from(*max_body_bytes).unwrap_or(i64::MAX);
            let head = Some(pb::ResponseHead { status: i32::from(*status), headers });
            ("BodyTooLarge", pb::BodyTooLarge { head, max_body_bytes }.encode_to_vec())
        }
    };
    let any = Any { type_url: format!("type.googleapis.com/longshore.v1.{name}"), value };
    let Ok(mut packed) = Packed::decode(status.details()) else { return status };
    packed.details.push(any);
    let details = Bytes::from(packed.encode_to_vec());
    Status::with_details_and_metadata(status.code(), status.message(), details, status.metadata().clone())
}

/// `google.rpc.Status`, which is what a gRPC status carries its details in.
#[derive(Clone, PartialEq, Message)]
struct Packed {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::grant::{Grant, Need};

    #[test]
    fn an_error_carries_reason_and_details() {
        let need = Need { grant: Grant::EngineFull, origin: "services.web.volumes".into() };
        let error = Error::new(Reason::GrantsRequired, "a/b", "needs more")
            .with_detail(Detail::GrantsRequired(vec![need]))
            .retry_after(Duration::from_secs(3));
        let status = status(error);
        assert_eq!(status.code(), Code::PermissionDenied);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("GRANTS_REQUIRED", DOMAIN));
        assert_eq!(info.metadata["subject"], "a/b");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(3)));
        let packed = Packed::decode(status.details()).unwrap();
        let own = packed.details.iter().find(|any| any.type_url.ends_with("GrantsRequired")).unwrap();
        assert_eq!(pb::GrantsRequired::decode(&own.value[..]).unwrap().grants[0].name, "engine.full");
    }

    #[test]
    fn a_bug_does_not_tell_its_inside() {
        let status = status(Error::bug("secret path /x"));
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("secret"));
    }

    /// `docs/errors.md` is made from the table of reasons; `LONGSHORE_BLESS=1` writes it anew.
    #[test]
    fn the_documented_reasons_are_those_that_exist() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
        let mut text = include_str!("reasons.md").to_owned();
        for reason in Reason::ALL {
            let code = format!("{:?}", code(reason.kind()));
            text.push_str(&format!("| `{}` | {code} | {} |\n", reason.as_str(), reason.meaning()));
        }
        if std::env::var_os("LONGSHORE_BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let current = std::fs::read_to_string(&path).unwrap();
        assert!(current == text, "docs/errors.md is out of date; run this test with LONGSHORE_BLESS=1");
    }
}
