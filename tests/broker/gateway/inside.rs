//! The gateway as containers of an extension find it.

use std::{path::Path, process::Command, sync::OnceLock};

use longshore::pb;

use super::labels;
use crate::support::{BrokerOptions, Image, Stage, as_both, docker, no_traces};

as_both!(a_mounted_engine_socket_is_the_gateway, a_read_only_container_is_told_by_a_variable,);

const MANIFEST: &str = r#"{"vm": {"composefile": "docker-compose.yml"}}"#;
/// Asks, from within a container, what the engine is, as soon as it starts.
const PING: &str = r#"printf 'GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n' | /client"#;

/// A static program that sends its standard input to a socket and writes what comes back, compiled once.
pub(crate) fn client() -> Vec<u8> {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    let build = || {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broker/gateway/client.rs");
        let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let program = scratch.path().join("client");
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-o"]).arg(&program).arg(source);
        assert!(rustc.status().unwrap().success());
        std::fs::read(program).unwrap()
    };
    BUILT.get_or_init(build).clone()
}

async fn installed(compose: &str, options: BrokerOptions) -> Stage {
    let image = Image::with_manifest(MANIFEST).busybox().file("client", client(), 0o755);
    Stage::without_wait(image.file("docker-compose.yml", compose, 0o644), options).await
}

/// What each container of a service wrote, once it has written something.
async fn written(stage: &Stage, service: &str) -> Vec<String> {
    let own = format!("label=dev.longshore.extension={}", stage.id());
    let service = format!("label=com.docker.compose.service={service}");
    let ids = docker(&["ps", "-aq", "--filter", &own, "--filter", &service]);
    let mut all = vec![];
    for id in ids.lines() {
        let mut logs = String::new();
        for _ in 0..300 {
            logs = docker(&["logs", id]);
            if logs.contains("HTTP/1.1") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        all.push(logs);
    }
    all
}

#[allow(clippy::too_many_lines, reason = "one life of containers")]
async fn a_mounted_engine_socket_is_the_gateway(options: BrokerOptions) {
    let compose = format!(
        "services:
  main:
    image: ${{DESKTOP_PLUGIN_IMAGE}}
    user: '1000'
    network_mode: none
    command: [sh, -c, \"{ping} /var/run/docker.sock; sleep 1000\"]
    volumes: ['/var/run/docker.sock.raw:/var/run/docker.sock']
  many:
    image: ${{DESKTOP_PLUGIN_IMAGE}}
    scale: 2
    depends_on: {{main: {{condition: service_started}}}}
    command: [sh, -c, \"{ping} /a/b/engine; sleep 1000\"]
    volumes: ['/var/run/docker.sock:/a/b/engine', '/anonymous']
  plain:
    image: ${{DESKTOP_PLUGIN_IMAGE}}
    command: [sh, -c, \"{ping} /run/longshore/docker.sock; sleep 1000\"]
",
        ping = PING.replace('\\', "\\\\")
    );
    let stage = installed(&compose, options).await;
    for (service, count) in [("main", 1), ("many", 2), ("plain", 1)] {
        let all = written(&stage, service).await;
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|answer| answer.starts_with("HTTP/1.1 200 OK")), "{service}: {all:?}");
    }
    let main = stage.container("main");
    assert!(!docker(&["inspect", "--format", "{{json .Mounts}}", &main]).contains("/var/run/docker.sock"));
    // What is made from inside is the extension's.
    let name = stage.name("inner");
    let body = format!(r#"{{"Image":"{}","Cmd":["x"]}}"#, stage.image.reference);
    let request = format!(
        "POST /containers/create?name={name} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = stage.inside(&main, &request);
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(labels("container", &name)["dev.longshore.extension"], stage.id());
    // A container cannot put its own socket in the place of ours.
    let touched =
        Command::new("docker").args(["exec", "-u", "0", &main, "touch", "/run/longshore/x"]).output().unwrap();
    assert!(String::from_utf8_lossy(&touched.stderr).contains("Read-only"), "{touched:?}");
    // Containers that Compose makes anew have the links as well, and those that are started again have kept them.
    let id = stage.id();
    stage.broker.extensions().await.disable(pb::DisableRequest { extension: id.clone() }).await.unwrap();
    docker(&["rm", "-f", &main]);
    stage.broker.extensions().await.enable(pb::EnableRequest { extension: id.clone() }).await.unwrap();
    assert_ne!(stage.container("main"), main);
    for service in ["main", "many"] {
        let all = written(&stage, service).await;
        assert!(all.iter().all(|answer| answer.starts_with("HTTP/1.1 200 OK")), "{service}: {all:?}");
    }
    // They find the next broker under the same name.
    let (mut stage, main) = (
        stage,
        docker(&[
            "ps",
            "-q",
            "--filter",
            "label=com.docker.compose.service=main",
            "--filter",
            &format!("label=dev.longshore.extension={id}"),
        ]),
    );
    stage.broker.kill();
    stage.broker.restart().await;
    let answer = stage.inside(&main, "GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stage.broker.uninstall(&id, true).await.unwrap();
    no_traces(&stage.broker, &id).await;
}

async fn a_read_only_container_is_told_by_a_variable(options: BrokerOptions) {
    let compose = format!(
        "services:
  main:
    image: ${{DESKTOP_PLUGIN_IMAGE}}
    read_only: true
    command: [sh, -c, \"{} $${{DOCKER_HOST#unix://}}; sleep 1000\"]
    volumes: ['/var/run/docker.sock:/var/run/docker.sock']
",
        PING.replace('\\', "\\\\")
    );
    let stage = installed(&compose, options).await;
    let all = written(&stage, "main").await;
    assert!(all[0].starts_with("HTTP/1.1 200 OK"), "{all:?}");
    let request = pb::ExtensionServiceGetRequest { extension: stage.id() };
    let shown = stage.broker.extensions().await.get(request).await.unwrap().into_inner().extension.unwrap();
    assert!(shown.warnings.iter().any(|warning| warning.contains("read-only")), "{:?}", shown.warnings);
}

impl Stage {
    /// What the gateway answers to bytes from within a container.
    fn inside(&self, container: &str, request: &str) -> String {
        let mut command = Command::new("docker");
        command.args(["exec", "-i", container, "/client", "/run/longshore/docker.sock"]);
        let mut child =
            command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), request.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    }
}
