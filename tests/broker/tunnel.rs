//! Engines that share no directory with the broker: what containers have of it lies in volumes, and is reached by a
//! tunnel. What programs do through it is what they do without, so those tests run here once more.

use longshore::pb;
use tokio::net::{TcpListener, UnixStream};

use crate::{
    carrying, execs, gateway, passthrough, programs, registration,
    support::{
        Broker, BrokerOptions, Image, ImageBuilder, PrivateEngine, as_both, eventually, fact, hello_backend, no_traces,
        project, reason, trusting, trusting_update,
    },
    terminals,
};

as_both!(an_engine_elsewhere_runs_an_extension);

/// A broker that takes the machine's engine for one elsewhere.
fn apart() -> BrokerOptions {
    BrokerOptions { args: vec!["--engine-files=apart".into()], ..Default::default() }
}

/// Names tests of programs once more.
macro_rules! as_ever {
    ($($module:ident: $($test:ident),+ $(,)?;)+) => {
        $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $test() { $module::$test(apart()).await; })+)+
    };
}

as_ever!(
    carrying: events_reach_the_caller_one_by_one, bodies_of_any_size_pass_both_ways_at_once,
        interim_answers_and_trailers_pass, a_caller_that_goes_ends_the_call_at_the_backend,
        a_stalled_reader_stops_the_backend, stalled_uploads_hold_nobody_back, upgraded_connections_carry_bytes;
    execs: input_is_carried_and_ends, a_terminal_is_one, signals_go_by_name, limits_end_the_tree_and_say_so;
    passthrough: grpcurl_sees_the_backends_own_services, grpcio_calls_grpcio, a_backend_that_comes_back_is_called_again;
    programs: the_end_is_told_as_it_was, bytes_are_carried_exactly, a_killed_broker_takes_all_trees_along;
    registration: a_backend_registers_and_is_called;
    terminals: a_shell_is_at_home;
);

/// An engine that answers on TCP, and sees nothing of the broker's data.
struct Elsewhere {
    engine: PrivateEngine,
    url: String,
}

impl Elsewhere {
    async fn start() -> Self {
        let engine = PrivateEngine::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        let socket = engine.at().path().to_owned();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let socket = socket.clone();
                tokio::spawn(async move {
                    let mut engine = UnixStream::connect(socket).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut engine).await
                });
            }
        });
        Elsewhere { engine, url }
    }

    /// A broker on it, of whose directories it sees none.
    async fn broker(&mut self, mut options: BrokerOptions) -> Broker {
        options.args.extend([format!("--engine={}", self.url).into(), "--engine-files=apart".into()]);
        let mut broker = Broker::prepare(options);
        self.engine.sh(&format!("mount -t tmpfs tmpfs '{}'", broker.scratch().display()));
        broker.restart().await;
        broker
    }
}

/// What a program in the extension's container prints, which has to end with 0.
fn inside(broker: &Broker, id: &str, script: &str) -> String {
    let output = broker.cli(&["exec", id, "--backend", "--", "/bin/sh", "-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn echoes(broker: &Broker, id: &str) {
    let body: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
    let start_wait = Some(prost_types::Duration { seconds: 20, nanos: 0 });
    let request = pb::FetchRequest {
        extension: id.to_owned(),
        method: "POST".into(),
        path: "/echo".into(),
        body: body.clone().into(),
        start_wait,
        ..Default::default()
    };
    let answer = broker.backends().await.fetch(request).await.unwrap().into_inner();
    assert!(answer.status == 200 && answer.body == body);
}

async fn an_engine_elsewhere_runs_an_extension(options: BrokerOptions) {
    let mut elsewhere = Elsewhere::start().await;
    let at = elsewhere.engine.at();
    let image = Image::hello().busybox().file("client", gateway::inside::client(), 0o755).build_in(&at).await;
    let (id, mut broker) = (image.id.clone(), elsewhere.broker(options).await);
    let installed = broker.install(trusting(&image.reference)).await.unwrap();
    assert_eq!(installed.state(), pb::ExtensionState::Ready);
    echoes(&broker, &id).await;

    // Its own sockets are there, and who comes is known.
    let allow = vec!["engine.full".into()];
    let set = pb::GrantServiceSetRequest { extension: id.clone(), allow, ..Default::default() };
    broker.grants().await.set(set).await.unwrap();
    let ping = "cd /run/longshore; until test -S docker.sock && test -S longshore.sock; do sleep 0.1; done; \
                printf 'GET /_ping HTTP/1.1\\r\\nHost: d\\r\\nConnection: close\\r\\n\\r\\n' | /client docker.sock";
    assert!(inside(&broker, &id, ping).starts_with("HTTP/1.1 200"));

    // Far ends that are killed come again; what lies in the place of the socket meanwhile stays out.
    let container = installed.backend.unwrap().containers[0].id.clone();
    let swap = "cd /run/guest-services && mv backend.sock real.sock && ln -s real.sock backend.sock";
    at.docker(&["exec", &container, "/bin/sh", "-c", swap]);
    let before = elsewhere.engine.sh("pgrep -f '[s]him tunnel'");
    elsewhere.engine.sh(&format!("kill -9 {}", before.replace('\n', " ")));
    eventually(async || broker.get(&id, "/hello").await.err().filter(|e| reason(e) == "GUEST_PATH_UNSAFE")).await;
    inside(&broker, &id, "cd /run/guest-services; mv real.sock backend.sock");
    eventually(async || broker.get(&id, "/hello").await.ok()).await;
    let after = elsewhere.engine.sh("pgrep -f '[s]him tunnel'");
    assert!(!after.is_empty() && !after.lines().any(|pid| before.lines().any(|old| old == pid)), "{before} {after}");

    // And so does the broker. What it put there is not put there again, but where it is not what it was.
    let volume = at.docker(&["volume", "ls", "-q", "--filter", "name=-shim"]);
    let place = at.docker(&["volume", "inspect", "-f", "{{.Mountpoint}}", &volume]);
    let mut shim = |then: &str| elsewhere.engine.sh(&format!("(cd {place} && ls -i --full-time shim{then})"));
    let put = shim("");
    broker.kill();
    broker.restart().await;
    echoes(&broker, &id).await;
    assert_eq!(shim(""), put);
    broker.kill();
    shim(" && rm shim && echo another > shim && echo another > digest");
    broker.restart().await;
    echoes(&broker, &id).await;
    // It is of the same size and time. Of the same inode it may be, too: a disk gives numbers anew.
    let looks = |line: &str| line.split_once(' ').unwrap().1.to_owned();
    assert_eq!(looks(&shim("")), looks(&put));

    // A socket that was left does not keep it from starting.
    at.docker(&["kill", &container]);
    broker.extensions().await.disable(pb::DisableRequest { extension: id.clone() }).await.unwrap();
    broker.extensions().await.enable(pb::EnableRequest { extension: id.clone() }).await.unwrap();
    echoes(&broker, &id).await;

    broker.uninstall(&id, false).await.unwrap();
    for list in [&["volume", "ls", "-q"][..], &["ps", "-aq"]] {
        assert_eq!(at.docker(list), "");
    }
}

/// Two services, a volume of one's own, and the engine's socket.
const COMPOSE_FILE: &str = r#"
services:
  web:
    image: ${DESKTOP_PLUGIN_IMAGE}
    volumes: ["/run/guest-services/x:/run/guest-services", "kept:/kept", "/var/run/docker.sock:/var/run/docker.sock"]
  other:
    image: ${DESKTOP_PLUGIN_IMAGE}
    command: ["/bin/sleep", "86400"]
    stop_grace_period: 0s
    environment: {LONGSHORE_TEST_BACKEND: "1"}
volumes: {kept: {}}
"#;

/// What the second of them does that registers.
const REGISTERING: &str =
    r#"["/backend", "--ignored", "--exact", "registration::backend_in_a_container", "--nocapture"]"#;

fn composed(file: &str) -> ImageBuilder {
    let manifest = r#"{"vm": {"composefile": "docker-compose.yml", "exposes": {"socket": "backend.sock"}}}"#;
    let image = Image::with_manifest(manifest).busybox().file("docker-compose.yml", file, 0o644);
    let image =
        image.file("hello-backend", hello_backend(), 0o755).file("backend", registration::backend_program(), 0o755);
    let image = image.file("client", gateway::inside::client(), 0o755);
    image.change(r#"CMD ["/hello-backend", "serve", "--socket", "/run/guest-services/backend.sock"]"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_elsewhere_runs_a_compose_file() {
    let mut elsewhere = Elsewhere::start().await;
    let at = elsewhere.engine.at();
    let image = composed(COMPOSE_FILE).build_in(&at).await;
    let (id, mut broker) = (image.id.clone(), elsewhere.broker(BrokerOptions::default()).await);
    let installed = broker.install(trusting(&image.reference)).await.unwrap();
    assert_eq!(installed.state(), pb::ExtensionState::Ready);
    echoes(&broker, &id).await;

    // The link to the gateway was laid before the start.
    let ping = "until test -S /run/longshore/docker.sock; do sleep 0.1; done; \
                printf 'GET /_ping HTTP/1.1\\r\\nHost: d\\r\\nConnection: close\\r\\n\\r\\n' | /client /var/run/docker.sock";
    assert!(inside(&broker, &id, ping).starts_with("HTTP/1.1 200"));
    inside(&broker, &id, "echo 7 > /kept/number");
    let service = ["exec", &id, "--service", "other", "--", "/bin/sh", "-c", "echo $LONGSHORE_TEST_BACKEND; ls /kept"];
    let other = broker.cli(&service).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&other.stdout), "1\n", "{other:?}");

    // Another generation has the volumes of the first.
    let next = composed(&COMPOSE_FILE.replace(r#"["/bin/sleep", "86400"]"#, REGISTERING));
    let next = next.build_version_in(&at, &id, "2").await;
    broker.update(trusting_update(&next.reference)).await.unwrap();
    assert_eq!(inside(&broker, &id, "cat /kept/number"), "7\n");
    // From where it registers its calls are answered now, also after a broker was killed.
    let greeted = async |broker: &Broker| {
        assert_eq!(registration::is_registered(broker, &id).await.service, "other");
        let greeting = registration::call(broker, &id, "GET", "/hello", "").await.unwrap();
        assert_eq!(greeting, "hello from a registered backend\n");
    };
    greeted(&broker).await;
    broker.kill();
    broker.restart().await;
    greeted(&broker).await;
    broker.extensions().await.disable(pb::DisableRequest { extension: id.clone() }).await.unwrap();
    broker.extensions().await.enable(pb::EnableRequest { extension: id.clone() }).await.unwrap();
    greeted(&broker).await;
    // A container that is gone is made again.
    at.docker(&["rm", "-f", &format!("{}-other-1", project(&id))]);
    eventually(async || {
        let running = at.docker(&["ps", "-q", "--filter", "label=com.docker.compose.service=other"]);
        (!running.is_empty()).then_some(())
    })
    .await;
    greeted(&broker).await;

    broker.uninstall(&id, true).await.unwrap();
    let networks = ["network", "ls", "-q", "--filter", "label=com.docker.compose.project"];
    for list in [&["volume", "ls", "-q"][..], &["ps", "-aq"], &networks] {
        assert_eq!(at.docker(list), "");
    }
}

/// What the engine would have to see of the broker's files.
#[tokio::test]
async fn files_beside_a_compose_file_are_refused_by_name() {
    let file = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    volumes: [\"./conf/a:/a\"]\n";
    let image = composed(file).file("conf/a", "a", 0o644).build().await;
    let broker = Broker::start_with(apart()).await;
    let refused = broker.install(trusting(&image.reference)).await.unwrap_err();
    assert_eq!(
        (reason(&refused), fact(&refused, "subject")),
        ("ENGINE_APART".into(), Some("services.web.volumes[0]".into()))
    );
    assert!(refused.message().contains("./conf/a lies beside the compose file"), "{refused:?}");
    no_traces(&broker, &image.id).await;
}
