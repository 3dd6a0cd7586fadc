//! One program with its tree: what is known of it, and how it is ended.
//!
//! What its keeper says is heard by whoever looks first: the run that is polled, a listing, or the task that ends it. So
//! an end is known at once, also where a slow caller leaves the run alone.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    input::Input,
    living::Living,
    pidfd::pid_here,
    program::{Cause, Containment, Exit, MAX_GRACE, Outcome, Target, Termination, WindowSize},
    squeeze::Squeeze,
    terminal::Terminal,
};
use crate::shim::{
    caller::{Channel, Delivery, Inbox, Passed},
    wire::{Ended, MAX_ANSWER_BYTES, Message, StartReason},
};

/// Longer than a keeper goes on killing.
const END_BOUND: Duration = Duration::from_secs(12);

/// What a tree on this machine that is kept as a whole is kept by.
const CAGE: Containment = if cfg!(windows) { Containment::Job } else { Containment::Cgroup };

/// What never changes about an exec.
#[derive(Debug, Clone)]
pub struct ExecInfo {
    /// Unique on this broker.
    pub id: String,
    /// Whose it is.
    pub owner: String,
    /// The generation of its owner that it is a program of.
    pub generation: i64,
    /// The service in whose container it runs, if in any.
    pub service: Option<String>,
    /// The session that it was started in.
    pub session: Option<String>,
    /// What it was asked for as.
    pub target: Target,
    /// The program's name, as it was given.
    pub program: String,
    /// Full id of the container that it runs in.
    pub container: Option<String>,
    /// Whether only the engine knows it, because no shim runs in its container: then it gets no signals, what it left
    /// running is not ended, and a signal cannot be told from a code.
    pub engine_only: bool,
    /// Whether it has a terminal.
    pub tty: bool,
    /// When it was asked for.
    pub began: SystemTime,
}

/// One exec, as a listing shows it.
#[derive(Debug, Clone)]
pub struct ExecView {
    /// What never changes.
    pub info: ExecInfo,
    /// Process id as this machine counts; 0 where that cannot be known, `None` before the start.
    pub pid: Option<i64>,
    /// How the program ended, as soon as it did; what it started lives on.
    pub exit: Option<Exit>,
    /// Why it is being ended.
    pub ending: Option<Cause>,
}

/// Who keeps the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeptBy {
    /// A shim on this machine.
    Host,
    /// A shim in a container, which counts processes by itself.
    Container,
    /// Nobody but the engine.
    Engine,
}

/// What keeps the program, as far as was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeeperState {
    /// It keeps.
    Present,
    /// The tree is gone, and the keeper with it.
    Finished,
    /// It went without saying that the tree is gone.
    Vanished,
}

/// What an exec is made of.
pub(super) struct Parts {
    pub(super) info: ExecInfo,
    pub(super) kept_by: KeptBy,
    pub(super) channel: Channel,
    pub(super) input: Option<Input>,
    pub(super) terminal: Option<Terminal>,
    pub(super) squeeze: Option<Arc<Squeeze>>,
    pub(super) grace: Duration,
}

/// One program with its tree.
#[derive(Debug)]
pub(super) struct Execution {
    pub(super) info: ExecInfo,
    kept_by: KeptBy,
    channel: Channel,
    pub(super) input: Option<Input>,
    squeeze: Option<Arc<Squeeze>>,
    grace: Duration,
    asked: Instant,
    /// When something was typed last, in milliseconds after it was asked for.
    typed_ms: AtomicU64,
    heard: Mutex<Heard>,
    /// The keeper cannot kill the tree alone.
    stuck: CancellationToken,
    /// The keeper is no longer present.
    gone: CancellationToken,
    /// The list to be taken out of.
    living: Weak<Living>,
}

#[derive(Debug)]
struct Heard {
    inbox: Inbox,
    keeper: KeeperState,
    pid: Option<i64>,
    exit: Option<Exit>,
    /// The keeper vanished before the end: there could have been more output.
    is_end_unknown: bool,
    terminal: Option<Terminal>,
    cause: Option<Cause>,
    is_squeezed: bool,
    ended: Option<Ended>,
    run_is_over: bool,
}

/// What a run wants to know at each turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) pid: Option<i64>,
    pub(super) has_exited: bool,
    pub(super) is_end_unknown: bool,
    pub(super) keeper: KeeperState,
    pub(super) is_ending: bool,
}

impl Execution {
    pub(super) fn new(parts: Parts, living: &Arc<Living>) -> Self {
        let Parts { info, kept_by, channel, input, terminal, squeeze, grace } = parts;
        let heard = Heard {
            inbox: Inbox::new(MAX_ANSWER_BYTES),
            keeper: KeeperState::Present,
            pid: None,
            exit: None,
            is_end_unknown: false,
            terminal,
            cause: None,
            is_squeezed: false,
            ended: None,
            run_is_over: false,
        };
        Execution {
            info,
            kept_by,
            channel,
            input,
            squeeze,
            grace: grace.min(MAX_GRACE),
            asked: Instant::now(),
            typed_ms: AtomicU64::new(0),
            heard: Mutex::new(heard),
            stuck: CancellationToken::new(),
            gone: CancellationToken::new(),
            living: Arc::downgrade(living),
        }
    }

    /// Hears all that was said, and has the caller woken by what is said next.
    pub(super) fn poll_hear(&self, cx: &mut Context<'_>) -> Facts {
        let mut heard = self.lock();
        while heard.keeper == KeeperState::Present {
            match self.channel.poll_next(&mut heard.inbox, cx) {
                Poll::Pending => break,
                Poll::Ready(said) => self.note(&mut heard, said),
            }
        }
        heard.facts()
    }

    /// Hears all that was said.
    fn hear(&self) -> MutexGuard<'_, Heard> {
        let mut heard = self.lock();
        while heard.keeper == KeeperState::Present {
            match self.channel.try_next(&mut heard.inbox) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                said => self.note(&mut heard, said),
            }
        }
        heard
    }

    fn note(&self, heard: &mut Heard, said: io::Result<Option<Delivery>>) {
        match said {
            Ok(Some(delivery)) => self.note_said(heard, delivery),
            Ok(None) => self.note_vanished(heard, "its keeper is gone"),
            Err(error) => self.note_vanished(heard, &error.to_string()),
        }
        if heard.keeper != KeeperState::Present {
            self.gone.cancel();
            self.settle(heard);
        }
    }

    /// Notes what the keeper says. What is out of turn ends it: a container's own root may speak in its place, and shall
    /// neither tell two ends nor keep us listening.
    fn note_said(&self, heard: &mut Heard, (message, mut fds): Delivery) {
        match (message, heard.pid.is_some(), heard.exit.is_some()) {
            (Message::Started { pid, pidfd, terminal }, false, false) => {
                let outer = if terminal { fds.pop() } else { None };
                let handle = if pidfd { fds.pop() } else { None };
                let pid = match self.kept_by {
                    KeptBy::Host => Some(i64::from(pid)),
                    KeptBy::Container | KeptBy::Engine => handle.and_then(pid_here),
                };
                heard.pid = Some(pid.unwrap_or_default());
                if let Err(error) = heard.note_terminal(outer) {
                    self.note_vanished(heard, &format!("its terminal is none: {error}"));
                }
            }
            (Message::StartFailed { reason, message }, false, false) => {
                heard.keeper = KeeperState::Finished;
                heard.note_exit(Outcome::start_failure(reason, message), false);
            }
            (Message::Failed(message), false, false) => {
                heard.keeper = KeeperState::Finished;
                heard.note_exit(Outcome::start_failure(StartReason::Other, message), false);
            }
            (Message::Exited { end, oom }, true, false) => heard.note_exit(end.into(), oom),
            (Message::Empty, true, true) => heard.keeper = KeeperState::Finished,
            (Message::Stuck, true, _) => self.stuck.cancel(),
            (Message::Ended(ended), true, has_exited) => {
                heard.ended = Some(ended);
                if ended.survivors == 0 && has_exited {
                    heard.keeper = KeeperState::Finished;
                } else if self.kept_by == KeptBy::Engine {
                    self.note_vanished(heard, "only the engine runs it, which cannot end it");
                } else {
                    let (id, owner, count) = (&self.info.id, &self.info.owner, ended.survivors);
                    tracing::warn!(exec = id, extension = owner, count, "processes cannot be killed");
                    if let Some(living) = self.living.upgrade() {
                        living.note_survivors(count.into());
                    }
                    self.note_vanished(heard, "it cannot be killed");
                }
            }
            (other, ..) => self.note_vanished(heard, &format!("its keeper said {other:?} out of turn")),
        }
    }

    /// Notes that nothing more will be heard; the end is unknown, unless it was heard before.
    fn note_vanished(&self, heard: &mut Heard, why: &str) {
        heard.keeper = KeeperState::Vanished;
        self.channel.kill();
        let place = if self.kept_by == KeptBy::Container { "the container stopped, or " } else { "" };
        heard.is_end_unknown = heard.exit.is_none();
        heard.note_exit(Outcome::Unknown { message: format!("{place}{why}") }, false);
    }

    /// How the program ended, where it did.
    pub(super) fn exit(&self) -> Option<Exit> {
        self.lock().exit.clone()
    }

    /// How the tree was ended, where it was.
    pub(super) fn termination(&self) -> Option<Termination> {
        let heard = self.lock();
        let cause = heard.cause?;
        let containment = match (self.kept_by, heard.ended) {
            (KeptBy::Engine, _) => Containment::Engine,
            (_, Some(ended)) if ended.caged => CAGE,
            _ if heard.is_squeezed => Containment::PidsLimit,
            _ => Containment::Walk,
        };
        let is_known = self.kept_by != KeptBy::Engine;
        let ended = heard.ended.filter(|_| is_known);
        // It ended by itself before it heard that it should.
        let by_itself = ended.is_none() && is_known && heard.keeper == KeeperState::Finished;
        Some(Termination {
            cause,
            signalled: ended.map(|ended| ended.signalled.into()).or(by_itself.then_some(0)),
            escalated: heard.ended.is_some_and(|ended| ended.escalated),
            containment,
            survivors: ended.map(|ended| ended.survivors.into()).or(by_itself.then_some(0)),
        })
    }

    /// Sends the program a signal; nothing happens where it has ended.
    pub(super) fn signal(&self, number: i32) {
        // Small and rare: where it does not fit, the shim is stuck and nothing would help.
        let _ = self.channel.try_send(&Message::Signal(number).to_frame(), &[]);
    }

    /// Changes the size of its terminal, where it has one.
    pub(super) fn resize(&self, size: WindowSize) {
        match &mut self.hear().terminal {
            Some(terminal) => terminal.resize(size),
            // It is where the program is.
            None if self.info.tty => {
                let resize = Message::Resize { columns: size.columns, rows: size.rows };
                let _ = self.channel.try_send(&resize.to_frame(), &[]);
            }
            None => {}
        }
    }

    /// Has the tree ended: TERM, the grace, KILL. The first cause is the one that is told; that the broker stops ends the
    /// grace. It goes on whoever waits for it.
    pub(super) fn end(self: &Arc<Self>, cause: Cause) {
        self.end_within(cause, self.grace);
    }

    /// The same with another grace.
    pub(super) fn end_within(self: &Arc<Self>, cause: Cause, grace: Duration) {
        let grace = grace.min(MAX_GRACE);
        let is_first = {
            let mut heard = self.hear();
            if heard.keeper != KeeperState::Present || (heard.cause.is_some() && cause != Cause::BrokerStopping) {
                return;
            }
            let is_first = heard.cause.is_none();
            heard.cause.get_or_insert(cause);
            is_first
        };
        let living = self.living.upgrade();
        if is_first && let Some(living) = &living {
            living.note_ended();
        }
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let frame = Message::End { grace_ms }.to_frame();
        let is_said = self.channel.try_send(&frame, &[]).is_ok_and(|sent| sent == frame.len());
        let runtime = tokio::runtime::Handle::try_current();
        // Without one, nobody could wait for a grace.
        if !is_said || runtime.is_err() {
            self.channel.kill();
        }
        if is_first && let Ok(runtime) = runtime {
            let to_its_end = self.clone().see_to_its_end(grace + END_BOUND).in_current_span();
            match living {
                Some(living) => living.seen_to.spawn_on(to_its_end, &runtime),
                None => runtime.spawn(to_its_end),
            };
        }
    }

    async fn see_to_its_end(self: Arc<Self>, bound: Duration) {
        tokio::join!(self.hear_within(bound), self.help());
    }

    /// Hears until the tree is gone, and gives up on a keeper that does not answer.
    async fn hear_within(&self, bound: Duration) {
        if tokio::time::timeout(bound, self.hear_to_the_end()).await.is_err() {
            let mut heard = self.lock();
            if heard.keeper == KeeperState::Present {
                self.note_vanished(&mut heard, "its keeper does not answer");
                self.settle(&heard);
            }
        }
        // Also where the system has nothing more to tell of the channel.
        self.gone.cancel();
    }

    /// Helps the keeper where it cannot do it alone. However long the engine takes, this is never broken off: a container
    /// shall not stay squeezed.
    async fn help(&self) {
        let Some(squeeze) = &self.squeeze else { return };
        tokio::select! {
            biased;
            () = self.gone.cancelled() => return,
            () = self.stuck.cancelled() => {}
        }
        // The tree may be gone before the engine has said that it did it.
        let begin = || {
            let is_there = !self.gone.is_cancelled();
            self.lock().is_squeezed = is_there;
            is_there
        };
        match squeeze.hold(begin).await {
            Some(held) => {
                self.gone.cancelled().await;
                held.release().await;
            }
            None => self.lock().is_squeezed = false,
        }
    }

    /// Completes when the tree is gone, or its keeper. Somebody else must hear meanwhile: after [`Execution::end`],
    /// somebody does.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Hears until the tree is gone, or its keeper.
    pub(super) async fn hear_to_the_end(&self) {
        loop {
            if self.hear().keeper != KeeperState::Present {
                return;
            }
            let Ok(mut ready) = self.channel.readable().await else { return };
            if self.hear().keeper == KeeperState::Present {
                ready.clear_ready();
            }
        }
    }

    /// Notes that nobody reads the run any more.
    pub(super) fn note_run_over(&self) {
        let mut heard = self.lock();
        heard.run_is_over = true;
        // The program is hung up on when the last holder lets go.
        heard.terminal = None;
        self.settle(&heard);
        drop(heard);
        if let Some(input) = &self.input {
            input.cut();
        }
    }

    /// Takes it out of the list when there is nothing left of it.
    fn settle(&self, heard: &Heard) {
        if heard.run_is_over
            && heard.keeper != KeeperState::Present
            && let Some(living) = self.living.upgrade()
        {
            living.remove(&self.info, heard.exit.as_ref());
        }
    }

    /// As a listing shows it now.
    pub(super) fn view(&self) -> ExecView {
        let heard = self.hear();
        ExecView { info: self.info.clone(), pid: heard.pid, exit: heard.exit.clone(), ending: heard.cause }
    }

    /// Notes that something was typed.
    pub(super) fn note_typed(&self) {
        let since = u64::try_from(self.asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.typed_ms.store(since, Ordering::Relaxed);
    }

    /// When something was typed last; when it was asked for, where nothing was.
    pub(super) fn typed(&self) -> Instant {
        self.asked + Duration::from_millis(self.typed_ms.load(Ordering::Relaxed))
    }

    /// Whether its tree is not gone yet.
    pub(super) fn is_present(&self) -> bool {
        self.hear().keeper == KeeperState::Present
    }

    /// Whether its tree outlived its call.
    pub(super) fn is_left_over(&self) -> bool {
        self.lock().run_is_over
    }

    /// How many trees of its owner have outlived their calls.
    pub(super) fn count_left_over(&self) -> usize {
        self.living.upgrade().map_or(0, |living| living.count_left_over(&self.info.owner))
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Facts {
    /// Of a program that was not even tried.
    pub(super) fn of_none() -> Self {
        let keeper = KeeperState::Finished;
        Facts { pid: None, has_exited: true, is_end_unknown: false, keeper, is_ending: false }
    }
}

impl Heard {
    fn facts(&self) -> Facts {
        Facts {
            pid: self.pid,
            has_exited: self.exit.is_some(),
            is_end_unknown: self.is_end_unknown,
            keeper: self.keeper,
            is_ending: self.cause.is_some(),
        }
    }

    /// Notes the first end that is known.
    fn note_exit(&mut self, outcome: Outcome, oom: bool) {
        self.exit.get_or_insert(Exit { outcome, oom });
    }

    fn note_terminal(&mut self, outer: Option<Passed>) -> io::Result<()> {
        match (self.terminal.take(), outer) {
            (Some(terminal), Some(outer)) => self.terminal = Some(terminal.open(outer)?),
            (Some(_), None) => return Err(io::Error::new(io::ErrorKind::NotFound, "it did not come")),
            (None, _) => {}
        }
        Ok(())
    }
}
