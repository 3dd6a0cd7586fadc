//! Trees of the worst kinds are gone when they are ended, whatever ends them: on the host and in a container, by a broker
//! of root and by one of a plain member of the docker group.
//!
//! Each broker is a process of its own, which does on its standard input's orders what a broker does. Processes are
//! counted here, by a marker in the host's `/proc`.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use longshore::exec::{Cause, Containment, ExecHandle, Hub, HubOptions, Link, Outcome, Run, SqueezeJournal};

use crate::{
    container::{Container, busybox, in_container},
    support::*,
};

/// How often each case is tried.
const ROUNDS: usize = 50;
/// How many trees of a case live at once.
const AT_ONCE: usize = 10;
/// How many processes the trees of one broker may have: a fork loop ends there.
const MAX_PROCESSES: &str = "400";
/// How much memory they may have, in bytes.
const MAX_MEMORY_BYTES: u64 = 256 << 20;
/// Nobody.
const PLAIN_USER: u32 = 65534;

/// The trees, each of which says `up`.
const TREES: [(&str, &str); 4] = [
    ("daemons", "( ( setsid sleep 300 & ) & ); ( ( sleep 300 & ) & ); echo up; sleep 300"),
    ("deaf", "trap '' TERM HUP INT; (trap '' TERM; sleep 300; sleep 300) & echo up; while :; do sleep 300; done"),
    ("sessions", "setsid sh -c 'setsid sleep 300 & sleep 300' & setsid sleep 300 & sleep 0.05; echo up; wait"),
    ("loop", LOOP),
];

/// Deaf processes that multiply as fast as they can: some leave their session and their parent each time, others make
/// daemons that live a little.
const LOOP: &str = r#"
trap "" TERM
HOP='trap "" TERM; setsid sh -c "$HOP" & exit 0'
export HOP
for each in 1 2 3; do sh -c "$HOP" & done
( while :; do ( ( sleep 0.2 & ) & ); done ) 2>/dev/null &
sleep 0.1
echo up
while :; do sleep 300; done
"#;

const CAUSES: [&str; 4] = ["cancel", "deadline", "session", "owner"];

/// How a broker runs.
#[derive(Clone, Copy, PartialEq)]
enum As {
    Root,
    /// Root, with little of a processor.
    RootThrottled,
    /// Root, where no cgroup of version 2 is mounted.
    RootUnmounted,
    /// A plain member of the docker group, with a cgroup that was delegated to it.
    Plain,
    /// The same without.
    PlainUndelegated,
}

impl As {
    fn is_plain(self) -> bool {
        matches!(self, As::Plain | As::PlainUndelegated)
    }
}

/// Where the trees are.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Host,
    Container,
}

#[test]
fn trees_of_root_on_the_host_are_gone() {
    matrix(Place::Host, As::Root, ROUNDS);
}

#[test]
fn trees_of_a_plain_user_on_the_host_are_gone() {
    matrix(Place::Host, As::Plain, ROUNDS);
}

#[test]
fn trees_of_root_in_a_container_are_gone() {
    matrix(Place::Container, As::Root, ROUNDS);
}

#[test]
fn trees_of_a_plain_user_in_a_container_are_gone() {
    matrix(Place::Container, As::Plain, ROUNDS);
}

/// The hierarchy can be had without a mount that others see.
#[test]
fn trees_are_gone_where_no_cgroup_is_mounted() {
    matrix(Place::Host, As::RootUnmounted, 2);
}

/// Where a loop outruns walking, its cgroup is killed: no other program may start in that one, which kills whatever is
/// forked into it later.
#[test]
fn trees_are_gone_where_time_is_short() {
    matrix(Place::Host, As::RootThrottled, 2);
}

/// Held together by their keepers alone, which is said.
#[test]
fn trees_are_gone_where_no_cgroup_can_be_made() {
    matrix(Place::Host, As::PlainUndelegated, 2);
}

#[test]
fn what_memory_ran_out_for_is_hinted_at() {
    let mut broker = Broker::start(None, As::Root);
    broker.say("oom");
    broker.hear("DONE");
}

#[test]
fn a_killed_broker_of_root_leaves_nothing_on_the_host() {
    killed(Place::Host, As::Root);
}

#[test]
fn a_killed_broker_of_a_plain_user_leaves_nothing_on_the_host() {
    killed(Place::Host, As::Plain);
}

#[test]
fn a_killed_broker_of_root_leaves_nothing_in_a_container() {
    killed(Place::Container, As::Root);
}

#[test]
fn a_killed_broker_of_a_plain_user_leaves_nothing_in_a_container() {
    killed(Place::Container, As::Plain);
}

/// Every tree, ended for every cause but the broker's death.
fn matrix(place: Place, user: As, rounds: usize) {
    let container = container(place);
    let mut broker = Broker::start(container.as_ref(), user);
    for (tree, _) in TREES {
        // Fewer loops at a time, within what processes there may be.
        let at_once = if tree == "loop" { 2 } else { AT_ONCE };
        for cause in CAUSES {
            let begun = std::time::Instant::now();
            for _ in 0..rounds.div_ceil(at_once) {
                let marker = marker();
                broker.say(&format!("end {tree} {cause} {at_once} {marker}"));
                broker.hear("DONE");
                assert_eq!(count_marked(&marker), 0, "{tree} {cause}: told to be gone");
            }
            println!("{tree} {cause}: {:?}", begun.elapsed());
        }
    }
    broker.say("quit");
}

/// Every tree, when the broker is killed.
fn killed(place: Place, user: As) {
    let container = container(place);
    for round in 0..ROUNDS {
        let marker = marker();
        let mut broker = Broker::start(container.as_ref(), user);
        broker.say(&format!("hold {marker}"));
        broker.hear("DONE");
        assert!(count_marked(&marker) >= 8, "round {round}: {}", count_marked(&marker));
        broker.process.kill().unwrap();
        broker.process.wait().unwrap();
        wait_until_none_marked_blocking(&marker);
    }
}

fn container(place: Place) -> Option<Container> {
    // The container's own limit, and what the loop may use of it.
    (place == Place::Container).then(|| Container::start(busybox(), &["--pids-limit", MAX_PROCESSES]))
}

fn wait_until_none_marked_blocking(marker: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(wait_until_none_marked(marker));
}

/// A broker in a process of its own.
struct Broker {
    process: Child,
    said: BufReader<ChildStdout>,
    cgroups: Cgroups,
    _place: tempfile::TempDir,
}

/// Cgroups that a broker begins in: those that limit its processes, their memory and their time, and one that it may make others in.
struct Cgroups {
    limiting: PathBuf,
    memory: PathBuf,
    time: PathBuf,
    delegated: PathBuf,
}

impl Broker {
    fn start(container: Option<&Container>, user: As) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
        // Copies, because a plain user may not enter where tests are built.
        let (exe, shim) = (place.path().join("broker"), place.path().join("shim"));
        for (from, to) in [(std::env::current_exe().unwrap(), &exe), (SHIM.into(), &shim)] {
            if fs::hard_link(&from, to).is_err() {
                fs::copy(&from, to).unwrap();
            }
        }
        let cgroups = Cgroups::make(user);
        let enter: String = [&cgroups.limiting, &cgroups.memory, &cgroups.time, &cgroups.delegated]
            .map(|dir| format!("echo $$ > {}/cgroup.procs; ", dir.display()))
            .concat();
        let unmount = match user {
            As::RootUnmounted => format!("umount {}; ", v2_root().display()),
            _ => String::new(),
        };
        let enter = format!("{enter}{unmount}exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &enter, "sh"]);
        let containment = if user == As::PlainUndelegated { "WALK" } else { "CGROUP" };
        command.env("LONGSHORE_TEST_CONTAINMENT", containment);
        if user.is_plain() {
            let user = format!("--reuid={PLAIN_USER}");
            let groups = format!("--groups={}", docker_group());
            command.args(["setpriv", &user, "--regid=65534", &groups, "--"]);
        }
        command.arg(&exe).args(["--exact", "kill::broker_of_its_own", "--ignored", "--nocapture"]);
        command.env("LONGSHORE_TEST_SHIM", &shim).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(container) = container {
            if user.is_plain() {
                chown(container.broker_dir(), Some(PLAIN_USER), Some(PLAIN_USER)).unwrap();
            }
            fs::set_permissions(container.data.path(), PermissionsExt::from_mode(0o755)).unwrap();
            command.env("LONGSHORE_TEST_CONTAINER", &container.id);
            command.env("LONGSHORE_TEST_DATA", container.data.path());
        }
        let mut process = command.spawn().unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Broker { process, said, cgroups, _place: place }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn hear(&mut self, wanted: &str) {
        let mut heard = String::new();
        while !heard.ends_with(&format!("{wanted}\n")) {
            assert!(self.said.read_line(&mut heard).unwrap() > 0, "the broker said only {heard}");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
        self.cgroups.remove();
    }
}

impl Cgroups {
    fn make(user: As) -> Self {
        let name = format!("longshore-test-{}", marker());
        let limiting = limits_root("pids").join(&name);
        let memory = limits_root("memory").join(&name);
        let time = limits_root("cpu").join(&name);
        let delegated = v2_root().join(&name);
        for dir in [&limiting, &memory, &time, &delegated] {
            // The same one where there is version 2 only.
            let _ = fs::create_dir(dir);
        }
        fs::write(limiting.join("pids.max"), MAX_PROCESSES).unwrap();
        let max = ["memory.limit_in_bytes", "memory.max"].map(|file| memory.join(file));
        fs::write(max.iter().find(|file| file.exists()).unwrap(), MAX_MEMORY_BYTES.to_string()).unwrap();
        if user == As::RootThrottled {
            // A twentieth of one processor.
            let limits = [("cpu.cfs_quota_us", "5000"), ("cpu.max", "5000 100000")];
            let (file, limit) = limits.iter().find(|(file, _)| time.join(file).exists()).unwrap();
            fs::write(time.join(file), limit).unwrap();
        }
        if user == As::Plain {
            for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
                chown(delegated.join(file), Some(PLAIN_USER), Some(PLAIN_USER)).unwrap();
            }
        }
        Cgroups { limiting, memory, time, delegated }
    }

    /// What is in them ends at about this time.
    fn remove(&self) {
        let begun = std::time::Instant::now();
        for dir in [&self.limiting, &self.memory, &self.time, &self.delegated] {
            while dir.exists() && begun.elapsed().as_secs() < 20 {
                for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
                    for inner in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                        let _ = fs::remove_dir(inner.path());
                    }
                    let _ = fs::remove_dir(entry.path());
                }
                let _ = fs::remove_dir(dir);
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

fn docker_group() -> String {
    let group = Command::new("stat").args(["-c", "%g", "/var/run/docker.sock"]).output().unwrap();
    String::from_utf8(group.stdout).unwrap().trim().to_owned()
}

/// Where version 2 is mounted.
fn v2_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let point = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    point.expect("a mount of cgroup2").into()
}

/// Where this can be limited.
fn limits_root(controller: &str) -> PathBuf {
    let v1 = Path::new("/sys/fs/cgroup").join(controller);
    if v1.join("tasks").exists() {
        return v1;
    }
    let v2 = v2_root();
    fs::write(v2.join("cgroup.subtree_control"), format!("+{controller}")).expect("a cgroup with limits");
    v2
}

/// Where walking a tree in a container does not end it, nothing there can fork until it is gone; then the limit is as it
/// was. No loop outruns walking each time, so one process is kept from being buried.
#[tokio::test]
async fn a_tree_that_outlasts_walking_is_squeezed() {
    const LIMIT: i64 = 333;
    let container = Container::start(busybox(), &["--pids-limit", &LIMIT.to_string()]);
    let journal = Arc::new(Mutex::new(Vec::<(String, Option<i64>)>::new()));
    let (noted, settled) = (journal.clone(), journal.clone());
    let journaling = SqueezeJournal {
        note: Box::new(move |container, limit| {
            noted.lock().unwrap().push((container, Some(limit)));
            Box::pin(async { Ok(LIMIT) })
        }),
        settle: Box::new(move |container| {
            settled.lock().unwrap().push((container, None));
            Box::pin(async { Ok(()) })
        }),
    };
    let hub = Hub::new(HubOptions { shim: SHIM.into(), squeeze_journal: Some(journaling), ..HubOptions::default() });
    let link = container.link(&hub, None).await.unwrap();
    let file = container.pids_limit();
    let limit = || fs::read_to_string(&file).unwrap().trim().to_owned();
    let marker = marker();
    let mut lasting = in_container(with_env(shell("setsid sleep 300 & echo up; sleep 300"), "MARK", &marker));
    lasting.grace = Duration::ZERO;
    let mut run = link.run(&lasting).await.unwrap();
    wait_for(&mut run, "up").await;
    let traced = Traced::any_marked(&marker);
    let handle = run.handle().unwrap();
    let ending = handle.terminate(Cause::Requested, None);
    let squeezed = async {
        let begun = Instant::now();
        while limit() != "1" {
            assert!(begun.elapsed() < Duration::from_secs(5), "not squeezed: {}", limit());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(traced);
    };
    let (termination, ()) = tokio::join!(ending, squeezed);
    let termination = termination.unwrap();
    assert_eq!((termination.survivors, termination.containment), (Some(0), Containment::PidsLimit), "{termination:?}");
    assert_eq!(count_marked(&marker), 0);
    // Runs again at once, when the limit is back.
    drop(run);
    let after = link.run(&in_container(program(&["true"]))).await.unwrap();
    assert_eq!(told(after).await.outcome, Outcome::Code(0));
    let id = container.id.clone();
    assert_eq!(*journal.lock().unwrap(), [(id.clone(), Some(LIMIT)), (id, None)]);
    assert_eq!(limit(), LIMIT.to_string());
}

/// A process that stays among the dead for as long as this lives: its tracer does not bury it, and nobody else can.
struct Traced(Option<std::thread::JoinHandle<()>>, std::sync::mpsc::Sender<()>);

impl Traced {
    fn any_marked(marker: &str) -> Self {
        let pid = *marked(marker).first().unwrap();
        let (release, released) = std::sync::mpsc::channel();
        let (seized, is_seized) = std::sync::mpsc::channel();
        // The thread is the tracer: when it ends, the process is its parent's again.
        let tracer = std::thread::spawn(move || {
            let none = std::ptr::null_mut::<libc::c_void>();
            // SAFETY: this request takes no addresses.
            seized.send(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) }).unwrap();
            let _ = released.recv();
        });
        assert_eq!(is_seized.recv().unwrap(), 0, "{}", std::io::Error::last_os_error());
        Traced(Some(tracer), release)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.1.send(());
        let _ = self.0.take().map(std::thread::JoinHandle::join);
    }
}

/// Not a test: a broker, which takes orders.
#[tokio::test]
#[ignore = "started by the tests above"]
async fn broker_of_its_own() {
    let Ok(shim) = std::env::var("LONGSHORE_TEST_SHIM") else { return };
    let hub = Hub::new(HubOptions { shim: shim.into(), max_open_files: Some(1024), ..HubOptions::default() });
    let link = match std::env::var("LONGSHORE_TEST_CONTAINER") {
        Err(_) => {
            let expected = std::env::var("LONGSHORE_TEST_CONTAINMENT").unwrap();
            // The same before there is a shim as with one.
            let (foreseen, why) = hub.host_containment();
            assert_eq!((foreseen.as_str(), why.is_some()), (&*expected, expected == "WALK"), "{why:?}");
            let link = hub.host().unwrap();
            assert_eq!(hub.host_containment(), (foreseen, why));
            link
        }
        Ok(id) => {
            let data = PathBuf::from(std::env::var("LONGSHORE_TEST_DATA").unwrap());
            crate::container::link(&hub, &crate::container::dockerd(), &id, None, &data.join("broker")).await.unwrap()
        }
    };
    let mut held = Vec::new();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["end", tree, cause, count, marker] => {
                end_trees(&hub, &link, tree, cause, count.parse().unwrap(), marker).await;
            }
            ["oom"] => {
                let greedy = told(link.run(&program(&["tail", "/dev/zero"])).await.unwrap()).await;
                assert!(matches!(greedy.outcome, Outcome::Signal { number: 9, .. }) && greedy.oom, "{greedy:?}");
                let own = told(link.run(&shell("kill -9 $$")).await.unwrap()).await;
                assert!(matches!(own.outcome, Outcome::Signal { number: 9, .. }) && !own.oom, "{own:?}");
            }
            ["hold", marker] => {
                for (tree, _) in TREES {
                    held.push(start(&link, tree, marker, "held").await);
                }
            }
            _ => break,
        }
        println!("DONE");
    }
    drop((held, link));
    hub.shutdown().await;
}

async fn start(link: &Arc<Link>, tree: &str, marker: &str, session: &str) -> Run {
    let (_, script) = TREES.iter().find(|(name, _)| *name == tree).unwrap();
    let mut program = with_env(shell(script), "MARK", marker);
    if std::env::var_os("LONGSHORE_TEST_CONTAINER").is_some() {
        program = in_container(program);
    }
    program.session = Some(session.to_owned());
    let mut run = link.run(&program).await.unwrap();
    wait_for(&mut run, "up").await;
    run
}

async fn end_trees(hub: &Hub, link: &Arc<Link>, tree: &str, cause: &str, count: usize, marker: &str) {
    let runs = join_all((0..count).map(|_| start(link, tree, marker, marker))).await;
    let handles: Vec<ExecHandle> = runs.iter().map(|run| run.handle().unwrap()).collect();
    match cause {
        "cancel" => {
            drop(runs);
            join_all(handles.iter().map(ExecHandle::gone)).await;
        }
        "deadline" => {
            join_all(handles.iter().map(|handle| handle.terminate(Cause::Deadline, None))).await;
        }
        "session" => {
            let left = hub.end_session(marker).await;
            assert_eq!((left.trees, left.unfinished, left.survivors), (count, 0, 0));
        }
        _ => {
            let left = hub.end_all_of("test/extension").await;
            assert_eq!((left.trees, left.unfinished, left.survivors), (count, 0, 0));
        }
    }
    let is_deaf = tree == "deaf" || tree == "loop";
    for handle in handles {
        let termination = handle.terminate(Cause::Requested, None).await.unwrap();
        let expected = match cause {
            "cancel" => Cause::Cancelled,
            "deadline" => Cause::Deadline,
            "session" => Cause::SessionEnded,
            _ => Cause::OwnerEnded,
        };
        assert_eq!((termination.cause, termination.survivors), (expected, Some(0)), "{termination:?}");
        assert!(termination.signalled.is_some_and(|count| count >= 2), "{termination:?}");
        assert!(termination.escalated || !is_deaf, "{termination:?}");
        let is_caged = std::env::var("LONGSHORE_TEST_CONTAINMENT").is_ok_and(|name| name == "CGROUP")
            && std::env::var_os("LONGSHORE_TEST_CONTAINER").is_none();
        assert_eq!(termination.containment == Containment::Cgroup, is_caged, "{termination:?}");
    }
}
