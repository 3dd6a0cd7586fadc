//! What these tests share.

use std::{
    fs,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use longshore::exec::{Drained, EnvSpec, Event, Exit, Hub, HubOptions, Outcome, OutputStream, Program, Run, Target};

pub(crate) const SHIM: &str = env!("CARGO_BIN_EXE_longshore");

pub(crate) fn hub() -> Hub {
    Hub::new(HubOptions { shim: SHIM.into(), max_open_files: Some(1024), ..HubOptions::default() })
}

/// A program with the PATH of the machine, whose drain is cut after half a second.
pub(crate) fn program(argv: &[&str]) -> Program {
    let argv = argv.iter().map(ToString::to_string).collect();
    Program {
        env: EnvSpec { inherit: false, vars: vec![("PATH".into(), "/usr/bin:/bin".into())] },
        drain_timeout: Duration::from_millis(500),
        // What ignores TERM shall not take the tests long.
        grace: Duration::from_millis(100),
        ..Program::new("test/extension", Target::Host, argv)
    }
}

pub(crate) fn shell(script: &str) -> Program {
    program(&["sh", "-c", script])
}

pub(crate) fn with_env(mut program: Program, name: &str, value: &str) -> Program {
    program.env.vars.push((name.into(), value.into()));
    program
}

/// All that a run told, and when it ended.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) pid: Option<i64>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) outcome: Outcome,
    /// Whether memory ran out meanwhile.
    pub(crate) oom: bool,
    pub(crate) exited_after: Duration,
    /// Bytes of both outputs that came before the end.
    pub(crate) bytes_before_end: usize,
    pub(crate) drained: Drained,
}

/// Reads a run to its end, checking the order of events.
pub(crate) async fn told(mut run: Run) -> Told {
    let begin = Instant::now();
    let (mut pid, mut stdout, mut stderr, mut end) = (None, Vec::new(), Vec::new(), None);
    loop {
        match run.next().await.expect("drained is last") {
            Event::Started { pid: started, .. } => {
                assert!(end.is_none() && pid.is_none() && stdout.is_empty() && stderr.is_empty(), "once, and first");
                pid = Some(started);
            }
            Event::Output { stream, data } => {
                assert!(data.len() <= 256 << 10 && !data.is_empty());
                if stream == OutputStream::Stdout { stdout.extend(data) } else { stderr.extend(data) }
            }
            Event::Exited(exit) => {
                assert!(end.is_none(), "exited once");
                end = Some((exit, begin.elapsed(), stdout.len() + stderr.len()));
            }
            Event::Drained(drained) => {
                assert_eq!((drained.stdout_bytes, drained.stderr_bytes), (stdout.len() as u64, stderr.len() as u64));
                assert_eq!(run.next().await, None);
                let (Exit { outcome, oom }, exited_after, bytes_before_end) = end.expect("exited before drained");
                return Told { pid, stdout, stderr, outcome, oom, exited_after, bytes_before_end, drained };
            }
        }
    }
}

/// Waits until the program has written `text` to its standard output.
pub(crate) async fn wait_for(run: &mut Run, text: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        match tokio::time::timeout(Duration::from_secs(20), run.next()).await.expect("in time") {
            Some(Event::Output { data, .. }) => seen.extend(data),
            Some(Event::Started { .. }) => {}
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&seen)),
        }
    }
}

/// How many living processes on this machine have `marker` in their environment.
pub(crate) fn count_marked(marker: &str) -> usize {
    marked(marker).len()
}

/// Those processes.
pub(crate) fn marked(marker: &str) -> Vec<i32> {
    let is_marked = |pid: &String| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.windows(marker.len()).any(|window| window == marker.as_bytes())
    };
    pids().iter().filter(|pid| is_marked(pid)).map(|pid| pid.parse().unwrap()).collect()
}

/// A process in the middle of an `exec` has no environment for a moment.
pub(crate) async fn wait_until_marked(marker: &str, least: usize) {
    let begin = Instant::now();
    while count_marked(marker) < least {
        assert!(begin.elapsed() < Duration::from_secs(5), "only {} live", count_marked(marker));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn wait_until_none_marked(marker: &str) {
    let begin = Instant::now();
    while count_marked(marker) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(5), "{} still live", count_marked(marker));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until there is no zombie below `shim`: a keeper that has told its end is buried a moment later.
pub(crate) async fn wait_until_buried(shim: i32) {
    let begun = Instant::now();
    while !zombies_below(shim).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", zombies_below(shim));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Zombies among the descendants of `ancestor`.
pub(crate) fn zombies_below(ancestor: i32) -> Vec<i32> {
    let stat = |pid: i32| -> Option<(String, i32)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
    };
    let descends = |mut pid: i32| {
        while let Some((_, parent)) = stat(pid) {
            if parent == ancestor {
                return true;
            }
            pid = parent;
        }
        false
    };
    let pids = pids().into_iter().filter_map(|pid| pid.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(state, _)| state == "Z") && descends(*pid)).collect()
}

/// States and command lines of all processes that share a process namespace, zombies too; that of `init` must be there.
pub(crate) fn in_namespace_of(init: i32) -> Vec<(String, String)> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(&init.to_string()).expect("its first process runs");
    let told = |pid: String| -> Option<(String, String)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let state = stat.rsplit_once(')')?.1.split_ascii_whitespace().next()?.to_owned();
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((state, String::from_utf8_lossy(&command).replace('\0', " ")))
    };
    pids().into_iter().filter(|pid| namespace(pid).as_ref() == Some(&wanted)).filter_map(told).collect()
}

fn pids() -> Vec<String> {
    let names = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).collect()
}

/// A value that nothing else on the machine has.
pub(crate) fn marker() -> String {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    static LAST: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("mark-{}-{nanos:x}-{number}x", std::process::id())
}

/// A tree of the worst behaved kind: daemons forked twice, sessions of their own, TERM ignored. Says `up` when it is.
pub(crate) const WILD_TREE: &str = r#"
trap "" TERM HUP INT
setsid sh -c 'trap "" TERM; while :; do sleep 1; done' &
( ( setsid sleep 300 & ) & )
( sh -c 'sh -c "sleep 300 & sleep 300 & exit 0" & exit 0' & )
for i in 1 2 3; do ( sleep 300 & ) ; done
sleep 0.05
echo up
sleep 300
"#;
