//! A running program as a stream of events.
//!
//! Everything is read when the stream is polled and at no other time: no task and no queue stands between the program and
//! the caller, and a slow caller stalls its own program only.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::Instant;

use super::{
    drain::Drain,
    execution::{Execution, Facts, KeeperState},
    handle::ExecHandle,
    left_over::LeftOver,
    living::Living,
    output::Output,
    program::{Cause, Cut, Drained, Event, Exit, Outcome, Program},
    silence::Silence,
};
use crate::{dockerd::OutputStream, shim::wire::StartReason};

/// A terminal hands on what was written to it a little later, and so does a pipe on Windows; an end is told when nothing
/// came for that long.
const SETTLING: Duration = Duration::from_millis(20);
/// What a terminal can hold, in bytes.
const TERMINAL_BYTES: u64 = 128 << 10;

/// A running program: events until [`Event::Drained`], then nothing. Dropped before that, the program and all that it
/// started is ended. What still lives after it is ended with its session and its owner.
#[derive(Debug)]
pub struct Run {
    exec_id: String,
    /// `None` for a program that was not even tried, and when all is told.
    execution: Option<Arc<Execution>>,
    outputs: [Output; 2],
    /// Which output is read first next time, so that neither starves.
    turn: usize,
    start_told: bool,
    end: Telling,
    /// How long the output may be open and empty after the end.
    drain: Drain,
    /// Waits for what a terminal still hands on.
    settling: Option<Silence>,
    /// The limit of idleness.
    idle: Option<Silence>,
    last_output: Instant,
    /// How many bytes may still be told.
    allowed_bytes: Option<u64>,
    is_cut: bool,
    is_over: bool,
}

#[derive(Debug)]
enum Telling {
    NotYet,
    Known(Exit),
    Told,
}

/// How a run reads.
#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    drain: Duration,
    idle: Option<Duration>,
    max_bytes: Option<u64>,
}

impl Run {
    /// A program whose keeper was asked to start it.
    pub(super) fn begin(execution: Arc<Execution>, living: &Living, outputs: [Output; 2], program: &Program) -> Self {
        living.enter(&execution);
        if let Some(wall) = program.limits.wall {
            let limited = execution.clone();
            // Not left to the stream: a caller that does not read shall not lengthen it.
            tokio::spawn(async move {
                if tokio::time::timeout(wall, limited.gone()).await.is_err() {
                    limited.end(Cause::WallLimit);
                }
            });
        }
        let reading =
            Reading { drain: program.drain_timeout, idle: program.limits.idle, max_bytes: program.limits.output_bytes };
        let exec_id = execution.info.id.clone();
        let mut run = Run::ended(exec_id, Telling::NotYet, reading);
        run.settling = (execution.info.tty || cfg!(windows)).then(|| Silence::new(SETTLING));
        run.outputs = outputs;
        run.execution = Some(execution);
        run
    }

    /// A program that was not even tried.
    pub(super) fn not_started(exec_id: String, reason: StartReason, message: String) -> Self {
        let exit = Exit { outcome: Outcome::start_failure(reason, message), oom: false };
        Run::ended(exec_id, Telling::Known(exit), Reading::default())
    }

    fn ended(exec_id: String, end: Telling, reading: Reading) -> Self {
        Run {
            exec_id,
            execution: None,
            outputs: [Output::ended(), Output::ended()],
            turn: 0,
            start_told: false,
            end,
            drain: Drain::new(reading.drain),
            settling: None,
            idle: reading.idle.map(Silence::new),
            last_output: Instant::now(),
            allowed_bytes: reading.max_bytes,
            is_cut: false,
            is_over: false,
        }
    }

    /// Unique on this broker.
    pub fn exec_id(&self) -> &str {
        &self.exec_id
    }

    /// What can be done to it meanwhile; `None` when all is told, and for a program that was not even tried.
    pub fn handle(&self) -> Option<ExecHandle> {
        self.execution.clone().map(ExecHandle)
    }

    /// Notes the end, once it is known, and how much output was written before it.
    fn note_end(&mut self, facts: Facts) {
        if facts.has_exited
            && matches!(self.end, Telling::NotYet)
            && let Some(exit) = self.execution.as_ref().and_then(|execution| execution.exit())
        {
            let on_its_way = if self.settling.is_some() { TERMINAL_BYTES } else { 0 };
            self.outputs.iter_mut().for_each(|output| output.note_end(on_its_way));
            self.last_output = Instant::now();
            self.end = Telling::Known(exit);
        }
    }

    /// Tells the end, once it is known and nothing that was written before it is left.
    fn take_end(&mut self) -> Option<Event> {
        if self.outputs.iter().any(Output::is_owed) || !matches!(self.end, Telling::Known(_)) {
            return None;
        }
        match mem::replace(&mut self.end, Telling::Told) {
            Telling::Known(exit) => Some(Event::Exited(exit)),
            _ => None,
        }
    }

    /// The next output; `None` when both have ended.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        for which in [self.turn, 1 - self.turn] {
            if let Poll::Ready(Some(data)) = self.outputs[which].poll_read(cx) {
                self.turn = 1 - which;
                return Poll::Ready(self.allow(which, data));
            }
        }
        if self.outputs.iter().all(Output::has_ended) { Poll::Ready(None) } else { Poll::Pending }
    }

    /// What may be told of it. The first byte too much ends the tree.
    fn allow(&mut self, which: usize, mut data: Bytes) -> Option<Event> {
        let len = data.len() as u64;
        match &mut self.allowed_bytes {
            Some(allowed) if len > *allowed => {
                data.truncate(usize::try_from(*allowed).unwrap_or(usize::MAX));
                self.outputs[which].unread(len - *allowed);
                *allowed = 0;
                self.is_cut = true;
                // First, so that this is known as the cause: a pipe that closes ends most programs too.
                self.stop(Cause::OutputLimit);
                self.outputs.iter_mut().for_each(Output::close);
            }
            Some(allowed) => *allowed -= len,
            None => {}
        }
        let stream = if which == 0 { OutputStream::Stdout } else { OutputStream::Stderr };
        (!data.is_empty()).then_some(Event::Output { stream, data })
    }

    fn stop(&self, cause: Cause) {
        if let Some(execution) = &self.execution {
            execution.end(cause);
        }
    }

    /// What follows when no output can be read now: the end, or the last event.
    fn poll_without_output(&mut self, facts: Facts, have_ended: bool, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if !have_ended
            && matches!(self.end, Telling::Known(_))
            && let Some(settling) = &mut self.settling
        {
            ready!(settling.poll(self.last_output, cx));
        }
        self.outputs.iter_mut().for_each(Output::forgive);
        if let Some(exited) = self.take_end() {
            return Poll::Ready(Some(exited));
        }
        if !matches!(self.end, Telling::Told) {
            self.poll_idle(facts, cx);
            return Poll::Pending;
        }
        // What came of ending it is told too.
        if facts.is_ending && facts.keeper == KeeperState::Present {
            return Poll::Pending;
        }
        if have_ended && !facts.is_end_unknown {
            return Poll::Ready(Some(self.drained(None)));
        }
        if facts.keeper == KeeperState::Vanished {
            return Poll::Ready(Some(self.drained(Some(Cut::BackendGone))));
        }
        self.drain.poll(cx).map(|()| Some(self.drained(Some(Cut::DrainTimeout))))
    }

    fn poll_idle(&mut self, facts: Facts, cx: &mut Context<'_>) {
        if let (Some(idle), Some(execution), false) = (&mut self.idle, &self.execution, facts.is_ending) {
            let last = self.last_output.max(execution.typed().into());
            if idle.poll(last, cx).is_ready() {
                execution.end(Cause::IdleLimit);
            }
        }
    }

    fn drained(&mut self, cut: Option<Cut>) -> Event {
        self.is_over = true;
        let cut = if self.is_cut { Some(Cut::OutputLimit) } else { cut };
        let [stdout_bytes, stderr_bytes] = [&self.outputs[0], &self.outputs[1]].map(|output| output.read_bytes);
        let termination = self.execution.as_ref().and_then(|execution| execution.termination());
        self.leave_over();
        Event::Drained(Drained { cut, stdout_bytes, stderr_bytes, termination })
    }

    /// Hands what outlives the program to a task of its own, so that it can go on writing.
    fn leave_over(&mut self) {
        let Some(execution) = self.execution.take() else { return };
        let outputs = mem::replace(&mut self.outputs, [Output::ended(), Output::ended()]);
        LeftOver::leave(execution, outputs);
    }
}

impl Stream for Run {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let run = self.get_mut();
        if run.is_over {
            return Poll::Ready(None);
        }
        let facts = match &run.execution {
            Some(execution) => execution.poll_hear(cx),
            None => Facts::of_none(),
        };
        run.note_end(facts);
        if let Some(pid) = facts.pid
            && !run.start_told
        {
            run.start_told = true;
            return Poll::Ready(Some(Event::Started { exec_id: run.exec_id.clone(), pid }));
        }
        if let Some(exited) = run.take_end() {
            return Poll::Ready(Some(exited));
        }
        // A fast program writes before its keeper has told that it started.
        if facts.pid.is_none() && matches!(run.end, Telling::NotYet) {
            return Poll::Pending;
        }
        match run.poll_output(cx) {
            Poll::Ready(Some(event)) => {
                run.drain.interrupt();
                run.last_output = Instant::now();
                Poll::Ready(Some(event))
            }
            Poll::Ready(None) => run.poll_without_output(facts, true, cx),
            Poll::Pending => run.poll_without_output(facts, false, cx),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(execution) = self.execution.take() {
            execution.end(Cause::Cancelled);
            execution.note_run_over();
        }
    }
}
