//! A running program as a stream of events.
//!
//! Everything is read when the stream is polled and at no other time: no task and no queue stands between the program and
//! the caller, and a slow caller stalls its own program only.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;

use super::{
    channel::Channel,
    idle::Idle,
    keeper::{Keeper, KeeperState, LeftOver},
    output::Output,
    pidfd::pid_here,
    program::{Cut, Drained, Event, Outcome, OutputStream},
    trees::Entry,
};
use crate::shim::{
    socket::{Delivery, Inbox},
    wire::{MAX_ANSWER_BYTES, Message, StartReason},
};

/// A running program: events until [`Event::Drained`], then nothing. Dropped before that, the program and all that it
/// started is killed. What still lives after it is ended with its owner.
#[derive(Debug)]
pub struct Run {
    exec_id: String,
    keeper: Option<Keeper>,
    outputs: [Output; 2],
    /// Which output is read first next time, so that neither starves.
    turn: usize,
    /// The program's process id, from when it started until that is told.
    started_pid: Option<i64>,
    has_started: bool,
    end: End,
    /// The keeper vanished before the end: there could have been more output.
    is_end_unknown: bool,
    idle: Idle,
    is_over: bool,
}

#[derive(Debug)]
enum End {
    NotYet,
    Known(Outcome),
    Told,
}

impl Run {
    /// A program whose keeper was asked to start it. `counts_here`: the shim's process ids are this machine's.
    pub(super) fn new(
        exec_id: String,
        channel: Arc<Channel>,
        entry: Entry,
        outputs: [Output; 2],
        drain: Duration,
        counts_here: bool,
    ) -> Self {
        let inbox = Inbox::new(MAX_ANSWER_BYTES);
        let keeper = Keeper { channel, inbox, entry, counts_here, state: KeeperState::Present };
        Run { keeper: Some(keeper), outputs, ..Run::ended(exec_id, End::NotYet, drain) }
    }

    /// A program that was not even tried.
    pub(super) fn not_started(exec_id: String, reason: StartReason, message: String) -> Self {
        Run::ended(exec_id, End::Known(Outcome::start_failure(reason, message)), Duration::ZERO)
    }

    fn ended(exec_id: String, end: End, drain: Duration) -> Self {
        let outputs = [Output::ended(), Output::ended()];
        Run {
            exec_id,
            keeper: None,
            outputs,
            turn: 0,
            started_pid: None,
            has_started: false,
            end,
            is_end_unknown: false,
            idle: Idle::new(drain),
            is_over: false,
        }
    }

    /// Unique on this broker.
    pub fn exec_id(&self) -> &str {
        &self.exec_id
    }

    /// Sends the program a signal; nothing happens where it has ended.
    pub fn signal(&self, number: i32) {
        if let Some(keeper) = &self.keeper {
            // Small and rare: where it does not fit, the shim is stuck and nothing would help.
            let _ = keeper.channel.try_send(&Message::Signal(number).to_frame(), &[]);
        }
    }

    /// Kills the program and all that it started. The stream goes on and tells how it ended.
    pub fn kill(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.channel.kill();
        }
    }

    /// Takes all that the keeper has said.
    fn hear(&mut self, cx: &mut Context<'_>) {
        while let Some(keeper) = self.keeper.as_mut().filter(|keeper| keeper.state == KeeperState::Present) {
            match keeper.channel.poll_next(&mut keeper.inbox, cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(Some(delivery))) => self.note(delivery),
                Poll::Ready(Ok(None)) => self.note_vanished("its keeper is gone"),
                Poll::Ready(Err(error)) => self.note_vanished(&error.to_string()),
            }
        }
    }

    /// Notes what the keeper says. What is out of turn ends it: a container's own root may speak in its place, and shall
    /// neither tell two ends nor keep us listening.
    fn note(&mut self, (message, mut fds): Delivery) {
        let Some(keeper) = &mut self.keeper else { return };
        match (message, self.has_started, &self.end) {
            (Message::Started { pid, .. }, false, End::NotYet) => {
                let pid = if keeper.counts_here { Some(i64::from(pid)) } else { fds.pop().and_then(pid_here) };
                self.started_pid = Some(pid.unwrap_or_default());
                self.has_started = true;
            }
            (Message::StartFailed { reason, message }, false, End::NotYet) => {
                keeper.state = KeeperState::Finished;
                self.note_end(Outcome::start_failure(reason, message));
            }
            (Message::Failed(message), false, End::NotYet) => {
                keeper.state = KeeperState::Finished;
                self.note_end(Outcome::start_failure(StartReason::Other, message));
            }
            (Message::Exited(end), true, End::NotYet) => self.note_end(end.into()),
            (Message::Empty, true, End::Known(_) | End::Told) => keeper.state = KeeperState::Finished,
            (Message::Survivors(count), ..) => {
                tracing::warn!(exec = self.exec_id, owner = keeper.entry.owner(), count, "processes cannot be killed");
                self.note_vanished("it cannot be killed");
            }
            (other, ..) => self.note_vanished(&format!("its keeper said {other:?} out of turn")),
        }
    }

    /// Notes that nothing more will be heard; the end is unknown, unless it was heard before.
    fn note_vanished(&mut self, why: &str) {
        let Some(keeper) = &mut self.keeper else { return };
        keeper.state = KeeperState::Vanished;
        keeper.channel.kill();
        let place = if keeper.counts_here { "" } else { "the container stopped, or " };
        self.is_end_unknown = matches!(self.end, End::NotYet);
        self.note_end(Outcome::Unknown { message: format!("{place}{why}") });
    }

    /// Notes the first end that is known, and how much output was written before it.
    fn note_end(&mut self, outcome: Outcome) {
        if matches!(self.end, End::NotYet) {
            self.end = End::Known(outcome);
            self.outputs.iter_mut().for_each(Output::note_end);
        }
    }

    /// Tells the end, once it is known and nothing that was written before it is left.
    fn take_end(&mut self) -> Option<Event> {
        if self.outputs.iter().any(Output::is_owed) || !matches!(self.end, End::Known(_)) {
            return None;
        }
        match mem::replace(&mut self.end, End::Told) {
            End::Known(outcome) => Some(Event::Exited(outcome)),
            _ => None,
        }
    }

    /// The next output; `None` when both have ended.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        for which in [self.turn, 1 - self.turn] {
            if let Poll::Ready(Some(data)) = self.outputs[which].poll_read(cx) {
                self.turn = 1 - which;
                return Poll::Ready(Some(output(which, data)));
            }
        }
        if self.outputs.iter().all(Output::has_ended) { Poll::Ready(None) } else { Poll::Pending }
    }

    /// What follows when no output can be read now: the end, or the last event.
    fn poll_without_output(&mut self, have_ended: bool, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.outputs.iter_mut().for_each(Output::forgive);
        if let Some(exited) = self.take_end() {
            return Poll::Ready(Some(exited));
        }
        if !matches!(self.end, End::Told) {
            return Poll::Pending;
        }
        if have_ended && !self.is_end_unknown {
            return Poll::Ready(Some(self.drained(None)));
        }
        if self.keeper.as_ref().is_none_or(|keeper| keeper.state == KeeperState::Vanished) {
            return Poll::Ready(Some(self.drained(Some(Cut::BackendGone))));
        }
        self.idle.poll(cx).map(|()| Some(self.drained(Some(Cut::DrainTimeout))))
    }

    fn drained(&mut self, cut: Option<Cut>) -> Event {
        self.is_over = true;
        let event = Drained { cut, stdout_bytes: self.outputs[0].read_bytes, stderr_bytes: self.outputs[1].read_bytes };
        self.leave_over();
        Event::Drained(event)
    }

    /// Hands what outlives the program to a task of its own, so that it can go on writing.
    fn leave_over(&mut self) {
        let Some(keeper) = self.keeper.take() else { return };
        if keeper.state != KeeperState::Present {
            return;
        }
        if !keeper.entry.leave_over() {
            tracing::warn!(exec = self.exec_id, owner = keeper.entry.owner(), "too many left-over programs: killed");
            keeper.channel.kill();
            return;
        }
        let outputs = mem::replace(&mut self.outputs, [Output::ended(), Output::ended()]);
        // Ends when the tree does: by itself, with its owner, or with this process.
        tokio::spawn(LeftOver { keeper, outputs });
    }
}

impl Stream for Run {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let run = self.get_mut();
        if run.is_over {
            return Poll::Ready(None);
        }
        run.hear(cx);
        if let Some(pid) = run.started_pid.take() {
            return Poll::Ready(Some(Event::Started { exec_id: run.exec_id.clone(), pid }));
        }
        if let Some(exited) = run.take_end() {
            return Poll::Ready(Some(exited));
        }
        // A fast program writes before its keeper has told that it started.
        if !run.has_started && matches!(run.end, End::NotYet) {
            return Poll::Pending;
        }
        match run.poll_output(cx) {
            Poll::Ready(Some(event)) => {
                run.idle.interrupt();
                Poll::Ready(Some(event))
            }
            Poll::Ready(None) => run.poll_without_output(true, cx),
            Poll::Pending => run.poll_without_output(false, cx),
        }
    }
}

fn output(which: usize, data: Bytes) -> Event {
    let stream = if which == 0 { OutputStream::Stdout } else { OutputStream::Stderr };
    Event::Output { stream, data }
}
