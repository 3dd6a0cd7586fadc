//! What is told of a call: a number that no other call of this run has, a span with it that everything logged on the
//! call's behalf belongs to, and what came of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::tally::{CODES, PASSED_THROUGH, Tally};
use crate::{core::Session, model::reference::ExtensionId};

/// Where the caller is told the number.
const CALL_ID: HeaderName = HeaderName::from_static("longshore-call-id");
/// Where the caller says which trace the call belongs to (W3C Trace Context).
const TRACE_PARENT: &str = "traceparent";
/// What came of a call whose caller went before its end.
const CANCELLED: usize = 1;
/// What came of a call that says nothing of it, or nothing that can be read.
const UNKNOWN: usize = 2;

/// What is told of one call, from its beginning to its end, which is when this is dropped.
pub(super) struct Trace {
    number: u64,
    span: Span,
    /// Only where somebody wants to know.
    begun: Option<Instant>,
    /// Where it is counted, and as what.
    tally: Option<(Arc<Tally>, usize)>,
    code: Option<usize>,
    is_told: bool,
}

/// Whose call it is, and of what.
pub(super) struct Subject<'a> {
    /// The method's path.
    pub(super) path: &'a str,
    pub(super) headers: &'a HeaderMap,
    /// Whether it is carried to a backend. Of those there are many: they are told of where more is told than usual.
    pub(super) is_carried: bool,
    /// Whether it is a method of a backend's.
    pub(super) is_passed: bool,
    pub(super) uid: u32,
}

impl Trace {
    pub(super) fn begin(number: u64, subject: &Subject<'_>, tally: Option<Arc<Tally>>) -> Self {
        let Subject { path, headers, is_carried, is_passed, uid } = *subject;
        let method = path.strip_prefix('/').unwrap_or(path);
        macro_rules! call {
            ($level:ident) => {
                tracing::span!(
                    tracing::Level::$level,
                    "call",
                    call = number,
                    method,
                    uid,
                    extension = field::Empty,
                    session = field::Empty,
                    code = field::Empty
                )
            };
        }
        let span = if is_carried { call!(DEBUG) } else { call!(INFO) };
        if headers.contains_key(TRACE_PARENT) {
            join(&span, headers);
        }
        let tally = tally.map(|tally| {
            let place = tally.place(if is_passed { PASSED_THROUGH } else { method });
            (tally, place)
        });
        let begun = (tally.is_some() || !span.is_disabled()).then(Instant::now);
        Trace { number, span, begun, tally, code: None, is_told: false }
    }

    /// What is done on the call's behalf is done in here.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// It acts as that session.
    pub(super) fn note_session(&self, session: &Session) {
        self.span.record("session", session.id.as_str());
        self.span.record("extension", session.extension.as_str());
    }

    /// Notes what came of the call, where these headers or trailers say it, and tells the number in them: of calls that
    /// failed, and of those that something may be logged of.
    pub(super) fn note(&mut self, headers: &mut HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            let code = status.to_str().ok().and_then(|text| text.parse().ok());
            self.code = Some(code.filter(|code| *code < CODES.len()).unwrap_or(UNKNOWN));
        }
        let has_failed = self.code.is_some_and(|code| code > 0);
        if !self.is_told && (has_failed || !self.span.is_disabled()) {
            self.is_told = true;
            headers.insert(CALL_ID, HeaderValue::from(self.number));
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let Some(begun) = self.begun else { return };
        let (code, took) = (self.code.unwrap_or(CANCELLED), begun.elapsed());
        if let Some((tally, place)) = &self.tally {
            tally.count(*place, code, took);
        }
        self.span.record("code", CODES[code]);
        let _entered = self.span.enter();
        tracing::debug!(took_ms = millis(took), "the call ended");
    }
}

/// Makes a span part of the trace that the caller names, where spans are sent.
fn join(span: &Span, headers: &HeaderMap) {
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Fields(headers));
    // Fails where no span is sent, or this one is not.
    let _ = span.set_parent(parent);
}

/// Header fields, as OpenTelemetry reads them.
struct Fields<'a>(&'a HeaderMap);

impl Extractor for Fields<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// Milliseconds, to the microsecond.
fn millis(took: Duration) -> f64 {
    took.as_micros() as f64 / 1000.0
}

/// Notes which extension the call is about that is being answered.
pub(super) fn note_extension(id: &ExtensionId) {
    Span::current().record("extension", id.as_str());
}
