//! What keeps a program, as the broker sees it, and what is left over when the program has ended.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{channel::Channel, output::Output, trees::Entry};
use crate::shim::socket::Inbox;

/// What keeps the program.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) channel: Arc<Channel>,
    pub(super) inbox: Inbox,
    /// Taken out of the living when this is dropped.
    pub(super) entry: Entry,
    pub(super) counts_here: bool,
    pub(super) state: KeeperState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeeperState {
    /// It keeps.
    Present,
    /// The tree is gone, and the keeper with it.
    Finished,
    /// It went without saying that the tree is gone.
    Vanished,
}

/// A tree that outlived its program: what it writes is read and forgotten until it is gone.
pub(super) struct LeftOver {
    pub(super) keeper: Keeper,
    pub(super) outputs: [Output; 2],
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Not left to the channel's closing: others may hold it for a moment.
        self.channel.kill();
    }
}

impl Future for LeftOver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        /// How many reads are done before others get their turn.
        const READS_PER_TURN: usize = 8;
        let LeftOver { keeper, outputs } = self.get_mut();
        // The end was told already, so whatever is said now says that the tree is gone.
        if keeper.channel.poll_next(&mut keeper.inbox, cx).is_ready() {
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
