//! Backends that register: in containers, on the host, in Rust and in Python.

use std::{
    fs,
    io::BufRead,
    os::unix::net::UnixStream as StdUnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use longshore::pb::{
    self, EndpointProtocol, ExtensionState, FetchRequest, extension_service_client::ExtensionServiceClient,
    register_request::Part, registration_service_client::RegistrationServiceClient,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    clients::{client, own, succeeds},
    support::{
        Broker, BrokerOptions, Image, ImageBuilder, Lease, channel, docker, eventually, fact, hello, local, no_traces,
        program, project, reason, registration_socket, stand_in, trusting, trusting_update, unique,
    },
};

#[path = "../../examples/registering-backend.rs"]
mod registering_backend;

/// Longest that anything is waited for that should come at once.
const SOON: Duration = Duration::from_secs(20);

/// Not a test: the backend of the example, which runs in a container.
#[tokio::test]
#[ignore = "started in containers by the tests below"]
async fn backend_in_a_container() {
    if std::env::var_os("LONGSHORE_TEST_BACKEND").is_some() {
        registering_backend::serve(Path::new("/run/guest-services")).await.unwrap();
    }
}

/// This very program without what debuggers want of it: the example is in it.
pub(crate) fn backend_program() -> Vec<u8> {
    static STRIPPED: OnceLock<PathBuf> = OnceLock::new();
    let stripped = STRIPPED.get_or_init(|| {
        let this = std::env::current_exe().unwrap();
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("registering-backend");
        let modified = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
        if modified(&target) < modified(&this) {
            let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let partial = scratch.path().join("program");
            assert!(Command::new("strip").arg("-o").arg(&partial).arg(this).status().unwrap().success());
            fs::rename(partial, &target).unwrap();
        }
        target
    });
    fs::read(stripped).unwrap()
}

/// An extension that exposes no socket and whose backend registers.
fn registering() -> ImageBuilder {
    let manifest = r#"{"vm": {"image": "${DESKTOP_PLUGIN_IMAGE}"}}"#;
    Image::with_manifest(manifest)
        .file("backend", backend_program(), 0o755)
        .change("ENV LONGSHORE_TEST_BACKEND=1")
        .change(r#"CMD ["/backend", "--ignored", "--exact", "registration::backend_in_a_container", "--nocapture"]"#)
}

pub(crate) async fn call(
    broker: &Broker,
    id: &str,
    method: &str,
    path: &str,
    endpoint: &str,
) -> Result<String, Status> {
    let request = FetchRequest {
        extension: id.into(),
        method: method.into(),
        path: path.into(),
        endpoint: endpoint.into(),
        start_wait: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
        ..Default::default()
    };
    let answer = broker.backends().await.fetch(request).await?.into_inner();
    assert_eq!(answer.status, 200, "{method} {path}");
    Ok(String::from_utf8(answer.body.to_vec()).unwrap())
}

async fn registrations(broker: &Broker, id: &str) -> Vec<pb::Registration> {
    broker.extension(id).await.unwrap().registrations
}

/// The states that are told from a token on.
async fn states(broker: &Broker, token: String, id: &str, count: usize) -> Vec<(ExtensionState, String)> {
    let request = pb::EventServiceWatchRequest { resume_token: token, extension: id.to_owned(), ..Default::default() };
    let mut watched = broker.events().await.watch(request).await.unwrap().into_inner();
    let mut states = Vec::new();
    while states.len() < count {
        let message = tokio::time::timeout(SOON, watched.message()).await.expect("an event").unwrap().unwrap();
        if let Some(pb::event_service_watch_response::Event::Extension(event)) = message.event {
            states.push((event.state(), event.state_reason));
        }
    }
    states
}

pub(crate) async fn is_registered(broker: &Broker, id: &str) -> pb::Registration {
    eventually(|| async { registrations(broker, id).await.into_iter().next() }).await
}

fn logs(container: &str) -> String {
    let output = Command::new("docker").args(["logs", container]).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[tokio::test]
async fn a_backend_that_registers_is_called() {
    a_backend_registers_and_is_called(BrokerOptions::default()).await;
}

pub(crate) async fn a_backend_registers_and_is_called(options: BrokerOptions) {
    let image = registering().build().await;
    let id = image.id.clone();
    let mut broker = Broker::start_with(options).await;
    broker.install(trusting(&image.reference)).await.unwrap();
    let first = is_registered(&broker, &id).await;
    assert_eq!((&*first.service, &*first.endpoints, first.ready), ("service", &["api".to_owned()][..], true));
    assert_eq!(first.container_id, docker(&["inspect", "-f", "{{.Id}}", &format!("{}-service", project(&id))]));
    assert_eq!(call(&broker, &id, "GET", "/hello", "").await.unwrap(), "hello from a registered backend\n");
    assert_eq!(call(&broker, &id, "GET", "/hello", "api").await.unwrap(), "hello from a registered backend\n");

    // Endpoints come and go.
    let unknown = call(&broker, &id, "GET", "/hello", "second").await.unwrap_err();
    assert_eq!((reason(&unknown), unknown.code()), ("ENDPOINT_NOT_FOUND".into(), Code::NotFound));
    assert!(unknown.message().contains("there are api"), "{unknown:?}");
    call(&broker, &id, "POST", "/offer/second", "").await.unwrap();
    eventually(|| async { call(&broker, &id, "GET", "/hello", "second").await.ok() }).await;
    call(&broker, &id, "POST", "/withdraw/second", "").await.unwrap();
    eventually(|| async { call(&broker, &id, "GET", "/hello", "second").await.err() }).await;

    // While it takes no calls, they wait or fail, and whoever watches is told.
    let list = pb::ExtensionServiceListRequest::default();
    let token = broker.extensions().await.list(list).await.unwrap().into_inner().watch_token;
    call(&broker, &id, "POST", "/rest", "").await.unwrap();
    let at_once = || FetchRequest { extension: id.clone(), path: "/hello".into(), ..Default::default() };
    let failed = eventually(|| async { broker.backends().await.fetch(at_once()).await.err() }).await;
    assert_eq!((reason(&failed), fact(&failed, "sent")), ("BACKEND_STARTING".into(), Some("false".into())));
    assert!(failed.message().contains("it rests"), "{failed:?}");
    assert_eq!(call(&broker, &id, "GET", "/hello", "").await.unwrap(), "hello from a registered backend\n");
    let told = [(ExtensionState::Starting, "NOT_READY".to_owned()), (ExtensionState::Ready, String::new())];
    assert_eq!(states(&broker, token, &id, told.len()).await, told);

    // It is told what concerns it.
    assert!(call(&broker, &id, "GET", "/status", "").await.unwrap().contains("engine.full"));
    let set =
        pb::GrantServiceSetRequest { extension: id.clone(), allow: vec!["host.exec:x".into()], ..Default::default() };
    broker.grants().await.set(set).await.unwrap();
    let told = format!("{id} 1 host.exec:x\n");
    eventually(|| async { (call(&broker, &id, "GET", "/status", "").await.ok()? == told).then_some(()) }).await;

    // A broker that is killed finds it again, and so does a container that is started again.
    broker.kill();
    broker.restart().await;
    let again = is_registered(&broker, &id).await;
    assert_eq!(again.instance, first.instance);
    call(&broker, &id, "GET", "/hello", "").await.unwrap();
    let container = format!("{}-service", project(&id));
    docker(&["kill", &container]);
    docker(&["start", &container]);
    let other = eventually(|| async {
        registrations(&broker, &id).await.into_iter().find(|now| now.instance != first.instance)
    });
    assert!(other.await.epoch > again.epoch);
    call(&broker, &id, "GET", "/hello", "").await.unwrap();

    // It is told of its end before it comes.
    broker.extensions().await.disable(pb::DisableRequest { extension: id.clone() }).await.unwrap();
    assert!(logs(&container).contains("StopComing(Disabled)"), "{}", logs(&container));
    eventually(|| async { registrations(&broker, &id).await.is_empty().then_some(()) }).await;
    assert_eq!(reason(&broker.backends().await.fetch(at_once()).await.unwrap_err()), "BACKEND_STOPPED");
    broker.extensions().await.enable(pb::EnableRequest { extension: id.clone() }).await.unwrap();
    call(&broker, &id, "GET", "/hello", "").await.unwrap();
    broker.uninstall(&id, true).await.unwrap();
    no_traces(&broker, &id).await;
}

#[tokio::test]
async fn an_update_hands_over() {
    let id = format!("longshore-test/{}", unique("handing"));
    let old = registering().build_version(&id, "1").await;
    let new = registering().build_version(&id, "2").await;
    let broker = Broker::start().await;
    broker.install(trusting(&old.reference)).await.unwrap();
    let first = is_registered(&broker, &id).await;
    broker.update(trusting_update(&new.reference)).await.unwrap();
    let told = eventually(|| async {
        let told = call(&broker, &id, "GET", "/status", "").await.ok()?;
        told.starts_with(&format!("{id} 2 ")).then_some(told)
    });
    told.await;
    assert_ne!(is_registered(&broker, &id).await.instance, first.instance);
    broker.uninstall(&id, true).await.unwrap();
}

#[tokio::test]
async fn only_its_own_containers_and_its_user_come_to_an_extensions_socket() {
    let image = registering().build().await;
    let other = Image::hello().build().await;
    let broker = Broker::start().await;
    broker.install(trusting(&image.reference)).await.unwrap();
    broker.install(trusting(&other.reference)).await.unwrap();
    let first = is_registered(&broker, &image.id).await;
    let socket = registration_socket(&broker, &image.id).await;
    let mount = format!("{}:/run/longshore:ro", socket.parent().unwrap().display());
    let is_refused = |container: &str| {
        docker(&["wait", container]);
        let said = logs(container);
        assert!(said.contains("the caller is none of its containers"), "{said}");
    };
    // Nobody's, with labels as one of its own has them.
    let labels =
        ["--label", &format!("dev.longshore.extension={}", image.id), "--label", "dev.longshore.nonce=guessed"];
    let name = unique("stranger");
    docker(
        &[&["run", "-d", "--name", &name, "-v", &mount, "-v", "/run/guest-services"][..], &labels, &[&image.reference]]
            .concat(),
    );
    is_refused(&name);
    docker(&["rm", &name]);
    // One that another extension made through its own engine socket.
    let gateway = registration_socket(&broker, &other.id).await.with_file_name("docker.sock");
    let host = format!("unix://{}", gateway.display());
    docker(&["-H", &host, "run", "-d", "--name", &name, "-v", &mount, "-v", "/run/guest-services", &image.reference]);
    is_refused(&name);
    let log = broker.log();
    let named =
        log.lines().find(|line| line.contains("refused a caller at an extension's socket") && line.contains(&other.id));
    assert!(named.is_some_and(|line| line.contains(&image.id)), "both are named: {log}");
    docker(&["rm", &name]);
    // One that the extension made itself is its own, and has a lease of its own.
    let gateway = socket.with_file_name("docker.sock");
    let host = format!("unix://{}", gateway.display());
    docker(&["-H", &host, "run", "-d", "--name", &name, "-v", &mount, "-v", "/run/guest-services", &image.reference]);
    let is_told = || async { logs(&name).contains("offers an endpoint api already").then_some(()) };
    eventually(is_told).await;
    assert_eq!(registrations(&broker, &image.id).await[0].epoch, first.epoch);
    broker.uninstall(&image.id, true).await.unwrap();
    broker.uninstall(&other.id, true).await.unwrap();
}

/// The end of a lease that was lost.
async fn end(lease: &mut Lease) -> Status {
    loop {
        if let Err(status) = lease.next().await {
            return status;
        }
    }
}

#[tokio::test]
async fn the_newest_instance_on_the_host_stands_in() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let socket = registration_socket(&broker, &id).await;
    let dir = format!("{}/", broker.scratch().display());
    let both = [("api", EndpointProtocol::Http1), ("rpc", EndpointProtocol::Grpc)];
    let mut first = Lease::begin(&socket, hello("one", &dir, &both)).await.unwrap();
    let situation = first.welcome.situation.clone().unwrap();
    assert_eq!((first.welcome.version.as_str(), situation.extension), ("longshore.v1", id.clone()));
    assert_eq!(first.welcome.limits.unwrap().max_endpoints, 16);
    let second = Lease::begin(&socket, hello("two", &dir, &both)).await.unwrap();
    assert!(second.welcome.epoch > first.welcome.epoch);
    let told = end(&mut first).await;
    assert_eq!((told.code(), reason(&told)), (Code::FailedPrecondition, "REGISTRATION_SUPERSEDED".into()));
    assert_eq!(fact(&told, "retry").as_deref(), Some("false"));
    let now = registrations(&broker, &id).await;
    assert_eq!((now.len(), &*now[0].instance, &*now[0].service), (1, "two", ""));
    // It ends with the stream.
    drop(second);
    eventually(|| async { registrations(&broker, &id).await.is_empty().then_some(()) }).await;
    // And with the extension.
    let mut third = Lease::begin(&socket, hello("three", &dir, &both)).await.unwrap();
    broker.uninstall(&id, false).await.unwrap();
    let told = end(&mut third).await;
    assert!(["EXTENSION_NOT_FOUND", "BACKEND_STOPPED"].contains(&&*reason(&told)), "{told:?}");
    assert!(!socket.exists());
}

/// A gRPC backend whose health says that it serves `name`.
pub(crate) fn serve_grpc(socket: &Path, name: &'static str) {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status(name, tonic_health::ServingStatus::Serving).await;
        let server = tonic::transport::Server::builder().add_service(health);
        server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
    });
}

#[tokio::test]
async fn calls_that_pass_through_name_an_endpoint() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let socket = registration_socket(&broker, &id).await;
    let dir = broker.scratch().join("backend");
    fs::create_dir(&dir).unwrap();
    serve_grpc(&dir.join("first.sock"), "first");
    serve_grpc(&dir.join("second.sock"), "second");
    let offers =
        [("web", EndpointProtocol::Http1), ("first", EndpointProtocol::Grpc), ("second", EndpointProtocol::Grpc)];
    let lease = Lease::begin(&socket, hello("x", &format!("{}/", dir.display()), &offers)).await.unwrap();
    let check = async |endpoint: Option<&str>, service: &str| {
        let mut request = Request::new(HealthCheckRequest { service: service.into() });
        request.metadata_mut().insert("longshore-extension", id.parse().unwrap());
        if let Some(endpoint) = endpoint {
            request.metadata_mut().insert("longshore-endpoint", endpoint.parse().unwrap());
        }
        HealthClient::new(broker.channel().await).check(request).await.map(|answer| answer.into_inner().status)
    };
    assert_eq!(check(None, "first").await.unwrap(), 1);
    assert_eq!(check(Some("first"), "first").await.unwrap(), 1);
    assert_eq!(check(Some("second"), "second").await.unwrap(), 1);
    assert_eq!(check(Some("second"), "first").await.unwrap_err().code(), Code::NotFound, "the backend says so");
    for (endpoint, expected) in
        [("third", "ENDPOINT_NOT_FOUND"), ("web", "ENDPOINT_NOT_FOUND"), ("A", "REQUEST_INVALID")]
    {
        assert_eq!(reason(&check(Some(endpoint), "first").await.unwrap_err()), expected, "{endpoint}");
    }
    // What it does not offer any more is not called, and another that takes its name is.
    lease.say(Part::EndpointGone("second".into())).await;
    eventually(|| async {
        (reason(&check(Some("second"), "second").await.err()?) == "ENDPOINT_NOT_FOUND").then_some(())
    })
    .await;
    let moved = pb::Endpoint {
        name: "first".into(),
        protocol: EndpointProtocol::Grpc.into(),
        socket: dir.join("second.sock").display().to_string(),
    };
    lease.say(Part::EndpointAdded(moved)).await;
    eventually(|| async { check(Some("first"), "second").await.ok() }).await;
    broker.uninstall(&id, false).await.unwrap();
}

#[tokio::test]
async fn silent_connections_hold_up_nobody() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let socket = registration_socket(&broker, &id).await;
    let silent: Vec<_> = (0..100).map(|_| StdUnixStream::connect(&socket).unwrap()).collect();
    let begun = Instant::now();
    let lease = Lease::begin(&socket, hello("x", "/", &[])).await.unwrap();
    eprintln!("beside {} silent connections it took {:?}", silent.len(), begun.elapsed());
    drop(lease);
    broker.uninstall(&id, false).await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_says_why() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let socket = registration_socket(&broker, &id).await;
    let good = || hello("x", "/tmp/", &[("a", EndpointProtocol::Http1)]);
    let with = |change: &dyn Fn(&mut pb::Hello)| {
        let mut hello = good();
        change(&mut hello);
        hello
    };
    let many: Vec<String> = (0..17).map(|number| format!("e{number}")).collect();
    let many: Vec<(&str, EndpointProtocol)> = many.iter().map(|name| (&**name, EndpointProtocol::Http1)).collect();
    for (wrong, expected, subject) in [
        (with(&|hello| hello.instance.clear()), "REQUEST_INVALID", "instance"),
        (with(&|hello| hello.instance = "x".repeat(129)), "REQUEST_INVALID", "instance"),
        (with(&|hello| hello.software = "x".repeat(257)), "REQUEST_INVALID", "software"),
        (with(&|hello| hello.versions = vec!["longshore.v9".into()]), "VERSION_UNSUPPORTED", "versions"),
        (with(&|hello| hello.directory = "here".into()), "PATH_INVALID", "directory"),
        (with(&|hello| hello.endpoints[0].name = "A".into()), "REQUEST_INVALID", "endpoint"),
        (with(&|hello| hello.endpoints[0].protocol = 0), "REQUEST_INVALID", "protocol"),
        (with(&|hello| hello.endpoints[0].socket = "relative".into()), "REQUEST_INVALID", "socket"),
        (with(&|hello| hello.endpoints.push(good().endpoints.remove(0))), "REQUEST_INVALID", "endpoints"),
        (hello("x", "/", &many), "LIMIT_REACHED", "endpoints"),
    ] {
        let refused = Lease::begin(&socket, wrong.clone()).await.err().unwrap_or_else(|| panic!("{wrong:?}"));
        assert_eq!((reason(&refused).as_str(), fact(&refused, "subject").as_deref()), (expected, Some(subject)));
    }
    // What goes wrong later ends the lease.
    let later: [(Part, &str); 4] = [
        (Part::Hello(good()), "REQUEST_INVALID"),
        (Part::EndpointGone("b".into()), "REQUEST_INVALID"),
        (Part::Health(pb::Health { not_ready: false, message: "x".repeat(513) }), "REQUEST_INVALID"),
        (Part::Health(pb::Health { not_ready: false, message: "x".repeat(70_000) }), "REQUEST_INVALID"),
    ];
    for (wrong, expected) in later {
        let mut lease = Lease::begin(&socket, with(&|hello| hello.versions = vec!["x".into(), "longshore.v1".into()]))
            .await
            .unwrap();
        lease.say(wrong).await;
        assert_eq!(reason(&end(&mut lease).await), expected);
    }
    eventually(|| async { registrations(&broker, &id).await.is_empty().then_some(()) }).await;
    // Each socket serves what is its own.
    let get = pb::ExtensionServiceGetRequest { extension: id.clone() };
    let elsewhere = ExtensionServiceClient::new(channel(&socket).await).get(get).await.unwrap_err();
    assert_eq!(reason(&elsewhere), "METHOD_UNKNOWN");
    let elsewhere = Lease::begin(&broker.socket(), good()).await.err().unwrap();
    assert_eq!(reason(&elsewhere), "METHOD_UNKNOWN");
    let listed = |socket: &Path| {
        succeeds(client("bin/grpcurl").args(["-plaintext", "-unix", &socket.display().to_string(), "list"]))
    };
    assert!(!listed(&broker.socket()).contains("RegistrationService"));
    let there = listed(&socket);
    assert!(there.contains("longshore.v1.RegistrationService") && !there.contains("ExtensionService"), "{there}");
    broker.uninstall(&id, false).await.unwrap();
}

#[tokio::test]
async fn a_program_of_an_extension_does_not_register() {
    let image = Image::hello().busybox().build().await;
    let broker = Broker::start().await;
    broker.install(trusting(&image.reference)).await.unwrap();
    let socket = registration_socket(&broker, &image.id).await;
    let python = client("bin/python").get_program().display().to_string();
    let (script, proto) = (own("examples/register.py"), own("proto"));
    let at = broker.scratch().join("x.sock");
    let argv = [&*python, script.to_str().unwrap(), proto.to_str().unwrap(), at.to_str().unwrap()];
    let env = [("LONGSHORE_SOCKET".to_owned(), socket.display().to_string())].into();
    let ran = broker.run(pb::RunRequest { env, ..program(&image.id, pb::ExecTarget::Host, &argv) }).await;
    let said = ran.text();
    assert!(said.contains("PERMISSION_DENIED"), "{said}");
    broker.uninstall(&image.id, true).await.unwrap();
}

#[tokio::test]
async fn a_backend_in_python_registers() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let mut python = client("bin/python");
    python.arg(own("examples/register.py")).arg(own("proto")).arg(broker.scratch().join("python.sock"));
    python.env("LONGSHORE_SOCKET", registration_socket(&broker, &id).await).stdout(Stdio::null());
    let mut python = python.spawn().unwrap();
    let registered = is_registered(&broker, &id).await;
    let answer = call(&broker, &id, "GET", "/hello", "").await;
    python.kill().unwrap();
    python.wait().unwrap();
    assert_eq!(answer.unwrap(), "hello from Python\n");
    assert_eq!(registered.software, "register.py");
    eventually(|| async { registrations(&broker, &id).await.is_empty().then_some(()) }).await;
    broker.uninstall(&id, false).await.unwrap();
}

#[tokio::test]
async fn a_stand_in_does_not_vouch_for_the_containers() {
    let id = format!("longshore-test/{}", unique("vouching"));
    let good = Image::hello().build_version(&id, "1").await;
    let broken = Image::hello().change(r#"CMD ["/nothing"]"#).build_version(&id, "2").await;
    let broker = Broker::start().await;
    broker.install(trusting(&good.reference)).await.unwrap();
    let lease = stand_in(&broker, &id, &broker.scratch().join("x.sock"), "").await.unwrap();
    let failed = broker.update(trusting_update(&broken.reference)).await.unwrap_err();
    assert_ne!(reason(&failed), "BUG", "{failed:?}");
    assert_eq!(broker.extension(&id).await.unwrap().version, "1");
    // What ended while it stood in runs again when it goes.
    let container = format!("{}-service", project(&id));
    docker(&["kill", &container]);
    drop(lease);
    eventually(|| async { broker.get(&id, "/hello").await.ok() }).await;
    broker.uninstall(&id, true).await.unwrap();
}

#[tokio::test]
async fn dev_ends_with_its_extension() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let mut dev = broker.cli(&["dev", &id, "--", "sleep", "1000"]).stderr(Stdio::piped()).spawn().unwrap();
    is_registered(&broker, &id).await;
    broker.uninstall(&id, false).await.unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        while dev.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < SOON, "it goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
        dev.wait_with_output().unwrap()
    });
    let ended = ended.await.unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("is not installed any more"), "{said}");
}

#[tokio::test]
async fn hello_comes_at_once() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let socket = registration_socket(&broker, &id).await;
    let mut client = RegistrationServiceClient::new(channel(&socket).await);
    let silent = tokio_stream::pending::<pb::RegisterRequest>();
    let mut told = client.register(silent).await.unwrap().into_inner();
    let late = tokio::time::timeout(SOON, told.message()).await.unwrap().unwrap_err();
    assert_eq!(reason(&late), "REQUEST_INVALID");
    broker.uninstall(&id, false).await.unwrap();
}

#[tokio::test]
async fn dev_ends_its_process_with_its_children() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let dev = broker.cli(&["dev", &id, "--", "sh", "-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped()).spawn();
    let mut dev = dev.unwrap();
    let mut line = String::new();
    std::io::BufReader::new(dev.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let grandchild = line.trim().to_owned();
    kill_process(Pid::from_child(&dev), Signal::TERM).unwrap();
    assert_eq!(dev.wait().unwrap().code(), Some(0));
    eventually(|| async { registrations(&broker, &id).await.is_empty().then_some(()) }).await;
    // It is reaped by whoever adopts it, a moment after its end.
    let stat = || fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
    eventually(|| async { (stat().is_empty() || stat().contains(") Z ")).then_some(()) }).await;
    // A death by a signal is passed on as shells do.
    let mut dev = broker.cli(&["dev", &id, "--", "sh", "-c", "kill -USR1 $$"]);
    assert_eq!(dev.status().unwrap().code(), Some(128 + 10));
    broker.uninstall(&id, false).await.unwrap();
}
