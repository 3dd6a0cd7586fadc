//! A request body on its way to the backend.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::progress::Progress;
use crate::model::error::{Error, Reason};

/// How many empty pieces are passed over at a time.
pub(super) const MAX_EMPTY: usize = 64;

/// What a caller sends, piece by piece.
pub type Source = Pin<Box<dyn futures_util::Stream<Item = Result<Piece, Error>> + Send>>;

/// A piece of a request body.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Some bytes.
    Data(Bytes),
    /// Trailers; nothing comes after them.
    Trailers(HeaderMap),
}

/// How much a request body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Exactly this many bytes, said as `Content-Length` unless the method has no body and there are none.
    Known(u64),
    /// Unknown until it ends: chunked.
    Unknown,
}

/// A body that can be begun anew as long as nothing of it has left.
#[derive(Clone)]
pub struct Upload {
    state: Arc<Mutex<State>>,
    /// Never changes.
    length: Length,
}

struct State {
    source: Option<Source>,
    /// Taken from the source, not yet given to the connection.
    ahead: VecDeque<Piece>,
    /// Given to a connection that has sent nothing yet.
    given: Vec<Piece>,
    left: Length,
    failure: Option<Error>,
}

/// One sending of an [`Upload`].
pub(super) struct Sending {
    upload: Upload,
    progress: Arc<Progress>,
}

/// Why a body ended before its time; the reason itself is with the [`Upload`].
#[derive(Debug)]
pub(super) struct BrokenOff;

// === impl Upload ===

impl Upload {
    /// A body that is all there.
    pub fn whole(body: Bytes) -> Upload {
        let length = Length::Known(body.len() as u64);
        let ahead = if body.is_empty() { VecDeque::new() } else { VecDeque::from([Piece::Data(body)]) };
        Upload::new(None, ahead, length)
    }

    /// A body that comes in pieces.
    pub fn pieces(source: Source, length: Length) -> Upload {
        Upload::new(Some(source), VecDeque::new(), length)
    }

    fn new(source: Option<Source>, ahead: VecDeque<Piece>, length: Length) -> Upload {
        let state = State { source, ahead, given: Vec::new(), left: length, failure: None };
        Upload { state: Arc::new(Mutex::new(state)), length }
    }

    /// How much it holds.
    pub(super) fn length(&self) -> Length {
        self.length
    }

    /// Begins to send it, from the start; only where nothing of an earlier sending has left.
    pub(super) fn send(&self, progress: Arc<Progress>) -> Sending {
        let mut state = self.lock();
        let given = std::mem::take(&mut state.given);
        for piece in given.into_iter().rev() {
            state.ahead.push_front(piece);
        }
        state.left = self.length;
        Sending { upload: self.clone(), progress }
    }

    /// What was wrong with it.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.lock().failure.take()
    }

    /// Ready when more comes than was announced; the connection asks for no more than that.
    pub(super) fn poll_excess(&self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut state = self.lock();
        if state.left != Length::Known(0) || !state.ahead.is_empty() {
            return Poll::Pending;
        }
        let piece = match state.poll_piece(cx) {
            Poll::Pending | Poll::Ready(Ok(None)) => return Poll::Pending,
            Poll::Ready(piece) => piece,
        };
        match piece.and_then(|piece| state.account(piece.as_ref())) {
            Err(error) => Poll::Ready(error),
            Ok(()) => Poll::Pending,
        }
    }

    /// Whether all of it was taken.
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn is_over(&self) -> bool {
        self.ahead.is_empty() && (self.source.is_none() || self.left == Length::Known(0))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, Error>> {
        if let Some(piece) = self.ahead.pop_front() {
            return Poll::Ready(Ok(Some(piece)));
        }
        let Some(source) = &mut self.source else { return Poll::Ready(Ok(None)) };
        for _ in 0..MAX_EMPTY {
            match ready!(source.as_mut().poll_next(cx)) {
                Some(Ok(Piece::Data(data))) if data.is_empty() => {}
                Some(Ok(Piece::Data(data))) => return Poll::Ready(Ok(Some(Piece::Data(data)))),
                last => {
                    self.source = None;
                    return Poll::Ready(last.transpose());
                }
            }
        }
        // Whoever sends nothing without end does not keep the others waiting.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Holds a piece against what was announced.
    fn account(&mut self, piece: Option<&Piece>) -> Result<(), Error> {
        let Length::Known(left) = self.left else { return Ok(()) };
        let refused = |message: String| Err(Error::new(Reason::RequestInvalid, "content_length", message));
        match piece {
            Some(Piece::Data(data)) if data.len() as u64 > left => {
                refused(format!("the body is longer than announced, by {} bytes", data.len() as u64 - left))
            }
            Some(Piece::Data(data)) => {
                self.left = Length::Known(left - data.len() as u64);
                Ok(())
            }
            Some(Piece::Trailers(_)) => {
                let message = "trailers need a body of unknown length; leave content_length out";
                Err(Error::new(Reason::RequestInvalid, "trailers", message))
            }
            None if left > 0 => refused(format!("the body ended {left} bytes before what was announced")),
            None => Ok(()),
        }
    }
}

// === impl Sending ===

impl Body for Sending {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        // Nobody takes it: it stays with the caller, until the backend's answer or its end decides.
        if self.progress.is_write_broken() {
            return Poll::Pending;
        }
        let mut state = self.upload.lock();
        let piece = match state.poll_piece(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(piece) => piece,
        };
        let checked = piece.and_then(|piece| state.account(piece.as_ref()).map(|()| piece));
        let piece = match checked {
            Ok(Some(piece)) => piece,
            Ok(None) => return Poll::Ready(None),
            Err(error) => {
                state.failure = Some(error);
                return Poll::Ready(Some(Err(BrokenOff)));
            }
        };
        if self.progress.sent() {
            state.given = Vec::new();
        } else {
            state.given.push(piece.clone());
        }
        Poll::Ready(Some(Ok(match piece {
            Piece::Data(data) => Frame::data(data),
            Piece::Trailers(trailers) => Frame::trailers(trailers),
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.upload.lock().is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match self.upload.lock().left {
            Length::Known(left) => SizeHint::with_exact(left),
            Length::Unknown => SizeHint::default(),
        }
    }
}

// === impl BrokenOff ===

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request body broke off")
    }
}

impl std::error::Error for BrokenOff {}
