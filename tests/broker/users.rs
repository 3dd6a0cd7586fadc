//! Who may use the broker, and as whom it runs: root, a plain user of the engine, other users, its own programs,
//! containers.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use bollard::{
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{
        CreateContainerOptions, LogsOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
        WaitContainerOptions,
    },
};
use futures_util::TryStreamExt;
use longshore::pb;

use crate::support::{
    Broker, BrokerOptions, Image, PLAIN_UID, docker_gid, engine, local, program, shell, trusting, unique,
};

/// A user that is neither root nor the broker's.
const OTHER_UID: u32 = PLAIN_UID + 1;

#[tokio::test]
async fn a_plain_user_of_the_engine_runs_a_broker_and_root_may_call_it() {
    let image = Image::hello().busybox().build().await;
    let broker = Broker::start_plain().await;
    let info = broker.system().await.get_info(pb::GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.uid, i64::from(PLAIN_UID));
    assert!(info.engine.unwrap().reachable);
    broker.install(trusting(&image.reference)).await.unwrap();
    assert_eq!(broker.get(&image.id, "/hello?name=x").await.unwrap().body, "Hello, x!\n".as_bytes());
    let on_host = broker.run(shell(&image.id, pb::ExecTarget::Host, "id -u; id -G")).await;
    assert_eq!(on_host.text(), format!("{PLAIN_UID}\n{PLAIN_UID} {}\n", docker_gid()));
    let inside = broker.run(program(&image.id, pb::ExecTarget::Backend, &["id", "-u"])).await;
    assert_eq!(inside.text(), "0\n");
    broker.uninstall(&image.id, true).await.unwrap();
    for path in [broker.socket(), broker.data_dir(), broker.runtime_dir()] {
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o077), (PLAIN_UID, 0), "{}", path.display());
    }
}

#[tokio::test]
async fn places_of_other_users_are_refused() {
    for plain in [false, true] {
        let broker = Broker::prepare(BrokerOptions { plain, ..Default::default() });
        let theirs = if plain { 0 } else { PLAIN_UID };
        fs::create_dir(broker.data_dir()).unwrap();
        chown(broker.data_dir(), Some(theirs), Some(theirs)).unwrap();
        let told = fails(broker.command());
        assert!(told.contains(&format!("belongs to uid {theirs}, the broker runs as uid")), "{told}");
        fs::remove_dir(broker.data_dir()).unwrap();

        fs::create_dir(broker.runtime_dir()).unwrap();
        fs::set_permissions(broker.runtime_dir(), fs::Permissions::from_mode(0o777)).unwrap();
        let told = fails(broker.command());
        assert!(told.contains("can be changed by other users"), "{told}");
    }
    let broker = Broker::prepare(BrokerOptions::default());
    fs::create_dir(broker.runtime_dir()).unwrap();
    chown(broker.runtime_dir(), Some(OTHER_UID), Some(OTHER_UID)).unwrap();
    let told = fails(broker.command());
    assert!(told.contains("can be changed by other users"), "{told}");
}

#[tokio::test]
async fn other_users_are_refused_by_mode_and_by_name() {
    for plain in [false, true] {
        let broker = Broker::start_with(BrokerOptions { plain, ..Default::default() }).await;
        let call = || as_user(OTHER_UID, broker.cli(&["--json", "info"])).output().unwrap();
        assert!(told(&call()).contains("permission denied"), "{:?}", call());
        for (path, mode) in [(broker.runtime_dir(), 0o755), (broker.socket(), 0o666)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let refused = told(&call());
        assert!(refused.contains("CALLER_REFUSED") && refused.contains("another user"), "{refused}");
        let own = if plain { PLAIN_UID } else { 0 };
        let answered = as_user(own, broker.cli(&["--json", "info"])).output().unwrap();
        assert!(answered.status.success(), "{answered:?}");
    }
}

#[tokio::test]
async fn programs_of_extensions_are_refused() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let (binary, socket) = (broker.binary().display().to_string(), broker.socket().display().to_string());
    let argv = [&*binary, "--socket", &socket, "--json", "info"];
    let direct = broker.run(program(&id, pb::ExecTarget::Host, &argv)).await;
    assert_eq!(direct.code(), 1);
    assert!(direct.text().contains("CALLER_REFUSED"), "{}", direct.text());

    // Forked twice, in a session of its own, when nothing that started it is left.
    let orphan = format!(
        "P=$$; (setsid sh -c 'while kill -0 '$P' 2>/dev/null; do sleep 0.05; done; exec {binary} --socket {socket} --json \
         info' &) ; exit 7"
    );
    let drain_timeout = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let orphan = broker.run(pb::RunRequest { drain_timeout, ..shell(&id, pb::ExecTarget::Host, &orphan) }).await;
    assert_eq!(orphan.code(), 7);
    assert!(orphan.text().contains("CALLER_REFUSED"), "{}", orphan.text());
    let info = broker.cli(&["info"]).output().unwrap();
    assert!(info.status.success(), "others are not: {info:?}");
}

#[tokio::test]
async fn containers_are_refused() {
    let broker = Broker::start().await;
    let image = Image::builder().busybox().build().await;
    let binds = [(broker.runtime_dir(), "/ctl"), (broker.binary(), "/longshore")];
    let binds = binds.map(|(from, to)| format!("{}:{to}", from.display())).to_vec();
    let host = HostConfig { binds: Some(binds), network_mode: Some("none".into()), ..Default::default() };
    let command = ["/longshore", "--socket", "/ctl/longshore.sock", "--json", "info"];
    let told = in_container(&image, &command, host.clone()).await;
    assert!(told.contains("CALLER_REFUSED") && told.contains("container"), "{told}");
    // It sees the machine's processes and may be in any of its other namespaces.
    let close = HostConfig {
        pid_mode: Some("host".into()),
        ipc_mode: Some("host".into()),
        network_mode: Some("host".into()),
        ..host
    };
    let told = in_container(&image, &command, close).await;
    assert!(told.contains("CALLER_REFUSED") && told.contains("container"), "{told}");
}

// === helpers ===

/// Runs a command in a container of its own and returns all that it wrote.
async fn in_container(image: &Image, command: &[&str], host_config: HostConfig) -> String {
    let docker = engine();
    let body = ContainerCreateBody {
        image: Some(image.reference.clone()),
        cmd: Some(command.iter().map(|arg| (*arg).to_owned()).collect()),
        labels: Some(HashMap::from([("longshore.test".to_owned(), unique("caller"))])),
        host_config: Some(host_config),
        ..Default::default()
    };
    let id = docker.create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
    let ran = async {
        docker.start_container(&id, None::<StartContainerOptions>).await?;
        // A code other than 0 is an error here; what it wrote tells more.
        let _ = docker.wait_container(&id, None::<WaitContainerOptions>).try_collect::<Vec<_>>().await;
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
        docker.logs(&id, Some(options)).map_ok(|line| line.to_string()).try_collect::<String>().await
    };
    let ran = tokio::time::timeout(Duration::from_secs(60), ran).await;
    docker.remove_container(&id, Some(RemoveContainerOptionsBuilder::default().force(true).build())).await.unwrap();
    ran.expect("it ends").unwrap()
}

/// The same command as another user without any group.
fn as_user(uid: u32, command: Command) -> Command {
    let mut other = Command::new("setpriv");
    other.args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into()]);
    other.arg(command.get_program()).args(command.get_args()).current_dir(Path::new("/")).stdin(Stdio::null());
    other
}

fn told(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a broker to its failure and returns what it says.
fn fails(mut command: Command) -> String {
    told(&command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap())
}
