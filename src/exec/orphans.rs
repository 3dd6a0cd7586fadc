//! Programs that killed what was to keep them.
//!
//! A program has our user id, so it can kill its keeper and the host's shim. Then the broker, a subreaper itself, becomes
//! the parent of what is left: it stays known as an extension's, and is killed here.

use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, WaitOptions, getpid, pidfd_open, waitpid};

use crate::shim::tree;
use crate::shim::watch::watch;

/// How long it is tried.
const BOUND: Duration = Duration::from_secs(10);
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(5);

/// Kills what a host shim leaves behind when it ends, however it ends.
pub(super) fn end_behind(shim: u32) {
    let Some(pid) = i32::try_from(shim).ok().and_then(Pid::from_raw) else { return };
    let opened = pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(std::io::Error::from);
    let Ok(ended) = opened.and_then(watch) else { return };
    tokio::spawn(async move {
        if ended.readable().await.is_ok() {
            let _ = tokio::task::spawn_blocking(end).await;
        }
    });
}

/// Kills and buries all adopted processes and what descends from them.
fn end() {
    let begun = Instant::now();
    while begun.elapsed() < BOUND {
        let orphans = adopted();
        if orphans.is_empty() {
            return;
        }
        tree::kill_round(|child| !is_foreign(child));
        for orphan in orphans {
            // By its number: the shims and Compose are waited for by whoever started them.
            let _ = waitpid(Some(orphan), WaitOptions::NOHANG);
        }
        std::thread::sleep(PAUSE);
    }
    tracing::error!("programs that killed their keeper are still there");
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
