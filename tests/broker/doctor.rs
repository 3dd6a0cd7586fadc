//! What is wrong on a machine, and what to do: seen without a broker, and nothing is changed by looking.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;

use crate::{
    repairing::damage,
    support::{Broker, BrokerOptions, PLAIN_UID, PrivateEngine, docker_gid, local, local_source},
};

/// Longest time that a look may take on a busy machine, whatever hangs.
const LONG: Duration = Duration::from_secs(12);

/// What was found, by check.
struct Checkup {
    code: i32,
    healthy: bool,
    checks: BTreeMap<String, Value>,
}

impl Checkup {
    /// Of the directories of a broker, running or not.
    fn of(broker: &Broker, args: &[&str]) -> Checkup {
        Checkup::by(&mut command(broker, Command::new(broker.binary()), args))
    }

    fn by(command: &mut Command) -> Checkup {
        let begun = Instant::now();
        let output = command.arg("--json").output().unwrap();
        assert!(begun.elapsed() < LONG, "it took {:?}", begun.elapsed());
        let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let checks = found["checks"].as_array().unwrap();
        Checkup {
            code: output.status.code().unwrap(),
            healthy: found["healthy"].as_bool().unwrap(),
            checks: checks.iter().map(|one| (one["check"].as_str().unwrap().to_owned(), one.clone())).collect(),
        }
    }

    /// Verdict, what was found, and what to do about it.
    fn check(&self, name: &str) -> (&str, &str, &str) {
        let check = self.checks.get(name).unwrap_or_else(|| panic!("{name} is not among {:#?}", self.checks));
        let text = |field: &str| check[field].as_str().unwrap_or_default();
        (text("verdict"), text("found"), text("advice"))
    }

    /// The one check that is a problem has that in what was found, and that in its advice.
    fn is_sick_by(&self, name: &str, found: &str, advice: &str) {
        let problems: Vec<_> = self.checks.iter().filter(|(_, one)| one["verdict"] == "problem").collect();
        assert_eq!((self.code, self.healthy, problems.len()), (1, false, 1), "{problems:#?}");
        let check = self.check(name);
        assert!(check.0 == "problem" && check.1.contains(found) && check.2.contains(advice), "{check:?}");
    }

    fn is_healthy(&self) {
        assert_eq!((self.code, self.healthy), (0, true), "{:#?}", self.checks);
    }

    fn warns(&self, name: &str, found: &str, advice: &str) {
        self.is_healthy();
        let check = self.check(name);
        assert!(check.0 == "warning" && check.1.contains(found) && check.2.contains(advice), "{check:?}");
    }
}

fn command(broker: &Broker, mut command: Command, args: &[&str]) -> Command {
    command.arg("doctor").arg("--data-dir").arg(broker.data_dir()).arg("--runtime-dir").arg(broker.runtime_dir());
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", broker.home()).stdin(Stdio::null());
    command
}

/// Everything below a directory, with when it was changed.
fn state(directory: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path, metadata.modified().unwrap());
    }
    found
}

#[tokio::test]
async fn before_the_first_start_all_is_well_and_nothing_is_made() {
    let broker = Broker::prepare(BrokerOptions::default());
    let before = state(&broker.home());
    let checkup = Checkup::of(&broker, &[]);
    checkup.warns("socket", "no broker listens", "longshore serve");
    assert!(checkup.check("data directory").1.contains("the first start makes it"));
    for name in ["configuration", "runtime directory", "store", "engine", "engine's machine", "compose", "helper"] {
        assert_eq!(checkup.check(name).0, "ok", "{:?}", checkup.check(name));
    }
    assert!(checkup.check("engine's machine").1.contains("it sees"), "{:?}", checkup.check("engine's machine"));
    for name in ["cgroup", "landlock", "descriptors"] {
        assert_ne!(checkup.check(name).0, "problem");
    }
    assert_eq!(state(&broker.home()), before);
}

#[tokio::test]
async fn a_running_broker_is_asked_and_left_alone() {
    let broker = Broker::start().await;
    local(&broker).await;
    let checkup = Checkup::of(&broker, &[]);
    checkup.is_healthy();
    let pid = format!("pid {}", broker.pid());
    assert!(checkup.check("broker").1.contains(&pid), "{:?}", checkup.check("broker"));
    assert!(checkup.check("store").1.contains(&format!("process id {}", broker.pid())), "{:?}", checkup.check("store"));
    // One with other settings is told.
    let other = broker.home().join("other");
    let mut asked = Command::new(broker.binary());
    asked.arg("doctor").arg("--data-dir").arg(&other).arg("--socket").arg(broker.socket());
    asked.env_clear().env("HOME", broker.home());
    Checkup::by(&mut asked).warns("broker", "not in", "other settings");
    assert!(!other.exists());
}

#[tokio::test]
async fn people_read_what_to_do_below_what_was_found() {
    let broker = Broker::prepare(BrokerOptions::default());
    let args = ["--engine", "unix:///nonexistent/docker.sock"];
    let output = command(&broker, Command::new(broker.binary()), &args).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("problem   engine ")).unwrap_or_else(|| panic!("{said}"));
    assert!(lines[at].contains("there is no socket at unix:///nonexistent/docker.sock (from --engine)"), "{said}");
    assert!(lines[at + 1].trim().starts_with("-> install Docker Engine and start it"), "{said}");
}

#[tokio::test]
async fn an_engine_that_is_away_refuses_or_hangs_is_told() {
    let broker = Broker::prepare(BrokerOptions::default());
    let socket = broker.scratch().join("engine.sock");
    let url = format!("unix://{}", socket.display());
    Checkup::of(&broker, &["--engine", &url]).is_sick_by("engine", "there is no socket", "install Docker Engine");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    Checkup::of(&broker, &["--engine", &url]).warns("engine", "says nothing of itself", "docker version");
    drop(listener);
    Checkup::of(&broker, &["--engine", &url]).is_sick_by("engine", "nobody listens", "systemctl start docker");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("tcp://{closed}");
    Checkup::of(&broker, &["--engine", &url]).is_sick_by("engine", "refused", "--engine");
}

#[tokio::test]
async fn who_may_not_use_the_engine_is_told_the_group() {
    let broker = Broker::prepare(BrokerOptions { plain: true, ..BrokerOptions::default() });
    let mut asked = Command::new("setpriv");
    asked.args([format!("--reuid={PLAIN_UID}"), format!("--regid={PLAIN_UID}"), "--clear-groups".into()]);
    asked.arg(broker.binary());
    let groups = fs::read_to_string("/etc/group").unwrap();
    let gid = docker_gid().to_string();
    let group = groups.lines().find(|line| line.split(':').nth(2) == Some(&gid)).unwrap().split(':').next().unwrap();
    let advice = format!("usermod -aG {group} ");
    Checkup::by(&mut command(&broker, asked, &[])).is_sick_by("engine", "you may not use", &advice);
    // In the group all is well, but for what only root can see.
    let mut asked = Command::new("setpriv");
    asked.args([format!("--reuid={PLAIN_UID}"), format!("--regid={PLAIN_UID}"), format!("--groups={gid}")]);
    asked.arg(broker.binary());
    let checkup = Checkup::by(&mut command(&broker, asked, &[]));
    checkup.is_healthy();
    assert_eq!(checkup.check("engine").0, "ok");
}

#[tokio::test]
async fn an_engine_that_sees_other_directories_is_told() {
    let engine = PrivateEngine::start().await;
    // What is in memory for the machine is for that engine another place in memory.
    let place = tempfile::tempdir_in("/run").unwrap();
    let broker = Broker::prepare(BrokerOptions::default());
    let mut asked = Command::new(broker.binary());
    asked.arg("doctor").arg("--data-dir").arg(place.path()).arg("--runtime-dir").arg(broker.runtime_dir());
    asked.arg("--engine").arg(engine.at().url()).env_clear().env("HOME", broker.home());
    Checkup::by(&mut asked).is_sick_by("engine's machine", "does not see", "under the same path");
}

#[tokio::test]
async fn what_runs_under_systemd_needs_no_directory_of_its_own_for_the_socket() {
    let broker = Broker::start().await;
    let directory = broker.runtime_dir();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    let checkup = Checkup::of(&broker, &[]);
    checkup.is_healthy();
    assert!(checkup.check("runtime directory").1.contains("the socket is there"));
    assert!(checkup.check("cgroup").1.contains("the broker") || checkup.check("cgroup").0 == "warning");
}

#[tokio::test]
async fn a_long_socket_path_and_other_mistakes_are_told_with_the_machine() {
    let broker = Broker::prepare(BrokerOptions::default());
    let long = format!("/{}", "x".repeat(120));
    let checkup = Checkup::of(&broker, &["--socket", &long]);
    checkup.is_sick_by("configuration", "at most 107", "mend");
    assert_eq!(checkup.check("compose").0, "ok");
    assert!(!checkup.checks.contains_key("engine"));
}

#[tokio::test]
async fn directories_that_cannot_be_used_are_told() {
    let broker = Broker::prepare(BrokerOptions::default());
    fs::create_dir(broker.data_dir()).unwrap();
    fs::set_permissions(broker.data_dir(), fs::Permissions::from_mode(0o777)).unwrap();
    Checkup::of(&broker, &[]).is_sick_by("data directory", "can be written by others", "--data-dir");
    fs::set_permissions(broker.data_dir(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(broker.runtime_dir(), "in the way").unwrap();
    Checkup::of(&broker, &[]).is_sick_by("runtime directory", "not a directory", "--runtime-dir");
}

#[tokio::test]
async fn a_stale_socket_and_a_file_in_its_place_are_told() {
    let mut broker = Broker::start().await;
    broker.kill();
    Checkup::of(&broker, &[]).warns("socket", "is stale", "longshore serve");
    assert!(broker.socket().exists());
    fs::remove_file(broker.socket()).unwrap();
    fs::write(broker.socket(), "mine").unwrap();
    Checkup::of(&broker, &[]).is_sick_by("socket", "no socket", "move it away");
}

#[tokio::test]
async fn a_store_that_is_damaged_or_lost_is_told_and_left_as_it_is() {
    let mut broker = Broker::start().await;
    local(&broker).await;
    broker.stop().await;
    let database = broker.data_dir().join("longshore.db");
    let before = state(&broker.data_dir());
    assert!(Checkup::of(&broker, &[]).check("store").1.ends_with("is sound"));
    assert_eq!(state(&broker.data_dir()), before);
    damage(&database);
    let damaged = fs::read(&database).unwrap();
    let told = format!("{} is damaged", database.display());
    Checkup::of(&broker, &[]).is_sick_by("store", &told, "longshore repair");
    assert!(fs::read(&database).unwrap() == damaged);
    fs::remove_file(&database).unwrap();
    Checkup::of(&broker, &[]).is_sick_by("store", "is not there, though extensions are", "longshore repair");
    assert!(!database.exists());
}

#[tokio::test]
async fn what_a_broker_that_died_left_undone_is_told() {
    let mut broker = Broker::prepare(BrokerOptions::default());
    broker.set_failpoint(Some("install/files"));
    broker.restart().await;
    let request = local_source(&broker);
    assert!(broker.install(request).await.is_err());
    broker.died().await;
    let before = state(&broker.data_dir());
    Checkup::of(&broker, &[]).warns("store", "(install/files)", "start a broker");
    assert_eq!(state(&broker.data_dir()), before);
}
