//! The keeper of one program: a subreaper, so that whatever the program starts stays below it, and is gone when it is.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, WaitStatus, kill_process, pidfd_open, set_child_subreaper};

use super::{
    channel::Channel,
    signals::Signals,
    start::start,
    tree,
    wire::{End, Message, Start, StartReason},
};

/// How long a tree is killed before the rest counts as survivors.
pub(super) const KILL_BOUND: Duration = Duration::from_secs(10);

/// Runs the program and stays until its whole tree is gone. Ends the tree when the channel is over or SIGTERM comes.
/// Fails when processes are left, which then are the resident's to end.
pub(super) fn keep(request: &Start, stdio: [OwnedFd; 3], mut channel: Channel, signals: &Signals) -> io::Result<()> {
    if let Err(error) = set_child_subreaper(Some(rustix::process::getpid())) {
        channel.say(&[Message::Failed(format!("this kernel gives no subreaper: {error}"))], &[]);
        return Ok(());
    }
    // A kill that came before the start wins.
    if !channel.fill() {
        let message = "it was killed before it started".to_owned();
        channel.say(&[Message::StartFailed { reason: StartReason::Other, message }], &[]);
        return Ok(());
    }
    let program = match start(request, &stdio) {
        Ok(program) => program,
        Err((reason, message)) => {
            channel.say(&[Message::StartFailed { reason, message }], &[]);
            return Ok(());
        }
    };
    drop(stdio);
    say_started(&channel, program, request.pidfd);
    Keeper { program, ended: false }.stay(&mut channel, signals)
}

fn say_started(channel: &Channel, program: Pid, wants_pidfd: bool) {
    let handle = wants_pidfd.then(|| pidfd_open(program, PidfdFlags::empty()).ok()).flatten();
    let started = Message::Started { pid: program.as_raw_nonzero().get(), pidfd: handle.is_some() };
    match &handle {
        Some(handle) => channel.say(&[started], &[handle.as_fd()]),
        None => channel.say(&[started], &[]),
    }
}

struct Keeper {
    program: Pid,
    ended: bool,
}

impl Keeper {
    fn stay(&mut self, channel: &mut Channel, signals: &Signals) -> io::Result<()> {
        loop {
            let mut news = Vec::new();
            let empty = tree::reap(|pid, status| news.extend(self.note(pid, status)));
            if empty {
                news.push(Message::Empty);
                channel.say(&news, &[]);
                return Ok(());
            }
            channel.say(&news, &[]);
            let Ok(ready) = signals.wait(Some(channel.socket()), None) else { break };
            if ready.terminate || (ready.socket && !self.listen(channel)) {
                break;
            }
        }
        let mut news = Vec::new();
        let left = tree::end(signals, KILL_BOUND, |pid, status| news.extend(self.note(pid, status)));
        if left == 0 {
            news.push(Message::Empty);
            channel.say(&news, &[]);
            return Ok(());
        }
        news.push(Message::Survivors(u32::try_from(left).unwrap_or(u32::MAX)));
        channel.say(&news, &[]);
        Err(io::Error::other(format!("{left} processes cannot be killed")))
    }

    /// What to tell about a child that was buried: only the program itself is of interest.
    fn note(&mut self, pid: Pid, status: WaitStatus) -> Option<Message> {
        if pid != self.program || self.ended {
            return None;
        }
        self.ended = true;
        Some(Message::Exited(end_of(status)))
    }

    /// Reads what the broker says. False when the channel is over.
    fn listen(&self, channel: &mut Channel) -> bool {
        let open = channel.fill();
        while let Ok(Some(message)) = channel.take() {
            // The program is our child and not buried, so its id is its own.
            if let Message::Signal(number) = message
                && !self.ended
                && let Some(signal) = Signal::from_named_raw(number)
            {
                let _ = kill_process(self.program, signal);
            }
        }
        open
    }
}

fn end_of(status: WaitStatus) -> End {
    match status.terminating_signal() {
        Some(number) => End::Signal { number, core_dumped: libc::WCOREDUMP(status.as_raw()) },
        None => End::Code(u8::try_from(status.exit_status().unwrap_or_default()).unwrap_or_default()),
    }
}
