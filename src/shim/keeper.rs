//! The keeper of one program: a subreaper, so that whatever the program starts stays below it, and is gone when it is.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, WaitStatus, kill_process, pidfd_open, set_child_subreaper};

use super::{
    cage::Cage,
    channel::Channel,
    felling::{Felling, Watch},
    oom::OomCounter,
    signals::Signals,
    start::{Stdio, start},
    terminal::Terminal,
    tree,
    wire::{End, Message, Start, StartReason},
};

/// How long a tree is killed before the rest counts as survivors.
pub(super) const KILL_BOUND: Duration = Duration::from_secs(10);

/// What a keeper gets from its resident.
#[derive(Debug)]
pub(super) struct Means<'a> {
    /// Signals of this process.
    pub(super) signals: &'a Signals,
    /// The cgroup that it is in, to itself.
    pub(super) cage: Option<Cage>,
    /// The counter of kills for want of memory.
    pub(super) oom: Option<&'a OomCounter>,
}

/// Runs the program and stays until its whole tree is gone. Ends the tree when it is told to, when the channel is over or
/// SIGTERM comes. Fails when processes are left, which then are the resident's to end. Tells whether nothing is amiss with
/// the cgroup, so that it can be used again.
pub(super) fn keep(request: &Start, fds: Vec<OwnedFd>, mut channel: Channel, means: &Means<'_>) -> io::Result<bool> {
    if let Err(error) = set_child_subreaper(Some(rustix::process::getpid())) {
        channel.say(&[Message::Failed(format!("this kernel gives no subreaper: {error}"))], &[]);
        return Ok(true);
    }
    let (stdio, outer) = match stdio(request, fds) {
        Ok(stdio) => stdio,
        Err(message) => {
            channel.say(&[Message::StartFailed { reason: StartReason::Other, message }], &[]);
            return Ok(true);
        }
    };
    let early = hear(&mut channel);
    // A kill that came before the start wins.
    if matches!(early.wish, Wish::End(_)) {
        let message = "it was ended before it started".to_owned();
        channel.say(&[Message::StartFailed { reason: StartReason::Other, message }], &[]);
        return Ok(true);
    }
    let oom_before = means.oom.and_then(OomCounter::read);
    let program = match start(request, &stdio) {
        Ok(program) => program,
        Err((reason, message)) => {
            channel.say(&[Message::StartFailed { reason, message }], &[]);
            return Ok(true);
        }
    };
    drop(stdio);
    say_started(&channel, program, request.pidfd, outer);
    early.signals.iter().for_each(|number| send_signal(program, *number));
    Keeper { program, ended: false, channel, means, oom_before }.stay()
}

/// What the program gets, and the other side of its terminal.
fn stdio(request: &Start, fds: Vec<OwnedFd>) -> Result<(Stdio, Option<OwnedFd>), String> {
    match request.terminal {
        Some((columns, rows)) => {
            let Terminal { outer, inner } = Terminal::open(columns, rows)
                .map_err(|error| format!("there is no terminal to be had: {}", io::Error::from(error)))?;
            Ok((Stdio::Terminal(inner), Some(outer)))
        }
        None => match fds.try_into() {
            Ok(fds) => Ok((Stdio::Descriptors(fds), None)),
            Err(_) => Err("the standard descriptors are missing".to_owned()),
        },
    }
}

fn say_started(channel: &Channel, program: Pid, wants_pidfd: bool, outer: Option<OwnedFd>) {
    let handle = wants_pidfd.then(|| pidfd_open(program, PidfdFlags::empty()).ok()).flatten();
    let pid = program.as_raw_nonzero().get();
    let started = Message::Started { pid, pidfd: handle.is_some(), terminal: outer.is_some() };
    let fds: Vec<_> = handle.iter().chain(&outer).map(AsFd::as_fd).collect();
    channel.say(&[started], &fds);
}

struct Keeper<'a> {
    program: Pid,
    ended: bool,
    channel: Channel,
    means: &'a Means<'a>,
    oom_before: Option<u64>,
}

/// What the broker wants.
enum Wish {
    Stay,
    End(Duration),
}

/// What the broker said.
struct Said {
    wish: Wish,
    /// Signals for the program.
    signals: Vec<i32>,
}

/// Hears all that was said. When the channel is over, the broker is gone, and there is no grace.
fn hear(channel: &mut Channel) -> Said {
    let open = channel.fill();
    let mut said = Said { wish: Wish::Stay, signals: Vec::new() };
    while let Ok(Some(message)) = channel.take() {
        match message {
            Message::Signal(number) => said.signals.push(number),
            Message::End { grace_ms } => {
                said.wish = match said.wish {
                    Wish::Stay => Wish::End(Duration::from_millis(grace_ms.into())),
                    Wish::End(_) => Wish::End(Duration::ZERO),
                };
            }
            _ => {}
        }
    }
    if !open {
        said.wish = Wish::End(Duration::ZERO);
    }
    said
}

fn send_signal(program: Pid, number: i32) {
    if let Some(signal) = Signal::from_named_raw(number) {
        let _ = kill_process(program, signal);
    }
}

impl Keeper<'_> {
    fn stay(mut self) -> io::Result<bool> {
        loop {
            let mut news = Vec::new();
            let empty = tree::reap(|pid, status| news.extend(self.note(pid, status)));
            if empty {
                news.push(Message::Empty);
                self.channel.say(&news, &[]);
                return Ok(true);
            }
            self.channel.say(&news, &[]);
            let Ok(ready) = self.means.signals.wait(Some(self.channel.socket()), None) else {
                return self.end(Duration::ZERO);
            };
            if ready.terminate {
                return self.end(Duration::ZERO);
            }
            if ready.socket
                && let Wish::End(grace) = self.listen()
            {
                return self.end(grace);
            }
        }
    }

    fn end(mut self, grace: Duration) -> io::Result<bool> {
        let cage = self.means.cage.as_ref();
        let felling = Felling { signals: self.means.signals, grace, bound: KILL_BOUND, cage };
        let ended = felling.run(&mut self);
        self.channel.say(&[Message::Ended(ended)], &[]);
        match ended.survivors {
            0 => Ok(!cage.is_some_and(Cage::was_killed)),
            left => Err(io::Error::other(format!("{left} processes cannot be killed"))),
        }
    }

    /// What to tell about a child that was buried: only the program itself is of interest.
    fn note(&mut self, pid: Pid, status: WaitStatus) -> Option<Message> {
        if pid != self.program || self.ended {
            return None;
        }
        self.ended = true;
        let end = end_of(status);
        Some(Message::Exited { end, oom: end != End::Code(0) && self.saw_oom() })
    }

    fn saw_oom(&self) -> bool {
        let now = self.means.oom.and_then(OomCounter::read);
        self.oom_before.zip(now).is_some_and(|(before, now)| now > before)
    }

    /// Does what the broker says, as far as that is not to end the tree.
    fn listen(&mut self) -> Wish {
        let Said { wish, signals } = hear(&mut self.channel);
        // The program is our child and not buried, so its id is its own.
        if !self.ended {
            signals.iter().for_each(|number| send_signal(self.program, *number));
        }
        wish
    }
}

impl Watch for Keeper<'_> {
    fn buried(&mut self, pid: Pid, status: WaitStatus) {
        let news: Vec<_> = self.note(pid, status).into_iter().collect();
        self.channel.say(&news, &[]);
    }

    fn is_hurried(&mut self) -> bool {
        let is_ready = self.means.signals.wait(Some(self.channel.socket()), Some(Duration::ZERO));
        match is_ready {
            Ok(ready) => ready.terminate || (ready.socket && matches!(self.listen(), Wish::End(_))),
            Err(_) => true,
        }
    }

    fn stuck(&mut self) {
        self.channel.say(&[Message::Stuck], &[]);
    }
}

fn end_of(status: WaitStatus) -> End {
    match status.terminating_signal() {
        Some(number) => End::Signal { number, core_dumped: libc::WCOREDUMP(status.as_raw()) },
        None => End::Code(status.exit_status().unwrap_or_default()),
    }
}
