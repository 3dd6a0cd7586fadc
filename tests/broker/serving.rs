//! How the broker takes its socket, says how it is, and stops.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant, SystemTime},
};

use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use longshore::pb::{self, backend_service_client::BackendServiceClient, run_response::Event};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_reflection::pb::{v1, v1alpha};
use tonic_types::StatusExt;

use crate::support::{
    Broker, BrokerOptions, Image, eventually, health, local, program, reason, shell, stand_in, started, trusting,
    until, watch,
};

/// Longest time that a thing which comes to pass may take.
const SOON: Duration = Duration::from_secs(30);
/// A drain time that tests can wait out.
const DRAIN: &str = "2s";
/// What a stop may take: the drain, and the end of programs and threads.
const STOP: Duration = Duration::from_secs(12);

// === taking the socket ===

#[tokio::test]
async fn a_second_broker_is_refused_and_the_first_goes_on() {
    let first = Broker::start().await;
    let told = fails(&mut serve(&first, &first.socket(), &first.home().join("other")));
    assert!(told.contains(&format!("a broker is listening on {} already", first.socket().display())), "{told}");
    let told = fails(&mut serve(&first, &first.home().join("run/other.sock"), &first.data_dir()));
    assert!(told.contains("another broker uses the data directory"), "{told}");
    assert!(!first.home().join("run/other.sock").exists());
    let info = first.system().await.get_info(pb::GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.pid, i64::from(first.pid()));
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_only_the_user_may_connect() {
    let mut broker = Broker::start().await;
    broker.kill();
    assert!(broker.socket().exists(), "a killed broker leaves its socket");
    broker.restart().await;
    broker.system().await.get_info(pb::GetInfoRequest {}).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&broker.socket()), mode(&broker.runtime_dir())), (0o600, 0o700));
    assert!(broker.stop().await.success());
    assert!(!broker.socket().exists());
}

#[tokio::test]
async fn it_tells_since_when_it_serves_what_within_which_bounds() {
    let before = SystemTime::now();
    let env = vec![("LONGSHORE_IDLE_TIMEOUT".to_owned(), "90s".to_owned())];
    let broker = Broker::start_with(BrokerOptions { env, ..Default::default() }).await;
    let info = broker.system().await.get_info(pb::GetInfoRequest {}).await.unwrap().into_inner();
    let started = SystemTime::try_from(info.started_at.unwrap()).unwrap();
    assert!(before <= started && started <= SystemTime::now());
    assert_eq!((&*info.platform, &*info.api_versions), ("linux/amd64", &["longshore.v1".to_owned()][..]));
    let limits = info.limits.unwrap();
    let seconds = |limit: Option<prost_types::Duration>| limit.map(|limit| limit.seconds);
    let told = [limits.connect_timeout, limits.head_timeout, limits.idle_timeout, limits.total_timeout];
    assert_eq!(told.map(seconds), [Some(5), Some(3600), Some(90), None]);
    assert_eq!(seconds(limits.ready_timeout), Some(60));
}

#[tokio::test]
async fn what_is_known_of_compose_outlives_the_broker() {
    let mut broker = Broker::prepare(BrokerOptions::default());
    let (asked, plugins) = (broker.home().join("asked"), broker.home().join(".docker/cli-plugins"));
    let put = |version: &str| {
        let script = format!("#!/bin/sh\\necho x >> {}\\necho {version}\\n", asked.display());
        let path = plugins.join("docker-compose");
        let write =
            format!("mkdir -p {} && printf '{script}' > {1} && chmod 755 {1}", plugins.display(), path.display());
        // Written by another process: the file would be busy while a child of another test holds a descriptor of it.
        assert!(Command::new("/bin/sh").args(["-c", &write]).status().unwrap().success());
    };
    let version = async |broker: &Broker| {
        let info = broker.system().await.get_info(pb::GetInfoRequest {}).await.unwrap().into_inner();
        info.compose.unwrap().version
    };
    put("9.8.7");
    for _ in 0..2 {
        broker.restart().await;
        assert_eq!(version(&broker).await, "9.8.7");
        broker.stop().await;
    }
    assert_eq!(fs::read_to_string(&asked).unwrap(), "x\n", "it is asked once");
    put("10.0.0");
    broker.restart().await;
    assert_eq!(version(&broker).await, "10.0.0");
}

#[tokio::test]
async fn brokers_that_start_at_once_do_not_take_each_others_socket() {
    let place = Broker::prepare(BrokerOptions::default());
    fs::create_dir(place.runtime_dir()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(place.socket()).unwrap());
    let start = |number: usize| {
        let mut command = serve(&place, &place.socket(), &place.home().join(format!("data{number}")));
        command.spawn().unwrap()
    };
    let mut brokers: Vec<_> = (0..4).map(start).collect();
    let begun = Instant::now();
    let running = loop {
        let running: Vec<usize> = (0..4).filter(|n| brokers[*n].try_wait().unwrap().is_none()).collect();
        if running.len() <= 1 || begun.elapsed() > SOON {
            break running;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(running.len(), 1, "one has the socket, the others were told so");
    let info = place.system().await.get_info(pb::GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.pid, i64::from(brokers[running[0]].id()));
    for mut broker in brokers {
        let _ = broker.kill();
        broker.wait().unwrap();
    }
}

#[tokio::test]
async fn the_runtime_directory_is_made_wherever_the_socket_is() {
    let place = Broker::prepare(BrokerOptions::default());
    let socket = place.home().join("sockets/x.sock");
    let mut process = serve(&place, &socket, &place.data_dir()).spawn().unwrap();
    let mode = |path: &Path| fs::metadata(path).is_ok_and(|found| found.mode() & 0o777 == 0o700);
    eventually(async || {
        let answers = Command::new(place.binary()).arg("--socket").arg(&socket).arg("info").output().unwrap();
        answers.status.success().then_some(())
    })
    .await;
    assert!(mode(&place.runtime_dir()) && mode(socket.parent().unwrap()));
    terminate(process.id());
    assert!(process.wait().unwrap().success());
    fs::set_permissions(place.runtime_dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let told = fails(&mut serve(&place, &socket, &place.data_dir()));
    assert!(told.contains("can be changed by other users"), "{told}");
}

#[tokio::test]
async fn systemd_may_pass_the_socket() {
    let broker = Broker::prepare(BrokerOptions::default());
    fs::create_dir(broker.runtime_dir()).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(broker.socket()).unwrap();
    let elsewhere = broker.home().join("unused.sock");
    let mut process = activated(&broker, &elsewhere, listener.into()).spawn().unwrap();
    let mut system = broker.system().await;
    let info = timeout(SOON, system.get_info(pb::GetInfoRequest {})).await.unwrap().unwrap().into_inner();
    assert_eq!(info.pid, i64::from(process.id()));
    assert_eq!(info.socket, broker.socket().display().to_string());
    assert!(!elsewhere.exists());
    terminate(process.id());
    assert!(process.wait().unwrap().success());
    assert!(broker.socket().exists(), "systemd's socket is systemd's to remove");

    let file = fs::File::open("/dev/null").unwrap();
    let told = fails(&mut activated(&broker, &elsewhere, file.into()));
    assert!(told.contains("is no listening Unix stream socket"), "{told}");
}

#[tokio::test]
async fn the_broker_has_all_descriptors_and_its_programs_what_they_would_have_had() {
    let broker = Broker::prepare(BrokerOptions::default());
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"ulimit -Sn 512; ulimit -Hn 4096; exec "$0" "$@""#]);
    let direct = serve(&broker, &broker.socket(), &broker.data_dir());
    limited.arg(direct.get_program()).args(direct.get_args()).env_clear().env("PATH", "/usr/bin:/bin");
    let mut process = limited.env("HOME", broker.home()).stderr(Stdio::null()).spawn().unwrap();
    await_socket(&broker.socket()).await;
    let info = broker.system().await.get_info(pb::GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.limits.unwrap().max_descriptors, 4096);
    let id = local(&broker).await;
    let ran = broker.run(shell(&id, pb::ExecTarget::Host, "ulimit -Sn; ulimit -Hn")).await;
    assert_eq!(ran.text(), "512\n4096\n");
    terminate(process.id());
    assert!(process.wait().unwrap().success());
}

#[test]
fn every_mistake_of_the_configuration_is_told_at_once() {
    let broker = Broker::prepare(BrokerOptions::default());
    let file = broker.home().join("config.toml");
    fs::write(&file, "ready_timeout = 5\n\nsockt = \"/x\"\n[log]\nformat = \"xml\"\n").unwrap();
    let mut command = serve(&broker, &broker.socket(), &broker.data_dir());
    command.args(["--engine", "tcp://x:1", "--drain-timeout", "soon", "--config"]).arg(&file);
    command.env("LONGSHORE_BOGUS", "1").env("LONGSHORE_MAX_BODY_BYTES", "many");
    let told = fails(&mut command);
    let file = file.display();
    for wanted in [
        "longshore: the configuration is wrong:\n  ".to_owned(),
        "\n  --engine: ".into(),
        "\n  --drain-timeout: ".into(),
        "\n  LONGSHORE_BOGUS: unknown variable".into(),
        "\n  LONGSHORE_MAX_BODY_BYTES: ".into(),
        format!("\n  {file}:1: ready_timeout needs a unit"),
        format!("\n  {file}:3: unknown key sockt; did you mean socket?"),
        format!("\n  {file}:5: log.format: "),
    ] {
        assert!(told.contains(&wanted), "{wanted:?} is missing in\n{told}");
    }
    assert!(!broker.data_dir().exists(), "nothing was made");
}

// === saying how it is ===

#[tokio::test]
async fn reflection_of_both_versions_lists_all_services() {
    let broker = Broker::start().await;
    let request = tokio_stream::once(v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
    });
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(broker.channel().await);
    let answer = client.server_reflection_info(request).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) = answer.message_response
    else {
        panic!("{answer:?}")
    };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();

    let request = tokio_stream::once(v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new())),
    });
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(broker.channel().await);
    let answer = client.server_reflection_info(request).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer.message_response
    else {
        panic!("{answer:?}")
    };
    for names in [&mut names, &mut list.service.into_iter().map(|service| service.name).collect()] {
        names.retain(|name| name.starts_with("longshore.") || name.starts_with("grpc.health."));
        names.sort();
        assert_eq!(
            *names,
            [
                "grpc.health.v1.Health",
                "longshore.v1.BackendService",
                "longshore.v1.EventService",
                "longshore.v1.ExecService",
                "longshore.v1.ExtensionService",
                "longshore.v1.GrantService",
                "longshore.v1.OwnershipService",
                "longshore.v1.SessionService",
                "longshore.v1.SystemService",
            ]
        );
    }
}

#[tokio::test]
async fn health_tells_of_the_broker_and_of_its_engine() {
    let broker = Broker::start().await;
    assert_eq!(health(&broker, "").await, ServingStatus::Serving);
    let mut engine = watch(&broker, "longshore.engine").await;
    until(&mut engine, ServingStatus::Serving).await;
}

#[tokio::test]
async fn an_engine_may_come_and_go() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("engine.sock");
    let broker = on_engine(&socket).await;
    let mut engine = watch(&broker, "longshore.engine").await;
    until(&mut engine, ServingStatus::NotServing).await;
    for _ in 0..2 {
        let fake = FakeEngine::start(&socket);
        until(&mut engine, ServingStatus::Serving).await;
        let info = broker.system().await.get_info(pb::GetInfoRequest {}).await.unwrap().into_inner();
        assert_eq!(info.engine.unwrap().version, "1.2.3");
        drop(fake);
        until(&mut engine, ServingStatus::NotServing).await;
    }
    assert_eq!(health(&broker, "").await, ServingStatus::Serving);
}

#[tokio::test]
async fn a_broker_that_waits_for_its_engine_sleeps_and_sees_it_at_once() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("run/engine.sock");
    let broker = on_engine(&socket).await;
    let mut engine = watch(&broker, "longshore.engine").await;
    until(&mut engine, ServingStatus::NotServing).await;
    // It looks ever more rarely.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let before = broker.wake_ups();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let woken = broker.wake_ups() - before;
    assert!(woken <= 12, "it woke up {woken} times in 7 s");
    fs::create_dir(place.path().join("run")).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let _fake = FakeEngine::start(&socket);
    timeout(Duration::from_secs(3), until(&mut engine, ServingStatus::Serving)).await.expect("it is seen at once");
}

#[tokio::test]
async fn without_an_engine_the_broker_serves_and_says_so() {
    let place = tempfile::tempdir().unwrap();
    let broker = on_engine(&place.path().join("none.sock")).await;
    assert_eq!(health(&broker, "").await, ServingStatus::Serving);
    assert_eq!(health(&broker, "longshore.engine").await, ServingStatus::NotServing);
    let info = broker.system().await.get_info(pb::GetInfoRequest {}).await.unwrap().into_inner();
    let engine = info.engine.unwrap();
    assert!(!engine.reachable && engine.error.contains("none.sock"), "{engine:?}");
    assert!(info.capabilities.iter().any(|capability| capability.name == "engine" && !capability.available));
    let id = local(&broker).await;
    let list = broker.extensions().await.list(pb::ExtensionServiceListRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.extensions.iter().map(|extension| extension.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    let refused = broker.install(trusting("longshore-test/none:1")).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "ENGINE_UNAVAILABLE".into()));
    broker.uninstall(&id, false).await.unwrap();
}

// === stopping ===

#[tokio::test]
async fn silent_clients_do_not_hold_a_stop() {
    let mut broker = draining("60s").await;
    let _silent = UnixStream::connect(broker.socket()).await.unwrap();
    let mut half = UnixStream::connect(broker.socket()).await.unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answer = [0; 9];
    half.read_exact(&mut answer).await.unwrap();
    // A connection that was used and is open still.
    let mut system = broker.system().await;
    system.get_info(pb::GetInfoRequest {}).await.unwrap();
    stops(&mut broker).await;
}

#[tokio::test]
async fn open_streams_end_saying_why_and_their_programs_with_them() {
    let image = Image::hello().busybox().build().await;
    let mut broker = draining("60s").await;
    broker.install(trusting(&image.reference)).await.unwrap();
    let mut host = broker.start_program(shell(&image.id, pb::ExecTarget::Host, ESCAPING)).await;
    let mut inside = broker.start_program(shell(&image.id, pb::ExecTarget::Backend, ESCAPING)).await;
    let programs = [started(&mut host).await.pid, line(&mut host).await, started(&mut inside).await.pid];
    line(&mut inside).await;
    let follow = pb::LogsRequest { extension: image.id.clone(), follow: true, ..Default::default() };
    let mut logs = broker.backends().await.logs(follow).await.unwrap().into_inner();
    let mut attached = stand_in(&broker, &image.id, Path::new("/nowhere.sock"), "").await.unwrap();
    let mut health = watch(&broker, "").await;
    until(&mut health, ServingStatus::Serving).await;

    stops(&mut broker).await;
    says_shutting_down(&ending(&mut host).await);
    says_shutting_down(&ending(&mut inside).await);
    says_shutting_down(&ending(&mut logs).await);
    says_shutting_down(&ending(&mut attached.answers).await);
    until(&mut health, ServingStatus::NotServing).await;
    says_shutting_down(&ending(&mut health).await);
    assert_gone(&programs).await;
    remove_all(&mut broker, &image.id).await;
}

#[tokio::test]
async fn a_killed_broker_takes_its_programs_along() {
    let image = Image::hello().busybox().build().await;
    let mut broker = Broker::start().await;
    broker.install(trusting(&image.reference)).await.unwrap();
    let mut host = broker.start_program(shell(&image.id, pb::ExecTarget::Host, ESCAPING)).await;
    let mut inside = broker.start_program(shell(&image.id, pb::ExecTarget::Backend, ESCAPING)).await;
    let programs = [started(&mut host).await.pid, line(&mut host).await, started(&mut inside).await.pid];
    line(&mut inside).await;
    broker.kill();
    assert_gone(&programs).await;
    remove_all(&mut broker, &image.id).await;
}

#[tokio::test]
async fn calls_may_finish_within_the_drain_and_are_cut_off_behind_it() {
    let mut broker = draining(DRAIN).await;
    let id = local(&broker).await;
    let socket = broker.scratch().join("backend.sock");
    let mut backend = SlowBackend::start(&socket);
    let _attached = stand_in(&broker, &id, &socket, "").await.unwrap();
    let quick = tokio::spawn(get(broker.backends().await, id.clone(), "/quick"));
    let endless = tokio::spawn(get(broker.backends().await, id.clone(), "/endless"));
    // Both are under way when the stop comes.
    backend.is_asked().await;
    backend.is_asked().await;
    let stopped = timeout(STOP, broker.stop()).await.expect("the deadline holds");
    assert!(stopped.success());
    let (quick, endless) = (quick.await.unwrap(), endless.await.unwrap());
    assert_eq!(quick.unwrap().status, 200);
    says_shutting_down(&endless.unwrap_err());
}

#[tokio::test]
async fn a_reader_that_stalls_does_not_hold_a_stop() {
    let mut broker = draining(DRAIN).await;
    let id = local(&broker).await;
    let mut yes = broker.start_program(shell(&id, pb::ExecTarget::Host, "while :; do echo y; done")).await;
    let programs = [started(&mut yes).await.pid];
    stops(&mut broker).await;
    assert_gone(&programs).await;
}

// === deadlines and errors ===

#[tokio::test]
async fn a_calls_deadline_ends_it_with_its_program() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let mut request = tonic::Request::new(program(&id, pb::ExecTarget::Host, &["sleep", "600"]));
    // Not by `set_timeout`, with which this side would end the call first.
    request.metadata_mut().insert("grpc-timeout", "700m".parse().unwrap());
    let mut run = broker.exec().await.run(request).await.unwrap().into_inner();
    let programs = [started(&mut run).await.pid];
    let ended = ending(&mut run).await;
    assert_eq!((ended.code(), reason(&ended)), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".into()));
    assert_gone(&programs).await;

    let socket = broker.scratch().join("backend.sock");
    let _backend = SlowBackend::start(&socket);
    let _attached = stand_in(&broker, &id, &socket, "").await.unwrap();
    let request = pb::FetchRequest { extension: id, path: "/endless".into(), ..Default::default() };
    let ended = fetch_within("300m", &broker, &request).await.unwrap();
    assert_eq!((ended.code(), reason(&ended)), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".into()));
}

#[tokio::test]
async fn every_failure_has_one_documented_reason() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let mut extensions = broker.extensions().await;
    let mut backends = broker.backends().await;
    let get = |extension: &str| pb::ExtensionServiceGetRequest { extension: extension.into() };
    let list = pb::ExtensionServiceListRequest { page_token: "no token".into(), ..Default::default() };
    let fetch = |path: &str| pb::FetchRequest { extension: id.clone(), path: path.into(), ..Default::default() };
    let too_large = pb::ExtensionServiceGetRequest { extension: "x".repeat(5 << 20) };
    let grant =
        pb::GrantServiceSetRequest { extension: id.clone(), allow: vec!["nonsense".into()], ..Default::default() };
    let exec = |target: pb::ExecTarget, argv: &[&str]| program(&id, target, argv);
    let mut failures = vec![
        (extensions.get(get("no/such")).await.err(), "EXTENSION_NOT_FOUND"),
        (extensions.get(get("")).await.err(), "REQUEST_INVALID"),
        (extensions.get(get("NO SUCH")).await.err(), "REFERENCE_INVALID"),
        (extensions.get(too_large).await.err(), "REQUEST_INVALID"),
        (extensions.list(list).await.err(), "PAGE_TOKEN_INVALID"),
        (extensions.inspect(pb::InspectRequest { source: None }).await.err(), "REQUEST_INVALID"),
        (backends.fetch(fetch("/")).await.err(), "NO_BACKEND"),
        (backends.fetch(fetch("http://x/")).await.err(), "PATH_INVALID"),
        (backends.logs(pb::LogsRequest { extension: id.clone(), ..Default::default() }).await.err(), "NO_BACKEND"),
        (broker.grants().await.set(grant).await.err(), "GRANT_INVALID"),
        (broker.exec().await.run(exec(pb::ExecTarget::Unspecified, &["ls"])).await.err(), "REQUEST_INVALID"),
        (broker.exec().await.run(exec(pb::ExecTarget::Host, &[])).await.err(), "ARGV_INVALID"),
        (broker.exec().await.run(exec(pb::ExecTarget::Backend, &["ls"])).await.err(), "NO_BACKEND"),
    ];
    failures
        .push((call(&broker, "/longshore.v1.SystemService/Nope", pb::GetInfoRequest {}).await.err(), "METHOD_UNKNOWN"));
    failures.push((call(&broker, "/who.Knows/Nope", pb::GetInfoRequest {}).await.err(), "METHOD_UNKNOWN"));
    let mistyped = pb::Limits { max_body_bytes: 1, ..Default::default() };
    failures.push((call(&broker, "/longshore.v1.ExtensionService/Get", mistyped).await.err(), "REQUEST_INVALID"));
    for (number, (failure, wanted)) in failures.into_iter().enumerate() {
        let failure = failure.unwrap_or_else(|| panic!("number {number} succeeded instead of {wanted}"));
        assert_eq!(reason(&failure), wanted, "number {number}: {failure:?}");
        let details = failure.get_error_details_vec();
        let infos = details.iter().filter(|detail| matches!(detail, tonic_types::ErrorDetail::ErrorInfo(_))).count();
        assert_eq!(infos, 1, "{failure:?}");
        assert_eq!(failure.get_error_details().error_info().unwrap().domain, "longshore.dev");
        assert!(!failure.message().is_empty());
    }
}

// === helpers ===

/// Writes the id of a child that has left the session, and runs on.
const ESCAPING: &str = "setsid sleep 1000 & echo $!; sleep 1000";

/// A broker on the directories of another that is not started.
fn serve(place: &Broker, socket: &Path, data_dir: &Path) -> Command {
    let mut command = Command::new(place.binary());
    command.arg("serve").arg("--socket").arg(socket).arg("--data-dir").arg(data_dir);
    command.arg("--runtime-dir").arg(place.runtime_dir());
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", place.home());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The same as systemd would start it with `passed` as its socket.
fn activated(place: &Broker, socket: &Path, passed: OwnedFd) -> Command {
    let direct = serve(place, socket, &place.data_dir());
    let mut command = Command::new("sh");
    command.args(["-c", r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&0 0</dev/null"#]);
    command.arg(direct.get_program()).args(direct.get_args());
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", place.home());
    command.stdin(passed).stderr(Stdio::null());
    command
}

/// Runs it to its failure and returns what it says.
fn fails(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.stderr(Stdio::piped()).output().unwrap();
    let told = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{told}");
    told
}

fn terminate(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

async fn await_socket(socket: &Path) {
    let connects = async {
        while UnixStream::connect(socket).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, connects).await.expect("the broker starts");
}

async fn draining(drain: &str) -> Broker {
    Broker::start_with(BrokerOptions { args: vec!["--drain-timeout".into(), drain.into()], ..Default::default() }).await
}

async fn on_engine(socket: &Path) -> Broker {
    let url = format!("unix://{}", socket.display());
    Broker::start_with(BrokerOptions { args: vec!["--engine".into(), url.into()], ..Default::default() }).await
}

/// Stops it in order: soon, successfully and without leaving its socket.
async fn stops(broker: &mut Broker) {
    let status = timeout(STOP, broker.stop()).await.expect("nothing holds the stop");
    assert!(status.success(), "{status}");
    assert!(!broker.socket().exists());
}

/// Starts it again, so that what was installed can be removed.
async fn remove_all(broker: &mut Broker, id: &str) {
    broker.restart().await;
    broker.uninstall(id, true).await.unwrap();
}

/// The number that a program writes first.
async fn line(run: &mut Streaming<pb::RunResponse>) -> i64 {
    match timeout(SOON, run.message()).await.unwrap().unwrap().unwrap().event.unwrap() {
        Event::Output(output) => String::from_utf8_lossy(&output.data).trim().parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The error that a stream ends with.
async fn ending<T>(stream: &mut Streaming<T>) -> Status {
    let end = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without an error"),
                Err(status) => return status,
            }
        }
    };
    timeout(SOON, end).await.expect("it ends")
}

fn says_shutting_down(status: &Status) {
    assert_eq!((status.code(), reason(status)), (Code::Unavailable, "SHUTTING_DOWN".into()), "{status:?}");
    assert!(status.get_error_details().retry_info().is_some());
}

async fn assert_gone(pids: &[i64]) {
    let is_alive = |pid: &i64| {
        assert!(*pid > 1);
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    };
    let gone = async {
        while pids.iter().any(is_alive) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, gone).await.unwrap_or_else(|_| panic!("of {pids:?} some live"));
}

async fn get(
    mut backends: BackendServiceClient<Channel>,
    extension: String,
    path: &str,
) -> Result<pb::FetchResponse, Status> {
    let request = pb::FetchRequest { extension, path: path.into(), ..Default::default() };
    Ok(backends.fetch(request).await?.into_inner())
}

/// A call of Fetch with a deadline that only the broker knows of: tonic's client would end it first. Returns the failure.
async fn fetch_within(deadline: &str, broker: &Broker, request: &pb::FetchRequest) -> Option<Status> {
    let stream = TokioIo::new(UnixStream::connect(broker.socket()).await.unwrap());
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let message = prost::Message::encode_to_vec(request);
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&message);
    let request = http::Request::post("http://localhost/longshore.v1.BackendService/Fetch")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", deadline)
        .body(Full::new(bytes::Bytes::from(body)))
        .unwrap();
    let answer = timeout(SOON, client.send_request(request)).await.expect("the broker keeps the deadline").unwrap();
    Status::from_header_map(answer.headers())
}

/// A unary call of any method with any message.
async fn call<M: prost::Message + 'static>(broker: &Broker, path: &'static str, message: M) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(broker.channel().await);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<M, pb::GetInfoResponse>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    client.unary(tonic::Request::new(message), path, codec).await.map(|_| ())
}

/// A backend that takes half a second to answer `/quick`, and for ever to answer anything else.
struct SlowBackend {
    serving: JoinHandle<()>,
    asked: mpsc::Receiver<()>,
}

impl SlowBackend {
    fn start(socket: &Path) -> SlowBackend {
        let listener = UnixListener::bind(socket).unwrap();
        let (ask, asked) = mpsc::channel(8);
        let serving = tokio::spawn(async move {
            let mut clients = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let ask = ask.clone();
                clients.spawn(async move {
                    let (mut client, path) = request(client).await?;
                    ask.send(()).await.ok()?;
                    if path != "/quick" {
                        return std::future::pending().await;
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.ok()
                });
            }
        });
        SlowBackend { serving, asked }
    }

    /// Waits for the next request.
    async fn is_asked(&mut self) {
        timeout(SOON, self.asked.recv()).await.expect("the calls get there").unwrap();
    }
}

impl Drop for SlowBackend {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Reads the head of a request and returns its path.
async fn request(mut client: UnixStream) -> Option<(UnixStream, String)> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if client.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let path = String::from_utf8_lossy(&head).split(' ').nth(1)?.to_owned();
    Some((client, path))
}

/// Something that answers as an engine does when it is asked for its version and its events, and nothing else.
struct FakeEngine {
    serving: JoinHandle<()>,
    socket: std::path::PathBuf,
}

impl FakeEngine {
    fn start(socket: &Path) -> FakeEngine {
        let listener = UnixListener::bind(socket).unwrap();
        let serving = tokio::spawn(async move {
            // They end with this task.
            let mut clients = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                clients.spawn(answer_as_engine(client));
            }
        });
        FakeEngine { serving, socket: socket.to_owned() }
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        self.serving.abort();
        fs::remove_file(&self.socket).unwrap();
    }
}

async fn answer_as_engine(client: UnixStream) {
    let Some((mut client, path)) = request(client).await else { return };
    if path.contains("/events") {
        let open = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = client.write_all(open.as_bytes()).await;
        return std::future::pending().await;
    }
    let (status, body) = match path.rsplit('/').next() {
        Some("_ping") => ("200 OK", "OK"),
        Some("version") => ("200 OK", r#"{"Version":"1.2.3","ApiVersion":"1.41","Os":"linux","Arch":"amd64"}"#),
        _ => ("404 Not Found", r#"{"message":"not here"}"#),
    };
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    let _ = client.write_all(answer.as_bytes()).await;
}
