//! A channel between a run and what keeps its program, both in this process.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::sync::watch;

use super::wire::Message;

/// Nothing comes with a message but itself.
#[derive(Debug)]
pub enum Passed {}

/// A message with what came with it.
pub type Delivery = (Message, Vec<Passed>);

/// Messages come whole here: there is nothing to put together.
#[derive(Debug)]
pub struct Inbox;

impl Inbox {
    /// An empty one.
    pub fn new(_max_message_bytes: usize) -> Self {
        Inbox
    }
}

/// An end of a channel. Closing it, and half-closing it by [`Channel::kill`], ends what it was opened for.
#[derive(Debug)]
pub struct Channel {
    /// What is said to this end.
    heard: Arc<Queue>,
    /// What is said by it.
    said: Arc<Queue>,
}

/// One direction.
#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    /// Counts what happens.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    is_closed: bool,
    wakers: Vec<Waker>,
}

/// That something may be there to read.
#[derive(Debug)]
pub struct Guard(());

impl Guard {
    /// Nothing has to be cleared: what was read is no longer there.
    pub fn clear_ready(&mut self) {}
}

impl Default for Queue {
    fn default() -> Self {
        Queue { state: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let wakers = {
            let mut state = self.lock();
            change(&mut state);
            std::mem::take(&mut state.wakers)
        };
        self.changes.send_modify(|changes| *changes += 1);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Two ends of a channel.
///
/// # Errors
///
/// None here.
pub fn pair() -> io::Result<(Channel, Channel)> {
    let (one, other) = (Arc::new(Queue::default()), Arc::new(Queue::default()));
    Ok((Channel { heard: one.clone(), said: other.clone() }, Channel { heard: other, said: one }))
}

impl Channel {
    /// Says a message, as a whole frame: how many bytes were taken.
    pub fn try_send(&self, frame: &[u8], _passed: &[Infallible]) -> io::Result<usize> {
        let message = Message::from_bytes(frame, frame.len()).map_err(io::Error::other)?;
        let (message, _) = message.ok_or(io::ErrorKind::InvalidData)?;
        self.say(message);
        Ok(frame.len())
    }

    /// Says a message.
    pub fn say(&self, message: Message) {
        self.said.change(|state| state.messages.push_back(message));
    }

    /// A message that is there now; `None` when the other side is gone. Fails with `WouldBlock` where there is none.
    pub fn try_next(&self, _inbox: &mut Inbox) -> io::Result<Option<Delivery>> {
        let mut state = self.heard.lock();
        match state.messages.pop_front() {
            Some(message) => Ok(Some((message, vec![]))),
            None if state.is_closed => Ok(None),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Waits until something may be there to read.
    pub async fn readable(&self) -> io::Result<Guard> {
        let mut changes = self.heard.changes.subscribe();
        changes.mark_unchanged();
        let is_there = {
            let state = self.heard.lock();
            state.is_closed || !state.messages.is_empty()
        };
        if !is_there {
            changes.changed().await.map_err(io::Error::other)?;
        }
        Ok(Guard(()))
    }

    /// The next message; `None` when the other side is gone.
    pub fn poll_next(&self, inbox: &mut Inbox, cx: &mut Context<'_>) -> Poll<io::Result<Option<Delivery>>> {
        // First, so that what comes meanwhile wakes.
        {
            let mut state = self.heard.lock();
            state.wakers.retain(|waker| !waker.will_wake(cx.waker()));
            state.wakers.push(cx.waker().clone());
        }
        match self.try_next(inbox) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            other => Poll::Ready(other),
        }
    }

    /// Tells the other side that it is over, and still hears what it says about that.
    pub fn kill(&self) {
        self.said.change(|state| state.is_closed = true);
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.kill();
        self.heard.change(|state| state.is_closed = true);
    }
}
