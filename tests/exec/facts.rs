//! Facts about ends in containers, and that nothing piles up.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, time::Instant};

use futures_util::{StreamExt, stream};
use longshore::exec::{Cut, Event, Exit, Outcome};

use crate::{
    container::{Container, busybox, docker, in_container},
    support::*,
};

const GUEST_DIR: &str = "/run/guest-services";

#[tokio::test]
async fn ends_in_a_container_are_told_as_they_were() {
    let container = Container::start(busybox(), &["--memory", "64m", "--user", "1000"]);
    let guest = container.data.path().join("guest");
    let file = |name: &str, content: &[u8], mode| {
        let path = guest.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        format!("{GUEST_DIR}/{name}")
    };
    let mut other_machine = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    other_machine.resize(64, 0);
    (other_machine[16], other_machine[18]) = (2, 183);
    let cases = [
        (file("foreign", &other_machine, 0o755), "WRONG_FORMAT"),
        (file("orphan", b"#!/no/such/interpreter\n", 0o755), "WRONG_FORMAT"),
        (file("plain", b"#!/bin/sh\n", 0o644), "NOT_EXECUTABLE"),
        (file("of-root", b"#!/bin/sh\n", 0o700), "NOT_EXECUTABLE"),
        ("/no/such".to_owned(), "PROGRAM_NOT_FOUND"),
    ];
    let hub = hub();
    let link = container.link(&hub, None).await.unwrap();
    for (path, expected) in cases {
        let told = told(link.run(&in_container(program(&[&path]))).await.unwrap()).await;
        assert!(matches!(told.outcome, Outcome::StartFailure { reason, .. } if reason == expected), "{path}: {told:?}");
    }
    for (cwd, expected) in [("/no/such", "DIRECTORY_NOT_FOUND"), ("/root-only", "OTHER")] {
        if cwd == "/root-only" {
            docker(&["exec", "-u", "0", &container.id, "sh", "-c", "busybox mkdir -m 700 /root-only"]);
        }
        let mut lost = in_container(program(&["true"]));
        lost.cwd = Some(cwd.into());
        let told = told(link.run(&lost).await.unwrap()).await;
        assert!(
            matches!(&told.outcome, Outcome::StartFailure { reason, .. } if *reason == expected),
            "{cwd}: {told:?}"
        );
    }
    for (script, number) in [("kill -9 $$", 9), ("kill -SEGV $$", 11)] {
        let told = told(link.run(&in_container(shell(script))).await.unwrap()).await;
        assert!(matches!(told.outcome, Outcome::Signal { number: n, .. } if n == number) && !told.oom, "{told:?}");
    }
    let greedy = told(link.run(&in_container(program(&["tail", "/dev/zero"]))).await.unwrap()).await;
    assert!(matches!(greedy.outcome, Outcome::Signal { number: 9, .. }) && greedy.oom, "{greedy:?}");
    let within = told(link.run(&in_container(shell("tail /dev/zero; exit 5"))).await.unwrap()).await;
    assert!(within.outcome == Outcome::Code(5) && within.oom, "{within:?}");
    let after = told(link.run(&in_container(shell("exit 7"))).await.unwrap()).await;
    assert!(after.outcome == Outcome::Code(7) && !after.oom, "{after:?}");
}

#[tokio::test]
async fn a_container_that_is_paused_or_removed_half_way_is_told() {
    let container = Container::start(busybox(), &[]);
    let hub = hub();
    let link = container.link(&hub, None).await.unwrap();
    let script = "echo up; while :; do sleep 0.05; echo tick; done";
    let mut run = link.run(&in_container(shell(script))).await.unwrap();
    wait_for(&mut run, "tick").await;
    docker(&["pause", &container.id]);
    docker(&["unpause", &container.id]);
    wait_for(&mut run, "tick").await;
    let id = container.id.clone();
    let remove = tokio::task::spawn_blocking(move || docker(&["rm", "-f", &id]));
    let mut end = None;
    let mut last = None;
    while let Some(event) = run.next().await {
        match event {
            Event::Exited(Exit { outcome, .. }) => end = Some(outcome),
            other => last = Some(other),
        }
    }
    remove.await.unwrap();
    let end = end.unwrap();
    assert!(matches!(end, Outcome::Unknown { .. } | Outcome::Signal { number: 9, .. }), "{end:?}");
    let Some(Event::Drained(drained)) = last else { panic!("{last:?}") };
    assert!(drained.cut.is_none_or(|cut| cut == Cut::BackendGone) && drained.termination.is_none(), "{drained:?}");
}

/// Ten thousand programs leave nothing behind: no zombie, no descriptor, no memory, no list entry, no variable.
#[tokio::test]
async fn ten_thousand_programs_leave_nothing_behind() {
    const PROGRAMS: usize = 10_000;
    const AT_ONCE: usize = 8;
    let hub = hub();
    let link = hub.host().unwrap();
    let run = async |_: usize| {
        let told = told(link.run(&program(&["true"])).await.unwrap()).await;
        assert_eq!((told.outcome, told.drained.cut), (Outcome::Code(0), None));
    };
    let environment: BTreeMap<_, _> = std::env::vars_os().collect();
    stream::iter(0..500).for_each_concurrent(AT_ONCE, run).await;
    let shim = hub.host_pids()[0];
    let measure =
        || [descriptors("self"), descriptors(&shim.to_string()), resident_kib("self"), resident_kib(&shim.to_string())];
    let before = measure();
    let begun = Instant::now();
    stream::iter(0..PROGRAMS).for_each_concurrent(AT_ONCE, run).await;
    println!("{:?} each, {AT_ONCE} at once", begun.elapsed() / u32::try_from(PROGRAMS).unwrap());
    let after = measure();
    println!("descriptors and KiB of both: {before:?} before, {after:?} after");
    assert_eq!(after[0], before[0]);
    assert!(after[1] <= before[1] + AT_ONCE, "a cgroup or two more may be kept");
    assert!(after[2] < before[2] + 4096 && after[3] < before[3] + 1024, "{before:?} {after:?}");
    wait_until_buried(shim).await;
    assert!(hub.execs(longshore::exec::ExecFilter::All).is_empty());
    assert_eq!(environment, std::env::vars_os().collect());
}

fn descriptors(pid: &str) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn resident_kib(pid: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
