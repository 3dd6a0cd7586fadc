//! Waiting for a time in which nothing happens.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Waits for so long a silence.
#[derive(Debug)]
pub(super) struct Silence {
    length: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    pub(super) fn new(length: Duration) -> Self {
        Silence { length, timer: None }
    }

    /// Ready when nothing has happened for that long; `last` is when something did, as far as is known elsewhere.
    pub(super) fn poll(&mut self, last: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let end = last + self.length;
        if end <= Instant::now() {
            return Poll::Ready(());
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        timer.as_mut().poll(cx)
    }
}
