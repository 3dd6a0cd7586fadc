//! How many descriptors this process has.

use std::os::fd::AsRawFd as _;

use rustix::process::{Resource, getrlimit};

/// How many it may have.
pub(super) fn most() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many are open, as far as that is known; at least whether there are more than `limit` less `reserved`.
pub(super) fn open(limit: u64, reserved: u64) -> u64 {
    // Since Linux 6.2 the directory's size is their number.
    match rustix::fs::stat("/proc/self/fd").map(|found| found.st_size.unsigned_abs()) {
        Ok(count) if count > 0 => count,
        // Before, it is known at least whether numbers near the limit are taken: new ones get the lowest.
        _ => {
            let near = i32::try_from(limit.saturating_sub(reserved)).unwrap_or(i32::MAX);
            let taken = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), near);
            taken.map_or(0, |fd| if fd.as_raw_fd() > near { near.unsigned_abs().into() } else { 0 })
        }
    }
}
