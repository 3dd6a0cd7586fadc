//! The resident shim: one process, one thread, one link to the broker.
//!
//! The link carries nothing but channels: one byte and one descriptor each. For each channel a child is forked that reads
//! the request from it and serves it. So the resident process never parses, never blocks on a program or a socket, and
//! the broker takes a request back by closing its end. Forking is cheap because this process is small, and sound because
//! it has one thread.

use std::{
    collections::{HashSet, VecDeque},
    io,
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::{
        DumpableBehavior, Pid, Signal, getpid, getppid, kill_process, set_child_subreaper, set_dumpable_behavior,
        set_parent_process_death_signal, setsid,
    },
};

use super::{channel::Channel, guest, keeper, signals::Signals, socket, tree, wire::Message};

/// Serves the link until it ends, then ends everything below.
pub(super) fn serve(link: OwnedFd) -> io::Result<()> {
    let signals = Signals::block_all()?;
    // Programs run as the same user: they shall not read this process's memory or take its descriptors.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // What a killed keeper leaves behind comes here.
    set_child_subreaper(Some(getpid()))?;
    match (Resident { link, workers: HashSet::new() }).run(&signals)? {
        Role::Resident => {}
        Role::Worker { channel, parent } => {
            // The resident may have died before this took hold.
            set_parent_process_death_signal(Some(Signal::TERM))?;
            if getppid() == Some(parent) {
                work(Channel::new(channel), &signals)?;
            }
        }
    }
    Ok(())
}

/// Which of the two processes returns after a fork.
enum Role {
    Resident,
    Worker { channel: OwnedFd, parent: Pid },
}

struct Resident {
    link: OwnedFd,
    workers: HashSet<Pid>,
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
            let mut fds = VecDeque::new();
            match socket::receive(&self.link, &mut [0], &mut fds) {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                _ => {}
            }
            if let Some(channel) = fds.pop_front()
                && let Some(role) = self.fork(channel)
            {
                return Ok(role);
            }
        }
        self.end(signals);
        Ok(Role::Resident)
    }

    fn fork(&mut self, channel: OwnedFd) -> Option<Role> {
        let parent = getpid();
        // SAFETY: this process has a single thread, so the child's memory is whole and it may do all the parent may.
        match unsafe { libc::fork() } {
            0 => {
                // By its session it is told from what the broker itself starts, should this process be killed.
                let _ = setsid();
                return Some(Role::Worker { channel, parent });
            }
            pid if pid > 0 => self.workers.extend(Pid::from_raw(pid)),
            _ => {
                let message = format!("no process could be made: {}", io::Error::last_os_error());
                Channel::new(channel).say(&[Message::Failed(message)], &[]);
            }
        }
        None
    }

    fn reap(&mut self) {
        let mut strays = false;
        tree::reap(|pid, status| {
            let worker = self.workers.remove(&pid);
            strays |= !worker || status.exit_status() != Some(0);
        });
        // A worker that was killed, or that gave up, leaves its tree to us.
        if strays {
            tree::kill_round(|pid| self.workers.contains(&pid));
        }
    }

    fn end(mut self, signals: &Signals) {
        for worker in &self.workers {
            let _ = kill_process(*worker, Signal::TERM);
        }
        let deadline = Instant::now() + keeper::KILL_BOUND;
        while !self.workers.is_empty() && Instant::now() < deadline {
            let _ = signals.wait(None, Some(deadline.saturating_duration_since(Instant::now())));
            self.reap();
        }
        tree::end(signals, keeper::KILL_BOUND, |_, _| {});
    }
}

/// Serves one request.
fn work(mut channel: Channel, signals: &Signals) -> io::Result<()> {
    let Some((request, fds)) = channel.next(signals) else { return Ok(()) };
    match request {
        Message::Run(start) => {
            if let Ok(stdio) = <[OwnedFd; 3]>::try_from(fds) {
                keeper::keep(&start, stdio, channel, signals)?;
            }
        }
        Message::Connect { dir, name } => match guest::connect_to(&dir, &name) {
            Ok(stream) => channel.say(&[Message::Connected], &[stream.as_fd()]),
            Err((why, message)) => channel.say(&[Message::ConnectFailed { why, message }], &[]),
        },
        Message::Clear { dir } => channel.say(&[guest::clear(&dir, guest::CLEAR_BOUND)], &[]),
        other => channel.say(&[Message::Failed(format!("not a request: {other:?}"))], &[]),
    }
    Ok(())
}

/// Puts `/dev/null` in the place of a standard descriptor, so that none that is opened later gets its number.
pub(super) fn silence(replace: impl Fn(OwnedFd) -> rustix::io::Result<()>) -> io::Result<()> {
    Ok(replace(open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)?)
}
