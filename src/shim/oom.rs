//! Whether something was killed for want of memory: a hint, from the counter of the memory cgroup that programs are in.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Where cgroups are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// What is read at most: the counters that are wanted come early in each file.
const MAX_READ_BYTES: usize = 8 << 10;

/// The counter of kills for want of memory.
#[derive(Debug)]
pub(super) struct OomCounter(File);

impl OomCounter {
    /// The nearest one to this process: of its memory cgroup (v2 or v1), else the machine's. `None` where there is none.
    pub(super) fn open() -> Option<Self> {
        let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        candidates(&cgroups)
            .iter()
            .filter_map(|path| Some(OomCounter(File::open(path).ok()?)))
            .find(|it| it.read().is_some())
    }

    /// How many there have been.
    pub(super) fn read(&self) -> Option<u64> {
        let mut text = [0; MAX_READ_BYTES];
        let len = self.0.read_at(&mut text, 0).ok()?;
        count(std::str::from_utf8(&text[..len]).ok()?)
    }
}

fn candidates(cgroups: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            found.push(Path::new(ROOT).join(path).join("memory.events"));
            found.push(Path::new(ROOT).join("memory.events"));
        } else if controllers.split(',').any(|controller| controller == "memory") {
            found.push(Path::new(ROOT).join("memory").join(path).join("memory.oom_control"));
            found.push(Path::new(ROOT).join("memory/memory.oom_control"));
        }
    }
    found.push("/proc/vmstat".into());
    found
}

/// All three files have a line `oom_kill <number>`.
fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_counter_is_taken() {
        let paths = candidates("5:cpu,memory:/docker/a\n4:memoryx:/no\n0::/b/c\n");
        let expected = [
            "/sys/fs/cgroup/memory/docker/a/memory.oom_control",
            "/sys/fs/cgroup/memory/memory.oom_control",
            "/sys/fs/cgroup/b/c/memory.events",
            "/sys/fs/cgroup/memory.events",
            "/proc/vmstat",
        ];
        assert_eq!(paths, expected.map(PathBuf::from));
        assert_eq!(count("oom 3\noom_kill 2\noom_group_kill 1\n"), Some(2));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!(count("oom_kill_disable 0\n"), None);
        assert!(OomCounter::open().is_some());
    }
}
