//! Run and Logs through the whole stack, on the host and in containers.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use longshore::pb::{self, ExecTarget, RunRequest, exited::Outcome, run_response::Event};
use prost::Message;
use tonic::{Status, Streaming};

use crate::support::{
    Broker, BrokerOptions, Image, ImageBuilder, Stage, as_both, docker, fact, image_source, local, metadata, reason,
    unique,
};

const SOON: Duration = Duration::from_secs(20);
const BOTH: [ExecTarget; 2] = [ExecTarget::Host, ExecTarget::Backend];

as_both!(
    the_end_is_told_as_it_was,
    bytes_are_carried_exactly,
    children_that_live_on_are_waited_for_with_a_bound,
    directory_and_environment_are_as_documented,
    programs_of_the_extension_run_by_name,
    what_is_not_granted_does_not_run,
    what_no_program_can_be_given_is_refused,
    a_caller_that_goes_away_takes_the_tree_along,
    a_killed_broker_takes_all_trees_along,
    a_container_is_chosen_by_service_and_state,
    logs_are_told_as_they_were_written,
    a_slow_reader_gets_every_byte,
);

/// Scripts and links for the host, and a container that sleeps.
pub(crate) fn tools() -> ImageBuilder {
    let manifest = metadata().replacen(
        '{',
        r#"{"host": {"binaries": [{"linux": [
            {"path": "/host/tool.sh"}, {"path": "/host/helper"}, {"path": "/host/alias"}, {"path": "/host/data.json"}
        ]}]}, "#,
        1,
    );
    Image::with_manifest(&manifest)
        .busybox()
        .file("host/tool.sh", "#!/bin/sh\necho tool \"$@\"; helper from \"$(dirname \"$0\")\"", 0o755)
        .file("host/helper", "#!/bin/sh\necho helper \"$@\"; cat \"$(dirname \"$0\")/data.json\"", 0o755)
        .file("host/data.json", "{}", 0o644)
        .link("host/alias", "tool.sh")
        .change("ENV INSIDE=yes")
        .change("WORKDIR /ui")
        .change(r#"CMD ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 86400 & wait $!; done"]"#)
}

async fn stage(options: BrokerOptions) -> Stage {
    Stage::without_wait(tools(), options).await
}

fn program(target: ExecTarget, argv: &[&str]) -> RunRequest {
    let argv = argv.iter().map(ToString::to_string).collect();
    RunRequest { target: target.into(), argv, ..Default::default() }
}

fn shell(target: ExecTarget, script: &str) -> RunRequest {
    program(target, &["/bin/sh", "-c", script])
}

async fn start(stage: &Stage, request: RunRequest) -> Result<Streaming<pb::RunResponse>, Status> {
    let request = RunRequest { extension: stage.id(), ..request };
    Ok(stage.broker.exec().await.run(request).await?.into_inner())
}

/// All that a run told.
#[derive(Debug)]
struct Told {
    started: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    outcome: Outcome,
    drained: pb::Drained,
}

impl Told {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

/// Runs to the end, checking the order of events.
async fn run(stage: &Stage, request: RunRequest) -> Told {
    let mut stream = start(stage, request).await.unwrap();
    let (mut started, mut stdout, mut stderr, mut outcome) = (false, Vec::new(), Vec::new(), None);
    loop {
        let event = stream.message().await.unwrap().expect("drained is last");
        match event.event.unwrap() {
            Event::Started(begun) => {
                assert!(!started && outcome.is_none() && stdout.is_empty() && stderr.is_empty(), "once, and first");
                // 0 for one in a container that had ended before anybody could look.
                assert!(begun.pid >= 0 && !begun.exec_id.is_empty(), "{begun:?}");
                started = true;
            }
            Event::Output(piece) => {
                assert!(started && !piece.data.is_empty() && piece.data.len() <= 256 << 10);
                match piece.stream() {
                    pb::OutputStream::Stdout => stdout.extend(piece.data),
                    pb::OutputStream::Stderr => stderr.extend(piece.data),
                    pb::OutputStream::Unspecified => panic!("no stream"),
                }
            }
            Event::Exited(exited) => assert!(outcome.replace(exited.outcome.unwrap()).is_none(), "exited once"),
            Event::Drained(drained) => {
                let bytes = (drained.stdout_bytes, drained.stderr_bytes);
                assert_eq!(bytes, (stdout.len() as i64, stderr.len() as i64));
                assert_eq!(stream.message().await.unwrap(), None, "nothing comes behind drained");
                let outcome = outcome.expect("exited before drained");
                return Told { started, stdout, stderr, outcome, drained };
            }
        }
    }
}

async fn failure(stage: &Stage, request: RunRequest) -> (String, Status) {
    let status = start(stage, request).await.expect_err("a failure");
    (reason(&status), status)
}

pub(crate) async fn the_end_is_told_as_it_was(options: BrokerOptions) {
    let stage = stage(options).await;
    for target in BOTH {
        for code in [0, 1, 7, 126, 137, 255] {
            let told = run(&stage, shell(target, &format!("exit {code}"))).await;
            assert_eq!(told.outcome, Outcome::Code(code), "{target:?}");
            assert!(told.started && !told.drained.cut && told.drained.reason.is_empty());
        }
        for (number, name) in [(9, "SIGKILL"), (15, "SIGTERM"), (6, "SIGABRT"), (1, "SIGHUP")] {
            let told = run(&stage, shell(target, &format!("ulimit -c 0; kill -{number} $$; sleep 5"))).await;
            let Outcome::Signal(signal) = told.outcome else { panic!("{target:?}: {:?}", told.outcome) };
            assert_eq!((signal.number, signal.name.as_str(), signal.core_dumped), (number, name, false));
        }
        let not_executable = if target == ExecTarget::Host { "/etc/passwd" } else { "/metadata.json" };
        let too_long = "x".repeat(200_000);
        for (request, wanted) in [
            (program(target, &["no-such-program"]), "PROGRAM_NOT_FOUND"),
            (program(target, &["/no/such/program"]), "PROGRAM_NOT_FOUND"),
            (program(target, &[not_executable]), "NOT_EXECUTABLE"),
            (program(target, &["/bin"]), "NOT_EXECUTABLE"),
            (RunRequest { cwd: "/no/such".into(), ..shell(target, "true") }, "DIRECTORY_NOT_FOUND"),
            (program(target, &["/bin/sh", "-c", "true", &too_long]), "ARGUMENTS_TOO_LONG"),
        ] {
            let told = run(&stage, request).await;
            let Outcome::StartFailure(failure) = &told.outcome else { panic!("{target:?} {wanted}: {told:?}") };
            assert_eq!(failure.reason, wanted, "{target:?}: {failure:?}");
            assert!(!told.started && !failure.message.is_empty());
        }
    }
}

pub(crate) async fn bytes_are_carried_exactly(options: BrokerOptions) {
    let stage = stage(options).await;
    let mut wanted = Vec::new();
    (1..=4_400_000).for_each(|n: u32| wanted.extend(format!("{n}\n").into_bytes()));
    assert!(wanted.len() > 32 << 20);
    for target in BOTH {
        let seq = if target == ExecTarget::Host { "seq" } else { "/bin/busybox seq" };
        let told = run(&stage, shell(target, &format!("{seq} 1 200000 >&2 & {seq} 1 4400000; wait"))).await;
        assert_eq!(told.outcome, Outcome::Code(0));
        assert!(told.stdout == wanted && told.stderr == wanted[..told.stderr.len()] && !told.drained.cut);
        assert!(told.stderr.ends_with(b"\n200000\n"));
        let told = run(&stage, shell(target, r"printf '\000\377\n\r\001'; printf '\376' >&2")).await;
        assert_eq!((&told.stdout[..], &told.stderr[..]), (&b"\0\xff\n\r\x01"[..], &b"\xfe"[..]));
    }
}

async fn children_that_live_on_are_waited_for_with_a_bound(options: BrokerOptions) {
    let stage = stage(options).await;
    for target in BOTH {
        // Long enough that what is said after the exit is said within it on a busy machine.
        let bound = Some(prost_types::Duration { seconds: 2, nanos: 0 });
        let request = shell(target, "(sleep 100 &); echo one; (sleep 0.1; echo two) & exit 3");
        let begun = Instant::now();
        let told = run(&stage, RunRequest { drain_timeout: bound, ..request }).await;
        assert_eq!((told.text(), told.outcome.clone()), ("one\ntwo\n", Outcome::Code(3)));
        assert_eq!((told.drained.cut, told.drained.reason.as_str()), (true, "DRAIN_TIMEOUT"));
        assert!(begun.elapsed() < SOON);
        // One that does not hold the output open is not waited for.
        let begun = Instant::now();
        let long = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
        let request = shell(target, "sleep 100 >/dev/null 2>&1 & echo one");
        let told = run(&stage, RunRequest { drain_timeout: long, ..request }).await;
        assert!(told.text() == "one\n" && !told.drained.cut && begun.elapsed() < SOON);
        for wrong in
            [prost_types::Duration { seconds: 3601, nanos: 0 }, prost_types::Duration { seconds: -1, nanos: 0 }]
        {
            let (reason, _) = failure(&stage, RunRequest { drain_timeout: Some(wrong), ..shell(target, "true") }).await;
            assert_eq!(reason, "REQUEST_INVALID");
        }
    }
}

fn variables(text: &str) -> HashMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

async fn directory_and_environment_are_as_documented(options: BrokerOptions) {
    let secrets = [("SECRET", "hunter2"), ("AWS_SECRET_ACCESS_KEY", "hunter2"), ("LANG", "de_DE.UTF-8")];
    let env = secrets.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let stage = stage(BrokerOptions { env, ..options }).await;
    let env = HashMap::from([("ADDED".to_owned(), "a b\n=ü".to_owned()), ("TZ".to_owned(), "Mars".to_owned())]);
    for target in BOTH {
        let told = run(&stage, RunRequest { env: env.clone(), ..shell(target, "env") }).await;
        let found = variables(told.text());
        assert!(!told.text().contains("hunter2") && !told.text().contains("LONGSHORE_LOG"), "{}", told.text());
        assert!(told.text().contains("ADDED=a b\n=ü\n"));
        assert_eq!(found["TZ"], "Mars");
        if target == ExecTarget::Host {
            assert_eq!((found["LANG"], found["LONGSHORE_EXTENSION"]), ("de_DE.UTF-8", stage.id().as_str()));
            assert_eq!(found["HOME"], stage.broker.home().to_str().unwrap());
            let own = stage.extension_dir().join("generations/1/host");
            assert!(found["PATH"].starts_with(&format!("{}:/usr", own.display())), "{}", found["PATH"]);
            assert_eq!(run(&stage, shell(target, "pwd")).await.text().trim(), own.to_str().unwrap());
            let known =
                ["PATH", "HOME", "LANG", "TZ", "ADDED", "LONGSHORE_EXTENSION", "PWD", "OLDPWD", "_", "SHLVL", ""];
            assert!(found.keys().all(|name| known.contains(name)), "{found:?}");
        } else {
            assert_eq!(found["INSIDE"], "yes");
            assert_eq!(run(&stage, shell(target, "pwd")).await.text(), "/ui\n");
        }
        let told = run(&stage, RunRequest { cwd: "/bin/..".into(), ..shell(target, "pwd -P") }).await;
        assert!(["/\n", "/usr\n"].contains(&told.text()), "{:?}", told.text());
    }
}

async fn programs_of_the_extension_run_by_name(options: BrokerOptions) {
    let image = tools().build().await;
    let stage = Stage { broker: Broker::start_with(options).await, image };
    let refused = stage.broker.install(install(&stage, &["host.exec:tool.sh"])).await.unwrap_err();
    assert_eq!(reason(&refused), "GRANTS_REQUIRED");
    let accepted = ["host.exec:tool.sh", "host.exec:helper", "host.exec:alias", "host.exec:data.json"];
    stage.broker.install(install(&stage, &accepted)).await.unwrap();
    let own = stage.extension_dir().join("generations/1/host");
    let helped = format!("helper from {}\n{{}}", own.display());
    for name in ["tool.sh", "tool", "alias"] {
        let told = run(&stage, program(ExecTarget::Host, &[name, "a b", "$(id)", ""])).await;
        assert_eq!(
            (told.text(), told.outcome.clone()),
            (format!("tool a b $(id) \n{helped}").as_str(), Outcome::Code(0)),
            "{name}"
        );
    }
    let told = run(&stage, program(ExecTarget::Host, &["helper"])).await;
    assert_eq!(told.text(), "helper\n{}");
    for name in ["./tool.sh", "../host/tool.sh", "TOOL.SH", "tool.sh.sh", "metadata.json"] {
        assert_eq!(failure(&stage, program(ExecTarget::Host, &[name])).await.0, "GRANTS_REQUIRED", "{name}");
    }
}

fn install(stage: &Stage, accepted: &[&str]) -> pb::InstallRequest {
    pb::InstallRequest {
        source: Some(image_source(&stage.image.reference)),
        accept_grants: accepted.iter().map(ToString::to_string).collect(),
        ready_timeout: Some(prost_types::Duration::default()),
        ..Default::default()
    }
}

async fn what_is_not_granted_does_not_run(options: BrokerOptions) {
    let image = Image::sleeping().build().await;
    let stage = Stage { broker: Broker::start_with(options).await, image };
    stage.broker.install(install(&stage, &[])).await.unwrap();
    let evil = stage.broker.scratch().join("evil");
    fs::create_dir(&evil).unwrap();
    fs::write(evil.join("uname"), "#!/bin/sh\necho evil").unwrap();
    fs::set_permissions(evil.join("uname"), fs::Permissions::from_mode(0o755)).unwrap();
    let evil = evil.display().to_string();
    for name in ["uname", "/bin/sh", "sh"] {
        let (reason, status) = failure(&stage, program(ExecTarget::Host, &[name])).await;
        assert_eq!(reason, "GRANTS_REQUIRED");
        let packed = tonic_types::Status::decode(status.details()).unwrap();
        let detail = packed.details.iter().find(|any| any.type_url.ends_with("/longshore.v1.GrantsRequired")).unwrap();
        let needed = pb::GrantsRequired::decode(&detail.value[..]).unwrap().grants;
        assert_eq!(needed.len(), 1);
        assert_eq!((needed[0].name.clone(), needed[0].held), (format!("host.exec:{name}"), false));
    }
    let set = |allow: &[&str], deny: &[&str]| {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        pb::GrantServiceSetRequest { extension: stage.id(), allow: list(allow), deny: list(deny) }
    };
    let mut grants = stage.broker.grants().await;
    grants.set(set(&["host.exec:uname", "host.exec:/bin/sh"], &[])).await.unwrap();
    assert_eq!(run(&stage, program(ExecTarget::Host, &["uname"])).await.text(), "Linux\n");
    assert_eq!(run(&stage, program(ExecTarget::Host, &["/bin/sh", "-c", "echo x"])).await.text(), "x\n");
    for (name, env) in [("uname", &evil), ("/bin/sh", &evil)] {
        let argv = [name, "-c", "uname"];
        let env = HashMap::from([("PATH".to_owned(), env.clone())]);
        let request = program(ExecTarget::Host, if name == "uname" { &argv[..1] } else { &argv });
        let told = run(&stage, RunRequest { env, ..request }).await;
        // The caller's PATH is for the program, not for finding it.
        assert_eq!(told.text(), if name == "uname" { "Linux\n" } else { "evil\n" });
    }
    for name in ["sh", "/bin/cat", "/bin/../bin/sh", "/bin//sh", "uname.sh"] {
        assert_eq!(failure(&stage, program(ExecTarget::Host, &[name])).await.0, "GRANTS_REQUIRED", "{name}");
    }
    grants.set(set(&["host.exec:any"], &["host.exec:uname"])).await.unwrap();
    assert_eq!(failure(&stage, program(ExecTarget::Host, &["uname"])).await.0, "GRANTS_REQUIRED");
    assert_eq!(run(&stage, program(ExecTarget::Host, &["/bin/echo", "y"])).await.text(), "y\n");
}

async fn what_no_program_can_be_given_is_refused(options: BrokerOptions) {
    let stage = stage(options).await;
    for target in BOTH {
        for argv in [&[][..], &[""], &["/bin/sh\0"], &["/bin/sh", "a\0b"]] {
            assert_eq!(failure(&stage, program(target, argv)).await.0, "ARGV_INVALID", "{argv:?}");
        }
        for cwd in ["relative", "./x", "/nul\0"] {
            let request = RunRequest { cwd: cwd.into(), ..shell(target, "true") };
            assert_eq!(failure(&stage, request).await.0, "REQUEST_INVALID", "{cwd:?}");
        }
        for name in ["", "A=B", "A\0"] {
            let env = HashMap::from([(name.to_owned(), String::new())]);
            let (reason, status) = failure(&stage, RunRequest { env, ..shell(target, "true") }).await;
            assert_eq!((reason.as_str(), fact(&status, "subject").as_deref()), ("REQUEST_INVALID", Some("env")));
        }
    }
    let request = program(ExecTarget::Unspecified, &["true"]);
    assert_eq!(failure(&stage, request).await.0, "REQUEST_INVALID");
    let request = RunRequest { extension: "nobody/here".into(), ..shell(ExecTarget::Host, "true") };
    let status = stage.broker.exec().await.run(request).await.unwrap_err();
    assert_eq!(reason(&status), "EXTENSION_NOT_FOUND");
}

/// A tree of daemons, sessions of their own and processes that ignore what asks them to end. Says `up` when it is.
const WILD: &str = "trap '' TERM HUP INT; B=; [ -x /bin/busybox ] && [ ! -e /usr/bin/env ] && B=/bin/busybox; \
    ($B setsid sleep 300 &); (sh -c 'trap \"\" TERM; (sleep 300 &) ; sleep 300' &) ; sleep 300 & sleep 0.2; echo up; wait";

/// How many processes on this machine have `marker` in their environment.
pub(crate) fn count_marked(marker: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let marked = |entry: &fs::DirEntry| {
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        environ.windows(marker.len()).any(|window| window == marker.as_bytes())
    };
    entries.filter(marked).count()
}

/// A process in the middle of an `exec` has no environment for a moment.
async fn wait_until_marked(marker: &str, least: usize) {
    let begun = Instant::now();
    while count_marked(marker) < least {
        assert!(begun.elapsed() < SOON, "only {} live", count_marked(marker));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn wait_until_none(marker: &str) {
    let begun = Instant::now();
    while count_marked(marker) > 0 {
        assert!(begun.elapsed() < SOON, "{} live on", count_marked(marker));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Starts the wild tree and waits until it is there.
async fn wild(stage: &Stage, target: ExecTarget) -> (Streaming<pb::RunResponse>, String) {
    let marker = unique("mark");
    let env = HashMap::from([("MARK".to_owned(), marker.clone())]);
    let mut stream = start(stage, RunRequest { env, ..shell(target, WILD) }).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"up\n") {
        match stream.message().await.unwrap().unwrap().event.unwrap() {
            Event::Output(piece) => said.extend(piece.data),
            // A process of another kernel has no number here.
            Event::Started(started) if stage.broker.is_apart() && target == ExecTarget::Backend => {
                assert_eq!(started.pid, 0);
            }
            Event::Started(started) => assert!(fs::exists(format!("/proc/{}/status", started.pid)).unwrap()),
            other => panic!("{other:?}: {}", String::from_utf8_lossy(&said)),
        }
    }
    wait_until_marked(&marker, 5).await;
    (stream, marker)
}

async fn a_caller_that_goes_away_takes_the_tree_along(options: BrokerOptions) {
    let stage = stage(options).await;
    for target in BOTH {
        let (stream, marker) = wild(&stage, target).await;
        let (other, others) = wild(&stage, target).await;
        drop(stream);
        wait_until_none(&marker).await;
        wait_until_marked(&others, 5).await;
        drop(other);
        wait_until_none(&others).await;
    }
    // What ended and left children behind ends with the extension.
    let marker = unique("mark");
    for target in BOTH {
        let env = HashMap::from([("MARK".to_owned(), marker.clone())]);
        run(&stage, RunRequest { env, ..shell(target, "sleep 300 >/dev/null 2>&1 & echo left") }).await;
    }
    assert_eq!(count_marked(&marker), 2);
    stage.broker.uninstall(&stage.id(), false).await.unwrap();
    assert_eq!(count_marked(&marker), 0);
}

pub(crate) async fn a_killed_broker_takes_all_trees_along(options: BrokerOptions) {
    let mut stage = stage(options).await;
    let (host, container) = (wild(&stage, ExecTarget::Host).await, wild(&stage, ExecTarget::Backend).await);
    stage.broker.kill();
    for (mut stream, marker) in [host, container] {
        wait_until_none(&marker).await;
        assert!(stream.message().await.is_err(), "the stream does not end as if all were well");
    }
    stage.broker.restart().await;
    for target in BOTH {
        assert_eq!(run(&stage, shell(target, "echo again")).await.text(), "again\n");
    }
}

fn composed(services: &str) -> ImageBuilder {
    let manifest = metadata().replace(
        r#""image": "${DESKTOP_PLUGIN_IMAGE}", "exposes": {"socket": "backend.sock"}"#,
        r#""composefile": "docker-compose.yaml""#,
    );
    Image::with_manifest(&manifest).busybox().file("docker-compose.yaml", format!("services:\n{services}"), 0o644)
}

fn service(name: &str, script: &str, more: &str) -> String {
    let script = script.replace('$', "$$");
    format!("  {name}:\n    image: ${{DESKTOP_PLUGIN_IMAGE}}\n    entrypoint: ['/bin/sh', '-c', {script:?}]\n{more}")
}

const SLEEPING: &str = "trap 'exit 0' TERM; while :; do sleep 600 & wait $!; done";

async fn a_container_is_chosen_by_service_and_state(options: BrokerOptions) {
    let services = [
        service("web", SLEEPING, "    environment: {NAME: web}\n"),
        service("db", SLEEPING, "    environment: {NAME: db}\n    user: '1000:1000'\n"),
    ];
    let stage = Stage::install(composed(&services.concat()), options).await;
    let named = |service: &str| {
        let request = shell(ExecTarget::Backend, "echo $NAME $(id -u)");
        RunRequest { service: service.into(), ..request }
    };
    for (service, wanted) in [("", "web 0\n"), ("web", "web 0\n"), ("db", "db 1000\n")] {
        assert_eq!(run(&stage, named(service)).await.text(), wanted);
    }
    assert_eq!(failure(&stage, named("cache")).await.0, "SERVICE_NOT_FOUND");
    let db = stage.container("db");
    docker(&["pause", &db]);
    let told = start(&stage, named("db")).await.map(|_| ()).map_err(|status| reason(&status));
    docker(&["unpause", &db]);
    assert_eq!(told, Err("CONTAINER_PAUSED".into()));
    assert_eq!(run(&stage, named("db")).await.text(), "db 1000\n");
    docker(&["stop", "-t", "1", &db]);
    assert_eq!(failure(&stage, named("db")).await.0, "BACKEND_STOPPED");
    docker(&["start", &db]);
    for _ in 0..3 {
        docker(&["restart", "-t", "1", &db]);
        assert_eq!(run(&stage, named("db")).await.text(), "db 1000\n");
    }
    // A program ends with its container, and how is not known.
    let mut stream =
        start(&stage, RunRequest { service: "db".into(), ..shell(ExecTarget::Backend, "echo up; sleep 300") })
            .await
            .unwrap();
    let mut ends = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        match event.event.unwrap() {
            Event::Output(_) => drop(docker(&["kill", &db])),
            Event::Exited(exited) => ends.push(format!("{:?}", exited.outcome.unwrap())),
            Event::Drained(drained) => ends.push(drained.reason),
            Event::Started(_) => {}
        }
    }
    assert!(ends.len() == 2 && (ends[0].contains("Unknown") || ends[0].contains("SIGKILL")), "{ends:?}");
    docker(&["rm", "-f", &db]);
    assert_eq!(failure(&stage, named("db")).await.0, "BACKEND_STOPPED");
    assert_eq!(run(&stage, named("web")).await.text(), "web 0\n");
}

/// Reads logs to their end, or until `enough`: by service, what went where.
async fn logs(
    stage: &Stage,
    query: pb::LogsRequest,
    enough: impl Fn(&HashMap<(String, i32), String>) -> bool,
) -> HashMap<(String, i32), String> {
    let query = pb::LogsRequest { extension: stage.id(), ..query };
    let mut stream = stage.broker.backends().await.logs(query).await.unwrap().into_inner();
    let mut all: HashMap<(String, i32), String> = HashMap::new();
    while !enough(&all) {
        let Some(piece) = tokio::time::timeout(SOON, stream.message()).await.expect("in time").unwrap() else { break };
        assert!(!piece.container_id.is_empty() && piece.data.len() <= 64 << 10);
        all.entry((piece.service, piece.stream)).or_default().push_str(&String::from_utf8_lossy(&piece.data));
    }
    all
}

async fn logs_are_told_as_they_were_written(options: BrokerOptions) {
    // The engine reads the two streams side by side: between them there is no order.
    let lines = "for i in 1 2 3; do echo out-$i; echo err-$i >&2; done; ";
    let services = [
        service("web", &format!("{lines}{SLEEPING}"), ""),
        service("term", &format!("{lines}{SLEEPING}"), "    tty: true\n"),
        service("job", "echo done", "    restart: 'no'\n"),
        service(
            "late",
            "sleep 2; i=0; while :; do i=$((i+1)); echo late-$i; sleep 0.2; done",
            "    stop_signal: SIGKILL\n",
        ),
    ];
    let stage = Stage::install(composed(&services.concat()), options).await;
    let (out, err) = (1, 2);
    let key = |service: &str, stream: i32| (service.to_owned(), stream);
    let of = |services: &[&str]| pb::LogsRequest {
        services: services.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    let forever = |_: &HashMap<_, _>| false;
    let all = logs(&stage, of(&["web", "job", "term"]), forever).await;
    assert_eq!(all[&key("web", out)], "out-1\nout-2\nout-3\n");
    assert_eq!(all[&key("web", err)], "err-1\nerr-2\nerr-3\n");
    assert_eq!(all[&key("job", out)], "done\n");
    assert_eq!(all[&key("term", out)], "out-1\r\nerr-1\r\nout-2\r\nerr-2\r\nout-3\r\nerr-3\r\n");
    assert_eq!(all.len(), 4);

    let all = logs(&stage, pb::LogsRequest { tail: Some(1), ..of(&["web"]) }, forever).await;
    let last: Vec<_> = all.into_values().collect();
    assert!(last == ["err-3\n"] || last == ["out-3\n"], "{last:?}");
    assert!(logs(&stage, pb::LogsRequest { tail: Some(0), ..of(&["web"]) }, forever).await.is_empty());
    let all = logs(&stage, pb::LogsRequest { timestamps: true, ..of(&["job"]) }, forever).await;
    let (stamp, rest) = all[&key("job", out)].split_once(' ').unwrap();
    assert_eq!(rest, "done\n");
    let written = humantime::parse_rfc3339(stamp).unwrap();
    assert!(written.elapsed().unwrap() < Duration::from_secs(600));
    let since = |time: std::time::SystemTime| pb::LogsRequest { since: Some(time.into()), ..of(&["job"]) };
    // Podman's stamps are whole seconds.
    assert!(logs(&stage, since(written + Duration::from_millis(1002)), forever).await.is_empty());
    assert_eq!(logs(&stage, since(written - Duration::from_millis(2)), forever).await.len(), 1);

    let late = |text: &HashMap<(String, i32), String>| text.get(&key("late", out)).cloned().unwrap_or_default();
    let follow = pb::LogsRequest { follow: true, ..of(&[]) };
    let all = logs(&stage, follow, |all| late(all).lines().count() >= 5 && all.len() >= 5).await;
    assert!(late(&all).starts_with("late-1\nlate-2\n") && all[&key("job", out)] == "done\n", "{all:?}");
    // Followed to the end of the only container that runs.
    let stopping = std::thread::spawn({
        let container = stage.container("late");
        move || {
            std::thread::sleep(Duration::from_millis(500));
            docker(&["stop", "-t", "1", &container])
        }
    });
    logs(&stage, pb::LogsRequest { follow: true, ..of(&["late", "job"]) }, forever).await;
    stopping.join().unwrap();

    let query = pb::LogsRequest { extension: stage.id(), tail: Some(-1), ..Default::default() };
    assert_eq!(reason(&stage.broker.backends().await.logs(query).await.unwrap_err()), "REQUEST_INVALID");
    let query = pb::LogsRequest { extension: stage.id(), ..of(&["cache"]) };
    assert_eq!(reason(&stage.broker.backends().await.logs(query).await.unwrap_err()), "SERVICE_NOT_FOUND");
    docker(&["rm", "-f", &stage.container("web")]);
    let all = logs(&stage, of(&["web", "job"]), forever).await;
    assert_eq!(all.into_keys().collect::<Vec<_>>(), [key("job", out)]);
}

async fn a_slow_reader_gets_every_byte(options: BrokerOptions) {
    const ALL: i64 = 200 << 20;
    let stage = stage(options).await;
    run(&stage, shell(ExecTarget::Host, "true")).await;
    for target in BOTH {
        run(&stage, shell(target, "true")).await;
        let before = stage.broker.resident_kib();
        let busybox = if target == ExecTarget::Host { "" } else { "/bin/busybox" };
        let script = format!("{busybox} yes 0123456789abcde | {busybox} head -c {ALL}");
        let mut stream = start(&stage, shell(target, &script)).await.unwrap();
        let (mut read, mut most, mut pauses) = (0, 0, 0);
        let drained = loop {
            let event = stream.message().await.unwrap().unwrap().event.unwrap();
            match event {
                Event::Output(piece) => {
                    let line = b"0123456789abcde\n";
                    let first = line.iter().cycle().skip(usize::try_from(read % 16).unwrap());
                    assert!(piece.data.iter().zip(first).all(|(got, wanted)| got == wanted), "at {read}");
                    read += piece.data.len() as i64;
                    // Ten stops, in which the program would fill whatever took what it writes.
                    if read > (ALL / 11) * (pauses + 1) {
                        pauses += 1;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        most = most.max(stage.broker.resident_kib());
                    }
                }
                Event::Drained(drained) => break drained,
                Event::Started(_) => {}
                Event::Exited(exited) => assert_eq!(exited.outcome, Some(Outcome::Code(0))),
            }
        };
        assert_eq!((read, drained.stdout_bytes, drained.cut), (ALL, ALL, false));
        assert!(most < before + 48 * 1024, "{target:?}: {before} KiB before, {most} KiB while it was read");
    }
}

#[tokio::test]
async fn programs_on_the_host_are_switched_off_for_all_and_the_docker_command_line_is_not() {
    let args = vec!["--no-host-programs".into()];
    let broker = Broker::start_with(BrokerOptions { args, ..BrokerOptions::default() }).await;
    let id = local(&broker).await;
    let refused = broker.cli(&["exec", &id, "--host", "--json", "--", "true"]).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(125) && told.contains("HOST_PROGRAMS_OFF"), "{refused:?}");
    let audit = broker.cli(&["audit", &id]).output().unwrap();
    assert!(String::from_utf8_lossy(&audit.stdout).contains("HOST_PROGRAMS_OFF"), "{audit:?}");
    let docker = broker.cli(&["exec", &id, "--docker", "--", "version"]).output().unwrap();
    assert!(docker.status.success(), "{docker:?}");
}
