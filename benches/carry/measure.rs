//! What the kernel knows of a process: time on a processor, memory, threads, wake-ups.

use std::{fs, io, time::Duration};

use rustix::{
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};

use crate::Outcome;

/// The process and all that it started, and what those did.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// Time that all threads of a process tree have been on a processor.
pub(crate) fn processor_time(root: u32) -> Duration {
    let times = tree(root).into_iter().flat_map(tasks).filter_map(|(pid, task)| {
        let stat = fs::read_to_string(format!("/proc/{pid}/task/{task}/schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}

/// Keeps all threads of a process tree on one processor, or lets them on all again.
pub(crate) fn keep_on(root: u32, processor: Option<usize>) -> Outcome<()> {
    for (_, task) in tree(root).into_iter().flat_map(tasks) {
        let pid = Pid::from_raw(i32::try_from(task)?);
        match sched_setaffinity(pid, &set(processor)) {
            // It ended meanwhile.
            Err(rustix::io::Errno::SRCH) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Keeps the calling thread on one processor.
pub(crate) fn stay_on(processor: usize) -> io::Result<()> {
    Ok(sched_setaffinity(None, &set(Some(processor)))?)
}

fn set(processor: Option<usize>) -> CpuSet {
    let mut set = CpuSet::new();
    match processor {
        Some(one) => set.set(one),
        None => (0..CpuSet::MAX_CPU).for_each(|all| set.set(all)),
    }
    set
}

fn tasks(pid: u32) -> Vec<(u32, u32)> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((pid, entry.file_name().to_str()?.parse().ok()?))).collect()
}

/// Memory that a process and those that it started hold now, in KiB.
pub(crate) fn resident_kib(root: u32) -> Outcome<f64> {
    let of = |pid| field(&format!("/proc/{pid}/status"), "VmRSS:");
    // What it started may end meanwhile, and holds nothing then.
    let children: f64 = tree(root).into_iter().skip(1).filter_map(|pid| of(pid).ok()).sum();
    Ok(of(root)? + children)
}

/// Memory that those processes of a tree hold now, in KiB, that run the same program as the first; what they share is
/// counted once.
pub(crate) fn own_kib(root: u32) -> f64 {
    let program = |pid| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let own = program(root);
    let same = tree(root).into_iter().filter(|pid| program(*pid) == own);
    // One may end meanwhile.
    same.filter_map(|pid| field(&format!("/proc/{pid}/smaps_rollup"), "Pss:").ok()).sum()
}

/// Most memory that a process has held since [`forget_peak`], in KiB.
pub(crate) fn peak_kib(pid: u32) -> Outcome<f64> {
    field(&format!("/proc/{pid}/status"), "VmHWM:")
}

/// Begins anew to note the most memory that a process holds.
pub(crate) fn forget_peak(pid: u32) -> Outcome<()> {
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// Threads of a process.
pub(crate) fn threads(pid: u32) -> usize {
    tasks(pid).len()
}

/// How often the threads of a process have begun to wait.
pub(crate) fn waits(pid: u32) -> f64 {
    let status = |task| field(&format!("/proc/{pid}/task/{task}/status"), "voluntary_ctxt_switches:");
    tasks(pid).into_iter().filter_map(|(_, task)| status(task).ok()).sum()
}

fn field(file: &str, name: &str) -> Outcome<f64> {
    let status = fs::read_to_string(file)?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("{file}: no {name}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The value below which the share `part` of all lies.
pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the length")]
    values.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}
