//! What is left of an exchange after the backend switched protocols.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Source, http2::Http2, switched::Switched};
use crate::model::error::Result;

/// A connection after the backend switched protocols: raw bytes both ways.
pub struct Upgraded(Kind);

enum Kind {
    /// On a stream of their own.
    Http1(Box<Switched>),
    /// In the frames of one exchange among others.
    Http2(Box<Http2>),
}

/// What comes of one.
#[derive(Debug, PartialEq, Eq)]
pub enum Raw {
    /// Bytes from the backend.
    Data(Bytes),
    /// The backend sends no more; it may still read.
    End,
}

impl Upgraded {
    pub(super) fn http1(switched: Switched) -> Upgraded {
        Upgraded(Kind::Http1(Box::new(switched)))
    }

    pub(super) fn http2(exchange: Box<Http2>) -> Upgraded {
        Upgraded(Kind::Http2(exchange))
    }

    /// From where the bytes for the backend come. At its end the backend is told that no more come.
    #[must_use]
    pub fn fed_by(self, source: Source) -> Upgraded {
        Upgraded(match self.0 {
            Kind::Http1(switched) => Kind::Http1(Box::new(switched.fed_by(source))),
            Kind::Http2(mut exchange) => {
                exchange.feed(source);
                Kind::Http2(exchange)
            }
        })
    }

    /// Moves bytes both ways; `None` when both directions have ended, or the backend is gone.
    ///
    /// # Errors
    ///
    /// What the source says, and `BACKEND_TOO_SLOW`.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Raw>>> {
        match &mut self.0 {
            Kind::Http1(switched) => switched.poll_next(cx),
            Kind::Http2(exchange) => exchange.poll_raw(cx),
        }
    }
}
