//! The resident shim: one process, one thread, one link to the broker.
//!
//! The link carries nothing but descriptors, each with one byte that says what it is: nearly always a channel. For each
//! channel a child is forked that reads the request from it and serves it. So the resident process never parses, never
//! blocks on a program or a socket, and the broker takes a request back by closing its end. Forking is cheap because this
//! process is small, and sound because it has one thread. On the host, once there was a program, the child for the next is
//! forked ahead and handed its channel: a program then starts sooner by a fork.

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
    felling::{Felling, Unwatched},
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
pub(super) fn serve(link: OwnedFd, forks_ahead: bool) -> io::Result<ExitCode> {
    let signals = Signals::block_all()?;
    // Programs run as the same user: they shall not read this process's memory or take its descriptors.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // What a killed keeper leaves behind comes here.
    set_child_subreaper(Some(getpid()))?;
    let oom = OomCounter::open();
    match (Resident { link, workers: HashMap::new(), cages: None, forks_ahead, standby: None }).run(&signals)? {
        Role::Resident => {}
        Role::Worker { job, parent, cage } => {
            // By its session it is told from what the broker itself starts, should this process be killed.
            let _ = setsid();
            // The resident may have died before this took hold.
            set_parent_process_death_signal(Some(Signal::TERM))?;
            if getppid() == Some(parent)
                && let Some(channel) = job.channel(&signals)
            {
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
    Worker { job: Job, parent: Pid, cage: Option<Cage> },
}

/// What a child serves.
enum Job {
    Channel(OwnedFd),
    /// The channel that is handed over here.
    Awaited(OwnedFd),
}

impl Job {
    /// The channel; `None` where none comes any more.
    fn channel(self, signals: &Signals) -> Option<OwnedFd> {
        let handover = match self {
            Job::Channel(channel) => return Some(channel),
            Job::Awaited(handover) => handover,
        };
        loop {
            let ready = signals.wait(Some(handover.as_fd()), None).ok()?;
            if ready.terminate {
                return None;
            }
            if ready.socket {
                let mut fds = VecDeque::new();
                let _ = socket::receive(&handover, &mut [0], &mut fds);
                return fds.pop_front();
            }
        }
    }
}

/// A child that waits for a program's channel.
struct Standby {
    pid: Pid,
    handover: OwnedFd,
    cage: Option<Cage>,
}

struct Resident {
    link: OwnedFd,
    /// Those that keep a program with its cgroup.
    workers: HashMap<Pid, Option<Cage>>,
    cages: Option<Cages>,
    forks_ahead: bool,
    standby: Option<Standby>,
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
                    let role = match what == PROGRAM {
                        true => self.start(channel).or_else(|| self.fork_ahead()),
                        false => self.fork(channel, false),
                    };
                    if let Some(role) = role {
                        return Ok(role);
                    }
                }
                (_, None) => {}
            }
        }
        self.end(signals);
        Ok(Role::Resident)
    }

    /// Has a child serve the channel of a program.
    fn start(&mut self, channel: OwnedFd) -> Option<Role> {
        if let Some(Standby { pid, handover, cage }) = self.standby.take() {
            let is_fit = cage.is_some() == self.cages.is_some();
            // One that is of no use ends, as its socket does.
            self.workers.insert(pid, cage);
            if is_fit && socket::send(&handover, &[PROGRAM], &[channel.as_fd()]).is_ok() {
                return None;
            }
        }
        self.fork(channel, true)
    }

    fn fork(&mut self, channel: OwnedFd, wants_cage: bool) -> Option<Role> {
        let parent = getpid();
        match fork_into(self.cages.as_mut().filter(|_| wants_cage)) {
            Ok((0, cage)) => return Some(Role::Worker { job: Job::Channel(channel), parent, cage }),
            Ok((pid, cage)) => self.workers.extend(Pid::from_raw(pid).map(|pid| (pid, cage))),
            Err(error) => {
                let message = format!("no process could be made: {error}");
                Channel::new(channel).say(&[Message::Failed(message)], &[]);
            }
        }
        None
    }

    /// Forks the child for the next program, where that is wanted and can be done.
    fn fork_ahead(&mut self) -> Option<Role> {
        if !self.forks_ahead || self.standby.is_some() {
            return None;
        }
        let (handover, awaited) = socket::pair().ok()?;
        let parent = getpid();
        let (pid, cage) = fork_into(self.cages.as_mut()).ok()?;
        let Some(pid) = Pid::from_raw(pid) else {
            drop(handover);
            return Some(Role::Worker { job: Job::Awaited(awaited), parent, cage });
        };
        self.standby = Some(Standby { pid, handover, cage });
        None
    }

    /// Whether a child is one of ours, and nothing that a program left.
    fn is_own(&self, pid: Pid) -> bool {
        self.workers.contains_key(&pid) || self.standby.as_ref().is_some_and(|standby| standby.pid == pid)
    }

    fn reap(&mut self) {
        let mut strays = false;
        let mut standby = self.standby.take();
        tree::reap(|pid, status| {
            match self.workers.remove(&pid).or_else(|| Some(standby.take_if(|it| it.pid == pid)?.cage)) {
                Some(cage) => {
                    let code = status.exit_status();
                    let is_empty = match (cage, &mut self.cages) {
                        (Some(cage), Some(cages)) => cages.give_back(cage, code == Some(0)),
                        _ => true,
                    };
                    strays |= !is_empty || (code != Some(0) && code != Some(CAGE_USED_UP.into()));
                }
                None => strays = true,
            }
        });
        self.standby = standby;
        // A worker that was killed, or that gave up, leaves its tree to us.
        if strays {
            tree::kill_round(|pid| self.is_own(pid));
        }
    }

    fn end(mut self, signals: &Signals) {
        self.workers.extend(self.standby.take().map(|Standby { pid, cage, .. }| (pid, cage)));
        for worker in self.workers.keys() {
            let _ = kill_process(*worker, Signal::TERM);
        }
        // Longer than a worker takes.
        let deadline = Instant::now() + keeper::KILL_BOUND + Duration::from_secs(1);
        while !self.workers.is_empty() && Instant::now() < deadline {
            let _ = signals.wait(None, Some(deadline.saturating_duration_since(Instant::now())));
            self.reap();
        }
        Felling { signals, grace: Duration::ZERO, bound: LAST_KILL_BOUND, cage: None }.run(&mut Unwatched);
        if let Some(cages) = self.cages {
            cages.remove();
        }
    }
}

/// Forks, into a cgroup where there is one and that works: 0 in the child, and the cgroup that the child is in.
fn fork_into(cages: Option<&mut Cages>) -> io::Result<(libc::pid_t, Option<Cage>)> {
    if let Some(cages) = cages
        && let Some(cage) = cages.take()
    {
        // SAFETY: this process has a single thread, so the child's memory is whole and it may do all the parent may.
        if let Ok(pid) = unsafe { cage.fork() } {
            return Ok((pid, Some(cage)));
        }
        // Not for others: a program may have seen to it that nobody gets in.
        cages.give_back(cage, false);
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
        other => channel.say(&[Message::Failed(format!("not a request: {other:?}"))], &[]),
    }
    Ok(true)
}

/// Puts `/dev/null` in the place of a standard descriptor, so that none that is opened later gets its number.
pub(super) fn silence(replace: impl Fn(OwnedFd) -> rustix::io::Result<()>) -> io::Result<()> {
    Ok(replace(open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)?)
}
