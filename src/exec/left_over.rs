//! A tree that outlived its program and its call: what it writes is read and forgotten until it is gone.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tracing::Instrument;

use super::{
    execution::{Execution, KeeperState},
    output::Output,
    program::Cause,
};

/// How many trees of one owner may outlive their programs.
const MAX_LEFT_OVER: usize = 256;

pub(super) struct LeftOver {
    execution: Arc<Execution>,
    outputs: [Output; 2],
}

impl LeftOver {
    /// Sees to it until it ends: by itself, with its owner, or with this process.
    pub(super) fn leave(execution: Arc<Execution>, outputs: [Output; 2]) {
        execution.note_run_over();
        if !execution.is_present() {
            return;
        }
        if execution.count_left_over() > MAX_LEFT_OVER {
            let (exec, owner) = (&execution.info.id, &execution.info.owner);
            tracing::warn!(exec, extension = owner, "too many left-over programs: ended");
            execution.end(Cause::LeftOver);
            return;
        }
        tokio::spawn(LeftOver { execution, outputs }.in_current_span());
    }
}

impl Future for LeftOver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        /// How many reads are done before others get their turn.
        const READS_PER_TURN: usize = 8;
        let LeftOver { execution, outputs } = self.get_mut();
        if execution.poll_hear(cx).keeper != KeeperState::Present {
            return Poll::Ready(());
        }
        for output in outputs {
            let mut reads = 0;
            while let Poll::Ready(Some(_)) = output.poll_read(cx) {
                reads += 1;
                if reads == READS_PER_TURN {
                    cx.waker().wake_by_ref();
                    break;
                }
            }
        }
        Poll::Pending
    }
}
