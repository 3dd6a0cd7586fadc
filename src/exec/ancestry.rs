//! Whether a process descends from another, by parents in `/proc`.
//!
//! Programs that we run cannot leave: keepers and the resident are subreapers, so an orphan's next parent is still one of
//! ours. One that kills both its keeper and the resident becomes the broker's own child, where that is a subreaper too.

use crate::peer::Stat;

/// The longest chain that is followed.
const MAX_DEPTH: usize = 4096;

/// A process that is not mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Process {
    /// Its number here.
    pub(super) pid: i32,
    /// When it started, in ticks since boot.
    pub(super) started_ticks: u64,
}

impl Process {
    /// The process that has this number now.
    pub(super) fn of(pid: i32) -> Option<Self> {
        Some(Process { pid, started_ticks: Stat::of(pid)?.started_ticks })
    }

    /// Whether it still runs; a zombie does not.
    pub(super) fn is_alive(&self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.started_ticks == self.started_ticks && !stat.is_zombie)
    }
}

/// Whether `pid` is one of `ancestors` or descends from one. True as well where the chain cannot be read to its end, and
/// for a process that is gone: who asks wants to keep descendants out.
pub(super) fn descends_from(pid: i32, ancestors: &[Process]) -> bool {
    if ancestors.is_empty() {
        return false;
    }
    // A chain breaks when one of its processes dies while it is read; then it is read again.
    (0..3).find_map(|_| walk(pid, ancestors)).unwrap_or(true)
}

/// One reading of the chain; `None` where it broke.
fn walk(pid: i32, ancestors: &[Process]) -> Option<bool> {
    let mut at = Process::of(pid)?;
    for _ in 0..MAX_DEPTH {
        if ancestors.contains(&at) {
            return Some(true);
        }
        let parent = Stat::of(at.pid)?.parent;
        if parent <= 0 {
            return Some(false);
        }
        let above = Process::of(parent)?;
        // Unless `at` is still its child now, `above` may be a stranger that took the number of a parent that died.
        let now = Stat::of(at.pid)?;
        if (now.parent, now.started_ticks) != (parent, at.started_ticks) {
            return None;
        }
        at = above;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_descends_and_a_parent_does_not() {
        let own = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(descends_from(pid, &[own]));
        assert!(descends_from(own.pid, &[own]));
        let below = Process::of(pid).unwrap();
        assert!(!descends_from(own.pid, &[below]));
        assert!(!descends_from(pid, &[Process { started_ticks: own.started_ticks + 1, ..own }]));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!below.is_alive());
        assert!(descends_from(pid, &[own]), "a process that is gone is kept out");
        assert!(!descends_from(pid, &[]));
    }
}
