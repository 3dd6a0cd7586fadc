//! Patience with a backend that has answered and still takes the rest of its request.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// How long a backend that has answered may go on without taking more of the request body.
pub(super) const LATE_READER: Duration = Duration::from_millis(250);

/// How long nothing has moved, if anybody waits for that.
#[derive(Default)]
pub(super) struct Patience(Option<Waiting>);

struct Waiting {
    timer: Pin<Box<Sleep>>,
    moved_bytes: u64,
}

impl Patience {
    /// Completes when it has been `moved_bytes` for as long as [`LATE_READER`].
    pub(super) fn poll_lost(&mut self, moved_bytes: u64, cx: &mut Context<'_>) -> Poll<()> {
        let waiting = self.0.take().filter(|waiting| waiting.moved_bytes == moved_bytes);
        let waiting = waiting.unwrap_or_else(|| Waiting { timer: Box::pin(sleep(LATE_READER)), moved_bytes });
        self.0.insert(waiting).timer.as_mut().poll(cx)
    }

    /// Nothing is waited for any more.
    pub(super) fn reset(&mut self) {
        self.0 = None;
    }
}
