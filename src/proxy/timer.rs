//! The time limits of one exchange.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{Limits, failure, progress::Progress};
use crate::model::error::{Error, Result};

/// Watches over one exchange. A limit that is not set costs nothing.
pub(super) struct Timer {
    started: Instant,
    /// When a connection was there; the backend answers for no time before that.
    connected: Option<Instant>,
    head: Option<Duration>,
    idle: Option<Duration>,
    total: Option<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// When bytes last moved, and how many had by then.
    moved: (Instant, u64),
}

/// A timer and what it looks at.
pub(super) struct Watch {
    pub(super) backend: Arc<str>,
    pub(super) timer: Timer,
    pub(super) progress: Progress,
}

impl Timer {
    /// Starts now.
    pub(super) fn start(limits: &Limits) -> Timer {
        let started = Instant::now();
        let Limits { head, idle, total, .. } = *limits;
        Timer { started, connected: None, head, idle, total, sleep: None, moved: (started, 0) }
    }

    /// For another connection: the total goes on, the rest begins anew.
    pub(super) fn disconnected(&mut self) {
        self.connected = None;
    }

    /// A connection is there, and perhaps a timer that was used before.
    pub(super) fn connected(&mut self, timer: Option<Pin<Box<Sleep>>>) {
        let now = Instant::now();
        self.sleep = self.sleep.take().or(timer);
        self.connected = Some(now);
        self.moved = (now, 0);
    }

    /// The timer, when it is not needed any more.
    pub(super) fn take_timer(&mut self) -> Option<Pin<Box<Sleep>>> {
        self.sleep.take()
    }

    /// Runs `exchange` as long as no limit passes.
    ///
    /// # Errors
    ///
    /// `BACKEND_TOO_SLOW`, or what `exchange` says.
    pub(super) async fn hold<T>(
        &mut self,
        backend: &str,
        progress: &Progress,
        exchange: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut exchange = pin!(exchange);
        poll_fn(|cx| match exchange.as_mut().poll(cx) {
            Poll::Ready(ended) => Poll::Ready(ended),
            Poll::Pending => self.poll_passed(backend, progress, cx).map(Err),
        })
        .await
    }

    /// Ready when a limit has passed, with the error that says which.
    pub(super) fn poll_passed(&mut self, backend: &str, progress: &Progress, cx: &mut Context<'_>) -> Poll<Error> {
        loop {
            let Some((due, limit)) = self.next_due(progress) else { return Poll::Pending };
            match &mut self.sleep {
                // Bytes moved, or the head came: what it waits for lies further off. It looks again when it wakes.
                Some(sleep) if sleep.deadline() <= due && !sleep.is_elapsed() => ready!(sleep.as_mut().poll(cx)),
                Some(sleep) if sleep.is_elapsed() && Instant::now() >= due => {
                    return Poll::Ready(failure::too_slow(backend, limit, progress));
                }
                Some(sleep) => {
                    sleep.as_mut().reset(due);
                    ready!(sleep.as_mut().poll(cx));
                }
                None => self.sleep = Some(Box::pin(sleep_until(due))),
            }
        }
    }

    /// The error of a total, or of the time to the head, that is used up, for where nothing is waited for.
    pub(super) fn spent(&self, backend: &str, progress: &Progress) -> Option<Error> {
        let is_spent = |since: Instant, limit: &Duration| since.elapsed() >= *limit;
        let total = self.total.filter(|total| is_spent(self.started, total));
        let head = self.head.filter(|_| !progress.is_head_seen()).zip(self.connected);
        let head = head.and_then(|(head, connected)| is_spent(connected, &head).then_some(head));
        total.or(head).map(|limit| failure::too_slow(backend, limit, progress))
    }

    /// The limit that passes next unless something happens.
    fn next_due(&mut self, progress: &Progress) -> Option<(Instant, Duration)> {
        let total = self.total.map(|limit| (self.started + limit, limit));
        let Some(connected) = self.connected else { return total };
        let head = self.head.filter(|_| !progress.is_head_seen()).map(|limit| (connected + limit, limit));
        let idle = self.idle.map(|limit| {
            let bytes = progress.moved_bytes();
            if bytes != self.moved.1 {
                self.moved = (Instant::now(), bytes);
            }
            (self.moved.0 + limit, limit)
        });
        [total, head, idle].into_iter().flatten().min()
    }
}
