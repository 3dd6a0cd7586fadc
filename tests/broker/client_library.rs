//! `longshore::client` against the real broker: what a front end offers pages on top of it.

use std::time::Duration;

use longshore::{
    client::{Code, Event, ExecOptions, MAX_OUTPUT_BYTES, Process, Programs, SpawnOptions, Target},
    pb,
};
use tonic::transport::Endpoint;

use crate::{
    programs::{count_marked, tools, wait_until_none},
    support::{BrokerOptions, Stage, as_both, docker, unique},
};

/// How long anything here may take.
const SOON: Duration = Duration::from_secs(30);
const NO_ARGUMENTS: &[&str] = &[];

as_both!(
    blocking_calls_give_results,
    streaming_calls_give_lines_and_an_end,
    the_docker_cli_reads_templates_quoted_or_not,
    a_view_takes_its_programs_along,
);

/// Connected as a front end is, with the library's default settings.
async fn programs(stage: &Stage, extension: &str) -> Programs {
    let endpoint = Endpoint::try_from(format!("unix://{}", stage.broker.socket().display())).unwrap();
    Programs::new(endpoint.connect().await.unwrap(), extension)
}

async fn next(process: &mut Process) -> Option<Event> {
    tokio::time::timeout(SOON, process.next()).await.expect("it goes on")
}

async fn rest(process: &mut Process) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = next(process).await {
        events.push(event);
    }
    events
}

async fn blocking_calls_give_results(options: BrokerOptions) {
    let stage = Stage::without_wait(tools(), options).await;
    let programs = programs(&stage, &stage.id()).await;
    for target in [Target::Host, Target::Backend] {
        let exec = async |args: &[&str]| programs.exec(target, "/bin/sh -c", args, ExecOptions::default()).await;
        let result = exec(&[r#""printf '{\"a\":\"%s\"}' ✅ ; echo careful >&2""#, ""]).await.unwrap();
        assert_eq!(result.parse_json_object::<serde_json::Value>().unwrap()["a"], "✅");
        assert_eq!((result.stderr.as_str(), result.code, result.killed), ("careful\n", None, false));
        let rejection = exec(&["'echo out; echo no >&2; exit 3'"]).await.unwrap_err();
        assert_eq!((rejection.result.code, rejection.result.stderr.as_str()), (Some(Code::Number(3)), "no\n"));
        let rejection = exec(&["'kill -9 $$'"]).await.unwrap_err();
        assert_eq!(rejection.result.signal.as_deref(), Some("SIGKILL"));
        let rejection = programs.exec(target, "/no/such", NO_ARGUMENTS, ExecOptions::default()).await.unwrap_err();
        assert!(rejection.result.stderr.contains("ENOENT"), "{rejection:?}");
        let brief = ExecOptions { timeout: Some(Duration::from_millis(300)), ..Default::default() };
        let rejection = programs.exec(target, "sleep", &["1000"], brief).await.unwrap_err();
        assert!(rejection.result.killed && rejection.result.signal.as_deref() == Some("SIGTERM"), "{rejection:?}");
        let rejection = programs.exec(target, "/bin/sh -c", &["yes"], ExecOptions::default()).await.unwrap_err();
        assert_eq!(rejection.result.code, Some(Code::Name("ERR_CHILD_PROCESS_STDIO_MAXBUFFER")));
        assert_eq!(rejection.result.stdout.len(), usize::try_from(MAX_OUTPUT_BYTES).unwrap());
    }
    let rejection = programs.exec(Target::Host, "kubectl-not-granted", NO_ARGUMENTS, ExecOptions::default()).await;
    assert!(!rejection.unwrap_err().result.stderr.is_empty());
}

async fn streaming_calls_give_lines_and_an_end(options: BrokerOptions) {
    let stage = Stage::without_wait(tools(), options).await;
    let programs = programs(&stage, &stage.id()).await;
    let lines = || SpawnOptions { split_output_lines: true, ..Default::default() };
    for target in [Target::Host, Target::Backend] {
        let mut process = programs.spawn(target, "/bin/sh", &["-c", "printf 'one\\r\\ntwo'; exit 4"], lines());
        let [one, two] = ["one", "two"].map(|line| Event::Stdout(line.into()));
        assert_eq!(rest(&mut process).await, [one, two, Event::Close(4)]);

        let marker = unique("mark");
        let env = [("MARK".to_owned(), marker.clone())].into();
        let script = "trap '' TERM; sleep 1000 & echo up; while :; do sleep 1; done";
        let mut process = programs.spawn(target, "/bin/sh", &["-c", script], SpawnOptions { env, ..lines() });
        assert_eq!(next(&mut process).await, Some(Event::Stdout("up".into())));
        assert!(count_marked(&marker) >= 2);
        process.closer().close();
        process.closer().close();
        assert_eq!(rest(&mut process).await, [Event::Close(-1)]);
        wait_until_none(&marker).await;

        let mut process = programs.spawn(target, "no such program", NO_ARGUMENTS, lines());
        let events = rest(&mut process).await;
        assert!(matches!(events[..], [Event::Error(_), Event::Close(-1)]), "{events:?}");
    }
}

async fn the_docker_cli_reads_templates_quoted_or_not(options: BrokerOptions) {
    let stage = Stage::without_wait(tools(), options).await;
    let programs = programs(&stage, &stage.id()).await;
    let label = format!("label=dev.longshore.extension={}", stage.id());
    let (own, id) = (format!("--filter {label}"), docker(&["ps", "-q", "--no-trunc", "--filter", &label]));
    for template in [r#""{{json .}}""#, "'{{ json . }}'", "{{ json . }}", "{{json .}}"] {
        let args = ["--no-trunc", &own, "--format", template];
        let result = programs.exec(Target::Docker, "ps", &args, ExecOptions::default()).await.unwrap();
        let containers: Vec<serde_json::Value> = result.parse_json_lines().unwrap();
        assert_eq!(containers.len(), 1, "{template}: {result:?}");
        assert_eq!(containers[0]["ID"], id.trim(), "{template}");
    }
    let rejection = programs.exec(Target::Docker, "inspect", &["no-such-object"], ExecOptions::default()).await;
    let rejection = rejection.unwrap_err();
    assert_eq!((rejection.result.code, rejection.result.stdout.trim()), (Some(Code::Number(1)), "[]"));
    assert!(
        rejection.result.stderr.contains("no-such-object") && rejection.result.cmd == "docker inspect no-such-object"
    );
    let output = stage.broker.cli(&["exec", &stage.id(), "--docker", "--", "info", "--format", "{{.ID}}"]).output();
    let (output, engine) = (output.unwrap(), docker(&["info", "--format", "{{.ID}}"]));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), engine.trim(), "{output:?}");
}

async fn a_view_takes_its_programs_along(options: BrokerOptions) {
    let stage = Stage::without_wait(tools(), options).await;
    let request = pb::OpenRequest { extension: stage.id() };
    let mut session = stage.broker.sessions().await.open(request).await.unwrap().into_inner();
    let opened = session.message().await.unwrap().unwrap();
    // Whose view it is, the token says.
    let programs = programs(&stage, "").await.in_session(&opened.token).unwrap();
    let marker = unique("mark");
    let options = SpawnOptions { env: [("MARK".to_owned(), marker.clone())].into(), ..Default::default() };
    let mut process = programs.spawn(Target::Backend, "/bin/sh", &["-c", "echo up; sleep 1000"], options);
    assert_eq!(next(&mut process).await, Some(Event::Stdout("up\n".into())));
    drop(session);
    let events = rest(&mut process).await;
    assert!(matches!(events[..], [Event::Error(_), Event::Close(-1)]), "{events:?}");
    wait_until_none(&marker).await;
    let rejection = programs.exec(Target::Backend, "true", NO_ARGUMENTS, ExecOptions::default()).await.unwrap_err();
    assert_eq!(rejection.reason, "SESSION_UNKNOWN");
}
