//! Counting the time in which an output is open and empty.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

/// How long the output was open and empty after the end.
#[derive(Debug)]
pub(super) struct Drain {
    left: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Drain {
    /// Open and empty for that long altogether, and it is over.
    pub(super) fn new(left: Duration) -> Self {
        Drain { left, since: None, timer: None }
    }

    /// Counts on. Ready when the time is used up.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.since.get_or_insert_with(Instant::now);
        let left = self.left;
        self.timer.get_or_insert_with(|| Box::pin(sleep(left))).as_mut().poll(cx)
    }

    /// Stops counting: something was read.
    pub(super) fn interrupt(&mut self) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
            self.timer = None;
        }
    }
}
