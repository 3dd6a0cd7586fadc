//! Programs that killed what was to keep them.
//!
//! A program has our user id, so it can kill its keeper and the host's shim. Then the broker, a subreaper itself, becomes
//! the parent of what is left: it stays known as an extension's, and is killed here.
//!
//! The broker becomes the parent of the user's own daemons as well, which what it starts beside programs may leave: a
//! credential helper an agent, say. What comes while every shim lives is none of theirs, since a shim is a subreaper, and
//! is left alone.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, WaitOptions, getpid, pidfd_open, waitpid};
use tokio::signal::unix::{SignalKind, signal};

use super::ancestry::Process;
use crate::shim::tree;
use crate::shim::watch::watch;

/// How long it is tried.
const BOUND: Duration = Duration::from_secs(10);
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(5);
/// How long the dead are left to who started them: a helper of ours may have a session of its own, and is waited for.
const WAKE: Duration = Duration::from_secs(1);

/// Of this process's children, whatever hub they belong to: a process has one list of them.
static KNOWN: Mutex<Known> = Mutex::new(Known { shims: Vec::new(), spared: Vec::new(), unsettled: None });

struct Known {
    /// The shims on the host, until what they left is gone.
    shims: Vec<Process>,
    /// What was adopted while all of those lived.
    spared: Vec<Process>,
    /// Until when what a child of ours left may get a session of its own: it counts as adopted from then on.
    unsettled: Option<Instant>,
}

/// Looks after what this process adopts from other sessions, from now on: buries the dead, and notes what is no program's.
///
/// # Errors
///
/// What the system says where it does not tell of children that ended.
pub fn look_after_adopted() -> io::Result<()> {
    // An orphan comes when its parent ends, and that or one above it was a child of ours.
    let mut ended = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while ended.recv().await.is_some() {
            let adopted = adopted();
            known().unsettled = Some(Instant::now() + WAKE);
            known().note(&adopted);
            let dead = processes(&adopted).filter(|process| !process.is_alive()).collect();
            tokio::spawn(see_to_it_later(dead));
        }
    });
    Ok(())
}

/// Notes what is no program's once more, where a program is about to start, which might kill its shim.
pub(super) fn note_latecomers() {
    if known().unsettled.is_some_and(|until| Instant::now() < until) {
        let adopted = adopted();
        known().note(&adopted);
    }
}

async fn see_to_it_later(dead: Vec<Process>) {
    tokio::time::sleep(WAKE).await;
    let adopted = adopted();
    known().note(&adopted);
    for process in processes(&adopted).filter(|process| dead.contains(process)) {
        bury(process.pid);
    }
}

/// Kills what a host shim leaves behind when it ends, however it ends.
pub(super) fn end_behind(shim: u32) {
    let Some(pid) = i32::try_from(shim).ok().and_then(Pid::from_raw) else { return };
    let Some(process) = Process::of(pid.as_raw_pid()) else { return };
    // One that cannot be watched stays there: then nothing is taken for none of its.
    known().shims.push(process);
    let opened = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(io::Error::from);
    let Ok(ended) = opened.and_then(watch) else { return };
    tokio::spawn(async move {
        if ended.readable().await.is_ok() && tokio::task::spawn_blocking(end).await.is_ok_and(|is_done| is_done) {
            known().shims.retain(|shim| *shim != process);
        }
    });
}

/// Kills and buries all adopted processes and what descends from them, but not those that are spared. False where some
/// are left.
fn end() -> bool {
    let begun = Instant::now();
    while begun.elapsed() < BOUND {
        let spared: Vec<_> = known().spared.clone();
        let is_spared = |child: Pid| Process::of(child.as_raw_pid()).is_some_and(|child| spared.contains(&child));
        let orphans: Vec<_> = adopted().into_iter().filter(|child| !is_spared(*child)).collect();
        if orphans.is_empty() {
            return true;
        }
        tree::kill_round(|child| !is_foreign(child) || is_spared(child));
        orphans.iter().for_each(|orphan| bury(orphan.as_raw_pid()));
        std::thread::sleep(PAUSE);
    }
    tracing::error!("programs that killed their keeper are still there");
    false
}

/// Buries a child, if it has ended. By its number: the shims and Compose are waited for by whoever started them.
fn bury(child: i32) {
    let _ = waitpid(Pid::from_raw(child), WaitOptions::NOHANG);
}

fn processes(children: &[Pid]) -> impl Iterator<Item = Process> {
    children.iter().filter_map(|child| Process::of(child.as_raw_pid()))
}

fn adopted() -> Vec<Pid> {
    tree::children().into_iter().filter(|child| is_foreign(*child)).collect()
}

/// Whether a child was not started by this process. What we start stays in our session; keepers and programs of
/// extensions have sessions of their own, and no process can join another's. A keeper that was stopped would not end by
/// itself, and what it keeps would come here when nobody looks any more.
fn is_foreign(child: Pid) -> bool {
    match (tree::session_of(child), tree::session_of(getpid())) {
        (Some(theirs), Some(ours)) => theirs != ours,
        _ => false,
    }
}

impl Known {
    /// Notes what was adopted, where no shim can have left it. The list was made before the shims are looked at: what a
    /// shim left comes here in the moment of its end.
    fn note(&mut self, adopted: &[Pid]) {
        if self.shims.iter().all(Process::is_alive) {
            self.spared = processes(adopted).collect();
        } else {
            self.spared.retain(Process::is_alive);
        }
    }
}

fn known() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}
