//! What the system says of this process.

use std::fs;

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use super::text::Process;
use crate::peer::Stat;

/// Asks it.
pub(super) fn ask() -> Process {
    // Less the one by which it is looked.
    let descriptors = fs::read_dir("/proc/self/fd").ok().map(|found| (found.count() as u64).saturating_sub(1));
    let resident_bytes = fs::read_to_string("/proc/self/statm").ok().as_deref().and_then(resident_pages);
    Process {
        descriptors,
        most_descriptors: getrlimit(Resource::Nofile).current,
        resident_bytes: resident_bytes.map(|pages| pages * page_size() as u64),
        cpu_seconds: Stat::of_own().map(|own| own.cpu_ticks as f64 / clock_ticks_per_second() as f64),
    }
}

/// The second field of `/proc/<pid>/statm`.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_what_this_process_has() {
        assert_eq!(resident_pages("100 20 3 4 0 5 0\n"), Some(20));
        let Process { descriptors, most_descriptors, resident_bytes, cpu_seconds } = ask();
        assert!(descriptors > Some(2) && descriptors < most_descriptors, "{descriptors:?} of {most_descriptors:?}");
        assert!(resident_bytes > Some(1 << 20) && cpu_seconds.is_some());
    }
}
