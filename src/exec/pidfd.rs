//! The number that a process from another pid namespace has here.

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
};

/// The process id of a pidfd as this machine counts; `None` where it is no pidfd, or the process is gone or not visible.
pub(super) fn pid_here(pidfd: OwnedFd) -> Option<i64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok().filter(|pid| *pid > 0)
}
