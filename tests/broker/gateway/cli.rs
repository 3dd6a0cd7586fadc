//! Everything that the real docker command line and Compose do works through a gateway as it does at the engine itself.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::stage;
use crate::support::{BrokerOptions, as_both};

as_both!(
    programs_run_with_and_without_a_terminal,
    streams_go_on_until_they_end,
    files_go_both_ways,
    images_are_built,
    compose_brings_projects_up_and_down,
    a_reader_that_stops_holds_up_its_own_stream_only,
);

pub(super) async fn programs_run_with_and_without_a_terminal(options: BrokerOptions) {
    let stage = stage(options).await;
    let image = stage.image.reference.clone();
    // Half-close: `cat` ends because its input does, and all of its output comes back.
    let input: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    assert!(stage.says_to(&["run", "--rm", "-i", &image, "cat"], &input) == input);
    let output = stage.docker(&["run", "--rm", &image, "sh", "-c", "echo out; echo err >&2; exit 7"]).output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout, &*output.stderr), (Some(7), &b"out\n"[..], &b"err\n"[..]));
    let name = stage.name("run");
    stage.says(&["run", "-d", "--name", &name, &image, "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"]);
    assert_eq!(stage.says_to(&["exec", "-i", &name, "cat"], b"to exec"), b"to exec");
    assert_eq!(stage.says(&["exec", &name, "sh", "-c", "echo $0", "x"]), "x");
    assert!(stage.says(&["stats", "--no-stream", "--format", "{{.Name}}", &name]).contains(&name));
    // Under a terminal, with a shell that is typed to.
    let typed = |args: &[&str], keys: &str| {
        let line: Vec<String> = args.iter().map(|arg| format!("'{arg}'")).collect();
        let docker = stage.docker(&[]);
        let mut script = Command::new("script");
        script.args(["-qec", &format!("docker {}", line.join(" ")), "/dev/null"]);
        script.envs(docker.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut shown = String::new();
        // Keys that are typed before the prompt is there would be lost.
        let mut byte = [0];
        while !shown.ends_with("# ") && stdout.read(&mut byte).unwrap() > 0 {
            shown.push(byte[0].into());
        }
        std::io::Write::write_all(&mut stdin, keys.as_bytes()).unwrap();
        stdout.read_to_string(&mut shown).unwrap();
        (child.wait().unwrap().code(), shown)
    };
    let (code, shown) = typed(&["run", "--rm", "-it", &image, "sh"], "echo $((6*7)); exit 3\n");
    assert!(code == Some(3) && shown.contains("42"), "{code:?} {shown}");
    let (code, shown) = typed(&["exec", "-it", &name, "sh"], "echo $((6*7)); exit 4\n");
    assert!(code == Some(4) && shown.contains("42"), "{code:?} {shown}");
    // The detach keys leave the container running.
    let shell = stage.name("attach");
    stage.says(&["run", "-dit", "--name", &shell, &image, "sh"]);
    let (_, shown) = typed(&["attach", &shell], "echo $((6*7))\n\u{10}\u{11}");
    assert!(shown.contains("read escape sequence") || shown.contains("42"), "{shown}");
    assert_eq!(stage.says(&["inspect", "--format", "{{.State.Running}}", &shell]), "true");
    stage.says(&["rm", "-f", &name, &shell]);
}

async fn streams_go_on_until_they_end(options: BrokerOptions) {
    let stage = stage(options).await;
    let image = stage.image.reference.clone();
    let name = stage.name("logs");
    let filter = format!("container={name}");
    let mut events = stage.docker(&["events", "--filter", &filter, "--format", "{{.Action}}"]);
    let mut events = events.stdout(Stdio::piped()).spawn().unwrap();
    let mut actions = BufReader::new(events.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Of what happened before it listens it hears nothing.
    let probe = stage.name("probe");
    stage.says(&["run", "-d", "--name", &name, &image, "sh", "-c", "while :; do echo tick; sleep 0.05; done"]);
    let mut logs = stage.docker(&["logs", "-f", &name]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(logs.stdout.take().unwrap()).lines().map(Result::unwrap);
    for _ in 0..5 {
        assert_eq!(lines.next().unwrap(), "tick");
    }
    stage.says(&["rm", "-f", &name]);
    assert!(lines.all(|line| line == "tick"), "and it ends with the container");
    assert!(logs.wait().unwrap().success());
    loop {
        let action = actions.next().unwrap();
        if action == "destroy" {
            break;
        }
    }
    events.kill().unwrap();
    events.wait().unwrap();
    // A client that goes away is told to the engine: nothing is left hanging.
    stage.says(&["run", "-d", "--name", &probe, &image, "sleep", "1000"]);
    let connections = || fs::read_dir(format!("/proc/{}/fd", stage.broker.pid())).unwrap().count();
    let quiet = settled(&connections);
    let mut wait = stage.docker(&["wait", &probe]).stdout(Stdio::null()).spawn().unwrap();
    wait_until("it waits", || connections() > quiet + 1);
    let before = settled(&connections);
    let mut all: Vec<_> =
        (0..20).map(|_| stage.docker(&["logs", "-f", &probe]).stdout(Stdio::null()).spawn().unwrap()).collect();
    wait_until("20 streams are open", || connections() >= before + 40);
    for child in &mut all {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    wait_until("they are closed", || connections() <= before);
    stage.says(&["rm", "-f", &probe]);
    assert!(wait.wait().unwrap().success());
}

async fn files_go_both_ways(options: BrokerOptions) {
    let stage = stage(options).await;
    let name = stage.name("cp");
    stage.says(&["create", "--name", &name, &stage.image.reference]);
    let dir = stage.broker.scratch().join("cp");
    fs::create_dir(&dir).unwrap();
    let bytes: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 253) as u8).collect();
    fs::write(dir.join("in"), &bytes).unwrap();
    stage.says(&["cp", dir.join("in").to_str().unwrap(), &format!("{name}:/big")]);
    stage.says(&["cp", &format!("{name}:/big"), dir.join("out").to_str().unwrap()]);
    assert!(fs::read(dir.join("out")).unwrap() == bytes);
    let exported = stage.docker(&["export", &name]).output().unwrap();
    assert!(exported.stdout.len() > bytes.len());
    stage.says(&["rm", &name]);
}

async fn images_are_built(options: BrokerOptions) {
    let stage = stage(options).await;
    let dir = stage.broker.scratch().join("build");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("Dockerfile"), "FROM scratch\nCOPY file /file\nLABEL built=yes\n").unwrap();
    fs::write(dir.join("file"), vec![7_u8; 5_000_000]).unwrap();
    for buildkit in ["0", "1"] {
        let tag = stage.name("built");
        let build = ["build", "-q", "-t", &tag, dir.to_str().unwrap()];
        let mut command = stage.docker(&build);
        // The newer command line has BuildKit in a plugin, which is not everywhere; the older one has it built in.
        let program = if buildkit == "1" { "/usr/bin/docker" } else { "docker" };
        let environment: Vec<_> = command.get_envs().map(|(n, v)| (n.to_owned(), v.unwrap().to_owned())).collect();
        let output = Command::new(program).args(build).envs(environment).env("DOCKER_BUILDKIT", buildkit).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{buildkit}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(stage.says(&["image", "inspect", "--format", "{{.Config.Labels.built}}", &tag]), "yes");
        stage.says(&["image", "rm", &tag]);
        command.stdin(Stdio::null());
    }
}

pub(super) async fn compose_brings_projects_up_and_down(options: BrokerOptions) {
    let stage = stage(options).await;
    let dir = stage.broker.scratch().join("project");
    fs::create_dir(&dir).unwrap();
    let file = format!(
        "services:\n  one:\n    image: {0}\n    command: sleep 1000\n    scale: 2\n    volumes: ['data:/data']\n    depends_on: [two]\n  \
         two:\n    image: {0}\n    command: sleep 1000\nvolumes:\n  data: {{}}\n",
        stage.image.reference
    );
    fs::write(dir.join("compose.yml"), file).unwrap();
    let (project, path) = (stage.name("up"), dir.join("compose.yml"));
    let compose = ["compose", "-p", &project, "-f", path.to_str().unwrap()];
    stage.says(&[&compose[..], &["up", "-d"]].concat());
    let containers = stage.owned(longshore::pb::ResourceKind::Container).await;
    let mine = containers.iter().filter(|name| name.starts_with(&project)).count();
    assert_eq!(mine, 3, "{containers:?}");
    let volumes = stage.owned(longshore::pb::ResourceKind::Volume).await;
    assert!(volumes.contains(&format!("{project}_data")), "{volumes:?}");
    assert_eq!(stage.says(&[&compose[..], &["exec", "-T", "two", "echo", "hello"]].concat()), "hello");
    // The marks do not make Compose think that anything has changed.
    let again = stage.docker(&[&compose[..], &["up", "-d"]].concat()).output().unwrap();
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.success() && !told.contains("Recreate"), "{told}");
    stage.says(&[&compose[..], &["down", "-v"]].concat());
    for kind in [longshore::pb::ResourceKind::Container, longshore::pb::ResourceKind::Volume] {
        assert!(!stage.owned(kind).await.iter().any(|name| name.starts_with(&project)));
    }
}

async fn a_reader_that_stops_holds_up_its_own_stream_only(options: BrokerOptions) {
    let stage = stage(options).await;
    let name = stage.name("flood");
    let image = &stage.image.reference;
    stage.says(&["run", "-d", "--name", &name, image, "busybox", "yes"]);
    let before = stage.broker.resident_kib();
    let mut readers: Vec<_> = (0..8)
        .map(|_| stage.docker(&["attach", "--no-stdin", &name]).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        assert!(stage.says(&["ps", "-q", "--filter", &format!("name={name}")]).len() >= 12);
    }
    let grown = stage.broker.resident_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB for 8 readers that stopped");
    for reader in &mut readers {
        reader.kill().unwrap();
        reader.wait().unwrap();
    }
    stage.says(&["rm", "-f", &name]);
}

/// A count that has stopped changing: what ended before takes a moment to be let go.
fn settled(count: &impl Fn() -> usize) -> usize {
    let mut last = count();
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = count();
        if now == last {
            return now;
        }
        last = now;
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
