//! Everything that descends from this process: finding it, killing it, burying it.
//!
//! The caller is a subreaper, so whatever loses its parent becomes a direct child here. A direct child that was not
//! waited for keeps its process id, so killing direct children can never hit a stranger; repeating that until nothing is
//! left ends the deepest tree. It keeps the number of its process group too, so that is killed as a whole, which the
//! kernel does in one go: no fork within the group escapes. Grandchildren are killed in the same round for speed, through
//! a pidfd and only while their parent is still the one that was listed, or is this process.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use rustix::{
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpgid, getpgrp, getpid, kill_process, kill_process_group,
        pidfd_open, pidfd_send_signal, wait,
    },
};

use crate::peer::Stat;

/// Buries every child that has ended. True when no child is left, living or dead.
pub(super) fn reap(mut ended: impl FnMut(Pid, WaitStatus)) -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => ended(pid, status),
            Ok(None) => return false,
            Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

/// Kills once whatever descends from this process now, but not direct children that are `spared` nor what is below them.
pub(crate) fn kill_round(spared: impl Fn(Pid) -> bool) {
    let own = getpgrp();
    let mut groups = HashSet::new();
    for child in children().into_iter().filter(|child| !spared(*child)) {
        let _ = kill_process(child, Signal::KILL);
        // Killed first, so that it cannot leave the group whose number it holds for us.
        if let Ok(group) = getpgid(Some(child))
            && group != own
            && group != Pid::INIT
            && groups.insert(group)
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
    signal_round(Signal::KILL, spared);
}

/// Sends a signal to each descendant that there is now, with the same exceptions: how many there were.
pub(super) fn signal_round(signal: Signal, spared: impl Fn(Pid) -> bool) -> usize {
    let own = getpid();
    let mut sent = 0;
    for (pid, parent) in descendants(spared) {
        if parent == own {
            sent += usize::from(kill_process(pid, signal).is_ok());
        } else if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty())
            // Its parent may have ended just now, of this very signal: then it is ours.
            && parent_of(pid).is_some_and(|now| now == parent || now == own)
        {
            sent += usize::from(pidfd_send_signal(handle, signal).is_ok());
        }
    }
    sent
}

/// How many descendants there are.
pub(super) fn count() -> usize {
    descendants(|_| false).len()
}

/// All descendants with their parents, parents first; the dead that nobody buried are among them.
fn descendants(spared: impl Fn(Pid) -> bool) -> Vec<(Pid, Pid)> {
    let own = getpid();
    let Some(children) = children_of(own) else { return descendants_by_scan(own, spared) };
    let mut found: Vec<_> = children.into_iter().filter(|pid| !spared(*pid)).map(|pid| (pid, own)).collect();
    let mut next = 0;
    while let Some((pid, _)) = found.get(next).copied() {
        found.extend(children_of(pid).unwrap_or_default().into_iter().map(|child| (child, pid)));
        next += 1;
    }
    found
}

/// The direct children of this process.
pub(crate) fn children() -> Vec<Pid> {
    let own = getpid();
    let all = || descendants_by_scan(own, |_| false).into_iter().filter(|(_, parent)| *parent == own);
    children_of(own).unwrap_or_else(|| all().map(|(pid, _)| pid).collect())
}

/// The children of all threads of a process; `None` where the process is gone or the kernel has no such list.
fn children_of(pid: Pid) -> Option<Vec<Pid>> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let list = fs::read_to_string(task.ok()?.path().join("children")).ok()?;
        children.extend(list.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)));
    }
    Some(children)
}

/// The same for kernels without lists of children: every process there is, sorted by parent.
fn descendants_by_scan(own: Pid, spared: impl Fn(Pid) -> bool) -> Vec<(Pid, Pid)> {
    let mut by_parent: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?));
        if let Some(pid) = pid
            && let Some(parent) = parent_of(pid)
        {
            by_parent.entry(parent).or_default().push(pid);
        }
    }
    let mut found: Vec<_> = by_parent.remove(&own).unwrap_or_default().into_iter().map(|pid| (pid, own)).collect();
    found.retain(|(pid, _)| !spared(*pid));
    let mut next = 0;
    while let Some((pid, _)) = found.get(next).copied() {
        found.extend(by_parent.remove(&pid).unwrap_or_default().into_iter().map(|child| (child, pid)));
        next += 1;
    }
    found
}

fn parent_of(pid: Pid) -> Option<Pid> {
    Pid::from_raw(Stat::of(pid.as_raw_pid())?.parent)
}

/// The number of the session a process is in, 0 for one that this PID namespace cannot name; `None` once the process is
/// gone. From `/proc`, because `getsid` answers 0 for a process that is being buried at that moment.
pub(crate) fn session_of(pid: Pid) -> Option<i32> {
    Some(Stat::of(pid.as_raw_pid())?.session).filter(|session| *session >= 0)
}
