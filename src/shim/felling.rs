//! Ending everything below this process: TERM, a grace, KILL, and what is done about trees that grow while they are killed.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitStatus};

use super::{cage::Cage, signals::Signals, tree, wire::Ended};

/// The longest pause between two rounds of killing; the end of a child wakes us earlier.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// How long a tree is killed by walking it before more is done.
const WALK_BOUND: Duration = Duration::from_millis(200);

/// How a tree is to be ended.
pub(super) struct Felling<'a> {
    /// Signals of this process.
    pub(super) signals: &'a Signals,
    /// Time between TERM and KILL; none: no TERM.
    pub(super) grace: Duration,
    /// How long it is killed before the rest counts as survivors.
    pub(super) bound: Duration,
    /// The cgroup that the tree is in.
    pub(super) cage: Option<&'a Cage>,
}

/// What else goes on meanwhile.
pub(super) trait Watch {
    /// A child was buried.
    fn buried(&mut self, pid: Pid, status: WaitStatus);
    /// Whether the grace is over before its time.
    fn is_hurried(&mut self) -> bool;
    /// Walking is not enough, and there is no cgroup of its own.
    fn stuck(&mut self);
}

/// A watch for which nothing matters.
pub(super) struct Unwatched;

impl Watch for Unwatched {
    fn buried(&mut self, _: Pid, _: WaitStatus) {}
    fn is_hurried(&mut self) -> bool {
        false
    }
    fn stuck(&mut self) {}
}

impl Felling<'_> {
    /// Ends it.
    pub(super) fn run(&self, watch: &mut impl Watch) -> Ended {
        let mut ended = Ended { caged: self.cage.is_some(), ..Ended::default() };
        if !self.grace.is_zero() {
            ended.signalled = count(tree::signal_round(Signal::TERM, |_| false));
            // What was stopped would not hear it.
            tree::signal_round(Signal::CONT, |_| false);
            if self.wait_out_grace(watch) {
                return ended;
            }
            ended.escalated = true;
        } else {
            ended.signalled = count(tree::count());
        }
        ended.survivors = self.kill(watch);
        ended
    }

    /// True when the tree is gone.
    fn wait_out_grace(&self, watch: &mut impl Watch) -> bool {
        let deadline = Instant::now() + self.grace;
        loop {
            if tree::reap(|pid, status| watch.buried(pid, status)) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || watch.is_hurried() {
                return false;
            }
            match self.signals.wait(None, Some(left.min(LONGEST_PAUSE))) {
                Ok(ready) if !ready.terminate => {}
                _ => return false,
            }
        }
    }

    /// Kills and buries: how many are left, normally 0.
    fn kill(&self, watch: &mut impl Watch) -> u32 {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(1);
        let mut is_stuck = false;
        loop {
            tree::kill_round(|_| false);
            if tree::reap(|pid, status| watch.buried(pid, status)) {
                return 0;
            }
            if !is_stuck && begun.elapsed() >= WALK_BOUND {
                is_stuck = true;
                if !self.cage.is_some_and(Cage::kill) {
                    watch.stuck();
                }
            }
            if begun.elapsed() >= self.bound {
                return count(tree::count());
            }
            if self.signals.wait(None, Some(pause)).is_err() {
                std::thread::sleep(pause);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
