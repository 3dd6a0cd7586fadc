//! A request body on its way to the backend.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;

use super::{HeaderLine, headers};
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
    /// Trailers, as [`headers::trailers`] gives them; nothing comes after them. Those that were not announced are left
    /// out.
    Trailers(Vec<HeaderLine>),
}

/// How much a request body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Exactly this many bytes, said as `Content-Length` unless the method has no body and there are none.
    Known(u64),
    /// Unknown until it ends: chunked.
    Unknown,
}

/// A body that is still to be sent.
pub struct Upload {
    /// `None` once it has ended.
    source: Option<Source>,
    /// Comes before what is in the source.
    whole: Bytes,
    length: Length,
    left: Length,
    /// Something was taken.
    was_taken: bool,
    /// All of it was taken, and framed.
    is_over: bool,
}

impl Upload {
    /// A body that is all there.
    pub fn whole(body: Bytes) -> Upload {
        let length = Length::Known(body.len() as u64);
        Upload { source: None, whole: body, length, left: length, was_taken: false, is_over: false }
    }

    /// A body that comes in pieces.
    pub fn pieces(source: Source, length: Length) -> Upload {
        let whole = Bytes::new();
        Upload { source: Some(source), whole, length, left: length, was_taken: false, is_over: false }
    }

    /// How much it holds.
    pub(super) fn length(&self) -> Length {
        self.length
    }

    /// Whether all of it was taken.
    pub(super) fn is_over(&self) -> bool {
        self.is_over || self.left == Length::Known(0)
    }

    /// Puts what comes next, framed as its length asks for, behind what is to be written; asked only before it is over.
    /// `announced` are the names of the trailers that may come.
    ///
    /// # Errors
    ///
    /// What the source says, and `REQUEST_INVALID` where it holds less or more than it should.
    pub(super) fn poll_framed(
        &mut self,
        announced: &[String],
        unsent: &mut VecDeque<Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let piece = ready!(self.poll_checked(cx))?;
        match (piece, self.length) {
            (Some(Piece::Data(data)), Length::Known(_)) => unsent.push_back(data),
            (Some(Piece::Data(data)), Length::Unknown) => {
                unsent.extend([format!("{:x}\r\n", data.len()).into(), data, Bytes::from_static(b"\r\n")]);
            }
            (None, Length::Known(_)) => {}
            (last, Length::Unknown) => {
                let mut end = b"0\r\n".to_vec();
                if let Some(Piece::Trailers(lines)) = last {
                    lines
                        .iter()
                        .filter(|line| is_announced(line, announced))
                        .for_each(|line| headers::write_line(&mut end, &line.name, &line.value));
                }
                end.extend_from_slice(b"\r\n");
                unsent.push_back(end.into());
            }
            // It was refused.
            (Some(Piece::Trailers(_)), Length::Known(_)) => {}
        }
        Poll::Ready(Ok(()))
    }

    /// The next piece, held against what was announced; `None` or trailers are its end. Asked only before it is over.
    ///
    /// # Errors
    ///
    /// As [`Upload::poll_framed`].
    pub(super) fn poll_checked(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, Error>> {
        let piece = ready!(self.poll_piece(cx))?;
        self.was_taken = true;
        self.account(piece.as_ref())?;
        if !matches!(piece, Some(Piece::Data(_))) {
            (self.source, self.is_over) = (None, true);
        }
        Poll::Ready(Ok(piece))
    }

    /// The same once more, where all of it is there.
    pub(super) fn again(&self) -> Option<Upload> {
        self.source.is_none().then(|| Upload::whole(self.whole.clone()))
    }

    /// Whether something was taken of it.
    pub(super) fn was_taken(&self) -> bool {
        self.was_taken
    }

    /// Ready when more comes than was announced; nobody asks for more than that.
    pub(super) fn poll_excess(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        if self.left != Length::Known(0) || self.source.is_none() {
            return Poll::Pending;
        }
        match ready!(self.poll_piece(cx)).and_then(|piece| self.account(piece.as_ref())) {
            Err(error) => Poll::Ready(error),
            Ok(()) => Poll::Pending,
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, Error>> {
        if !self.whole.is_empty() {
            return Poll::Ready(Ok(Some(Piece::Data(std::mem::take(&mut self.whole)))));
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

/// Whether a trailer was announced.
pub(super) fn is_announced(line: &HeaderLine, names: &[String]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(&line.name))
}
