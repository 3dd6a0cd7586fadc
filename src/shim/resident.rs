//! The resident shim: one process, one thread, one link to the broker.
//!
//! The link carries nothing but descriptors, each with one byte that says what it is: nearly always a channel. For each
//! channel a child is forked that reads the request from it and serves it. So the resident process never parses, never
//! blocks on a program or a socket, and the broker takes a request back by closing its end. Forking is cheap because this
//! process is small, and sound because it has one thread.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::{
        DumpableBehavior, Pid, Signal, getpid, getppid, kill_process, set_child_subreaper, set_dumpable_behavior,
        set_parent_process_death_signal, setsid,
    },
};

use super::{
    cage::{Cage, Cages},
    channel::Channel,
    ending::{Ending, Unwatched},
    guest,
    keeper::{self, Means},
    oom::OomCounter,
    signals::Signals,
    socket, tree,
    wire::Message,
};

/// With a channel: the request is to run a program.
pub(crate) const PROGRAM: u8 = 1;
/// With a channel: the request is another.
pub(crate) const ERRAND: u8 = 0;
/// With a directory: the cgroup below which programs get theirs.
pub(crate) const CAGES: u8 = 2;

/// How long what keepers left is killed when the link has ended: there is nobody else to do it.
const LAST_KILL_BOUND: Duration = Duration::from_secs(60);

/// How a keeper exits whose cgroup was killed and cannot be used again.
const CAGE_USED_UP: u8 = 2;

/// Serves the link until it ends, then ends everything below: how the process, or one that it forked, exits.
pub(super) fn serve(link: OwnedFd) -> io::Result<ExitCode> {
    let signals = Signals::block_all()?;
    // Programs run as the same user: they shall not read this process's memory or take its descriptors.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // What a killed keeper leaves behind comes here.
    set_child_subreaper(Some(getpid()))?;
    let oom = OomCounter::open();
    match (Resident { link, workers: HashMap::new(), cages: None }).run(&signals)? {
        Role::Resident => {}
        Role::Worker { channel, parent, cage } => {
            // The resident may have died before this took hold.
            set_parent_process_death_signal(Some(Signal::TERM))?;
            if getppid() == Some(parent) {
                let means = Means { signals: &signals, cage, oom: oom.as_ref() };
                if !work(Channel::new(channel), &means)? {
                    return Ok(ExitCode::from(CAGE_USED_UP));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Which of the two processes returns after a fork.
enum Role {
    Resident,
    Worker { channel: OwnedFd, parent: Pid, cage: Option<Cage> },
}

struct Resident {
    link: OwnedFd,
    /// Those that keep a program with its cgroup.
    workers: HashMap<Pid, Option<Cage>>,
    cages: Option<Cages>,
}

impl Resident {
    fn run(mut self, signals: &Signals) -> io::Result<Role> {
        loop {
            let ready = signals.wait(Some(self.link.as_fd()), None)?;
            if ready.child {
                self.reap();
            }
            if ready.terminate {
                break;
            }
            if !ready.socket {
                continue;
            }
            let (mut fds, mut what) = (VecDeque::new(), [0]);
            match socket::receive(&self.link, &mut what, &mut fds) {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                _ => {}
            }
            match (what[0], fds.pop_front()) {
                (CAGES, Some(base)) => self.cages = Some(Cages::new(base)),
                (what, Some(channel)) => {
                    if let Some(role) = self.fork(channel, what == PROGRAM) {
                        return Ok(role);
                    }
                }
                (_, None) => {}
            }
        }
        self.end(signals);
        Ok(Role::Resident)
    }

    fn fork(&mut self, channel: OwnedFd, is_program: bool) -> Option<Role> {
        let parent = getpid();
        let cage = self.cages.as_mut().filter(|_| is_program).and_then(Cages::take);
        match fork_into(cage) {
            Ok((0, cage)) => {
                // By its session it is told from what the broker itself starts, should this process be killed.
                let _ = setsid();
                return Some(Role::Worker { channel, parent, cage });
            }
            Ok((pid, cage)) => self.workers.extend(Pid::from_raw(pid).map(|pid| (pid, cage))),
            Err(error) => {
                let message = format!("no process could be made: {error}");
                Channel::new(channel).say(&[Message::Failed(message)], &[]);
            }
        }
        None
    }

    fn reap(&mut self) {
        let mut strays = false;
        tree::reap(|pid, status| match self.workers.remove(&pid) {
            Some(cage) => {
                let code = status.exit_status();
                let is_empty = match (cage, &mut self.cages) {
                    (Some(cage), Some(cages)) => cages.give_back(cage, code == Some(0)),
                    _ => true,
                };
                strays |= !is_empty || (code != Some(0) && code != Some(CAGE_USED_UP.into()));
            }
            None => strays = true,
        });
        // A worker that was killed, or that gave up, leaves its tree to us.
        if strays {
            tree::kill_round(|pid| self.workers.contains_key(&pid));
        }
    }

    fn end(mut self, signals: &Signals) {
        for worker in self.workers.keys() {
            let _ = kill_process(*worker, Signal::TERM);
        }
        // Longer than a worker takes.
        let deadline = Instant::now() + keeper::KILL_BOUND + Duration::from_secs(1);
        while !self.workers.is_empty() && Instant::now() < deadline {
            let _ = signals.wait(None, Some(deadline.saturating_duration_since(Instant::now())));
            self.reap();
        }
        Ending { signals, grace: Duration::ZERO, bound: LAST_KILL_BOUND, cage: None }.run(&mut Unwatched);
        if let Some(cages) = self.cages {
            cages.remove();
        }
    }
}

/// Forks, into the cgroup where there is one and that works: 0 in the child, and the cgroup that the child is in.
fn fork_into(cage: Option<Cage>) -> io::Result<(libc::pid_t, Option<Cage>)> {
    if let Some(cage) = cage {
        // SAFETY: this process has a single thread, so the child's memory is whole and it may do all the parent may.
        if let Ok(pid) = unsafe { cage.fork() } {
            return Ok((pid, Some(cage)));
        }
    }
    // SAFETY: as above.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok((pid, None)),
    }
}

/// Serves one request: whether the cgroup can be used again.
fn work(mut channel: Channel, means: &Means<'_>) -> io::Result<bool> {
    let Some((request, fds)) = channel.next(means.signals) else { return Ok(true) };
    match request {
        Message::Run(start) => return keeper::keep(&start, fds, channel, means),
        Message::Connect { dir, name } => match guest::connect_to(&dir, &name) {
            Ok(stream) => channel.say(&[Message::Connected], &[stream.as_fd()]),
            Err((why, message)) => channel.say(&[Message::ConnectFailed { why, message }], &[]),
        },
        Message::Clear { dir } => channel.say(&[guest::clear(&dir, guest::CLEAR_BOUND)], &[]),
        other => channel.say(&[Message::Failed(format!("not a request: {other:?}"))], &[]),
    }
    Ok(true)
}

/// Puts `/dev/null` in the place of a standard descriptor, so that none that is opened later gets its number.
pub(super) fn silence(replace: impl Fn(OwnedFd) -> rustix::io::Result<()>) -> io::Result<()> {
    Ok(replace(open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)?)
}
