//! The calls that are open: descriptors are kept for them, they are counted so that a stop can wait for them, and each
//! ends with its caller's deadline.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{sync::Notify, time::Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use super::{
    descriptors,
    reply::{Chunk, Reply, refusal, trailers},
    scope::InSession,
    status,
    tally::Tally,
    trace::{Subject, Trace},
};
use crate::{
    core::Session,
    model::error::{Error, Reason},
};

/// Descriptors that are kept for the calls that are open: each may still need a few.
const RESERVED_DESCRIPTORS: u64 = 128;
/// Descriptors that a call may take for itself, as far as looking again at how many are open can be put off.
const CALL_DESCRIPTORS: u64 = 4;
/// Calls that begin between two looks at most.
const MAX_CALLS_UNSEEN: u64 = 32;
/// When to try again after descriptors were short.
const LIMIT_RETRY: Duration = Duration::from_secs(1);

/// The calls that are open.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls(Arc<Open>);

#[derive(Debug, Default)]
struct Open {
    count: AtomicUsize,
    /// Calls that may begin before the open descriptors are counted again: that takes two system calls.
    unseen: AtomicU64,
    ended: Notify,
    stopping: CancellationToken,
    cut: CancellationToken,
    /// How many have begun.
    begun: AtomicU64,
    /// Where they are counted when they end, if anybody asks.
    tally: Option<Arc<Tally>>,
}

/// How a call ends when the broker stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// At the end of the drain: it is one of ours that ends by itself, or a backend's.
    CutOff,
    /// At once, as nothing else ends it.
    Stopped,
}

/// What ends a call before its time.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) ending: Ending,
    /// How long it may take.
    pub(super) deadline: Option<Duration>,
    /// It ends with the session that it belongs to.
    pub(super) session: InSession,
}

/// One open call; closed when dropped.
pub(super) struct Call {
    calls: Calls,
    terms: Terms,
    deadline: Option<Pin<Box<Sleep>>>,
    stopping: Waiting,
    ended: Waiting,
    is_answered: bool,
    trace: Trace,
}

/// Made when it is first waited for.
type Waiting = Option<Pin<Box<WaitForCancellationFutureOwned>>>;

/// An open call that is not answered yet.
pub(super) struct Answering {
    /// In a box of its own, which is all the room it takes: an `async` block around it would hold it two times over.
    answer: Pin<Box<dyn Future<Output = http::Response<Reply>> + Send>>,
    /// `None` once it is answered.
    call: Option<Call>,
}

/// A body that belongs to an open call and ends with its deadline, with its session, or with the broker.
pub(super) struct CountedBody {
    body: Reply,
    call: Call,
}

impl Calls {
    /// Calls that are counted when they end.
    pub(super) fn counted(tally: Option<Arc<Tally>>) -> Self {
        Calls(Arc::new(Open { tally, ..Open::default() }))
    }

    /// Begins to tell of a call.
    pub(super) fn trace(&self, subject: &Subject<'_>) -> Trace {
        let number = self.0.begun.fetch_add(1, Ordering::Relaxed) + 1;
        Trace::begin(number, subject, self.0.tally.clone())
    }

    /// Counts a call from now on.
    pub(super) fn begin(&self, terms: Terms, trace: Trace) -> Call {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        let deadline = terms.deadline.map(|after| Box::pin(tokio::time::sleep(after)));
        Call { calls: self.clone(), terms, deadline, stopping: None, ended: None, is_answered: false, trace }
    }

    /// Refuses new work while descriptors are short, so that accepted work goes on.
    pub(super) fn check_descriptors(&self) -> Result<(), Error> {
        let unseen = &self.0.unseen;
        if unseen.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |calls| calls.checked_sub(1)).is_ok() {
            return Ok(());
        }
        let limit = descriptors::most();
        let spare = limit.saturating_sub(descriptors::open(limit, RESERVED_DESCRIPTORS) + RESERVED_DESCRIPTORS);
        if spare > 0 {
            unseen.store((spare / CALL_DESCRIPTORS).min(MAX_CALLS_UNSEEN), Ordering::Relaxed);
            return Ok(());
        }
        let message = format!("the broker is near its limit of {limit} open descriptors; try again");
        Err(Error::new(Reason::LimitReached, "", message).retry_after(LIMIT_RETRY))
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Ends the streams of services that are not ours, such as a watch of health, saying why; ours see to it themselves.
    pub(super) fn stop(&self) {
        self.0.stopping.cancel();
    }

    /// Ends those that have not answered yet, saying why.
    pub(super) fn cut_off(&self) {
        self.0.cut.cancel();
    }

    /// Waits until none is open.
    pub(super) async fn idle(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.open() == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.calls.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.calls.0.ended.notify_waiters();
        }
    }
}

impl Call {
    /// Waits for the answer, as long as there is time for it; what ends it otherwise is the answer.
    pub(super) fn answer(self, answer: impl Future<Output = http::Response<Reply>> + Send + 'static) -> Answering {
        Answering { answer: Box::pin(answer), call: Some(self) }
    }

    /// From now on it ends as its terms say.
    fn answered(&mut self) {
        self.is_answered = true;
        if self.terms.ending == Ending::Stopped {
            self.stopping = None;
        }
    }

    fn stopping(&self) -> &CancellationToken {
        match self.terms.ending {
            Ending::Stopped if self.is_answered => &self.calls.0.stopping,
            Ending::Stopped | Ending::CutOff => &self.calls.0.cut,
        }
    }

    /// What ended the call, once something has that is none of its own.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let mut is_cancelled = |waiting: &mut Waiting, token: &CancellationToken| {
            let waiting = waiting.get_or_insert_with(|| Box::pin(token.clone().cancelled_owned()));
            waiting.as_mut().poll(cx).is_ready()
        };
        let mut stopping = self.stopping.take();
        let is_stopped = is_cancelled(&mut stopping, self.stopping());
        self.stopping = stopping;
        if is_stopped {
            return Poll::Ready(status::stopping());
        }
        if let Some(session) = &self.terms.session
            && is_cancelled(&mut self.ended, session.ended())
        {
            return Poll::Ready(status::status(session.ended_error()));
        }
        match &mut self.deadline {
            Some(passed) => passed.as_mut().poll(cx).map(|()| status::deadline_exceeded()),
            None => Poll::Pending,
        }
    }
}

impl Future for Answering {
    type Output = Result<http::Response<CountedBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Answering { answer, call: open } = &mut *self;
        let Some(call) = open else { return Poll::Pending };
        let mut response = match call.trace.span().in_scope(|| answer.as_mut().poll(cx)) {
            Poll::Ready(response) => response,
            Poll::Pending => refusal(ready!(call.poll_ended(cx))),
        };
        call.trace.note(response.headers_mut());
        call.answered();
        let Some(call) = open.take() else { return Poll::Pending };
        Poll::Ready(Ok(response.map(|body| CountedBody { body, call })))
    }
}

impl CountedBody {
    /// Whether it ends at the next frame, without being waited for: a body that always has more never is.
    fn is_over(&self) -> bool {
        let is_session_over = |session: &Arc<Session>| session.ended().is_cancelled();
        matches!(self.body, Reply::Many(_)) && self.call.stopping().is_cancelled()
            || self.call.terms.session.as_ref().is_some_and(is_session_over)
    }
}

impl HttpBody for CountedBody {
    type Data = Chunk;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, Status>>> {
        let is_over = self.is_over();
        let CountedBody { body, call } = &mut *self;
        if !is_over && let Poll::Ready(mut frame) = call.trace.span().in_scope(|| Pin::new(body).poll_frame(cx)) {
            if let Some(Ok(frame)) = &mut frame
                && let Some(trailers) = frame.trailers_mut()
            {
                call.trace.note(trailers);
            }
            return Poll::Ready(frame);
        }
        let mut ended = trailers(ready!(call.poll_ended(cx)));
        call.trace.note(&mut ended);
        // What the body holds, such as a program, ends now.
        self.body = Reply::Empty;
        Poll::Ready(Some(Ok(Frame::trailers(ended))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_waits_for_the_last_call() {
        let calls = Calls::default();
        let terms = Terms { ending: Ending::CutOff, deadline: None, session: None };
        let headers = http::HeaderMap::new();
        let subject = Subject { path: "/x", headers: &headers, is_carried: false, is_passed: false, uid: 0 };
        let begin = |terms| calls.begin(terms, calls.trace(&subject));
        let (first, second) = (begin(terms.clone()), begin(terms));
        let waiting = tokio::spawn({
            let calls = calls.clone();
            async move { calls.idle().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
    }
}
