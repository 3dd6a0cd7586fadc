//! Whole extensions, each modelled on a kind of real one.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    circle::{self, Expected},
    *,
};
use crate::support::{BrokerOptions, hello_backend, reason};

const SOCKET: &str = "/run/guest-services/backend.sock";
const HELLO: &[(&str, &str)] = &[("/hello?name=x", "Hello, x!")];

/// A shell, and the static backend.
fn shell() -> ImageBuilder {
    usual(Image::builder()).busybox().file("service", hello_backend(), 0o755)
}

/// The first process of a container gets no signal that it does not ask for, and the backend asks for none; the shell
/// saves every stop ten seconds.
fn serve() -> String {
    let script = format!("trap exit TERM; /service serve --socket {SOCKET} & wait");
    format!(r#"CMD ["/bin/sh", "-c", "{script}"]"#)
}

/// Adds a program of this machine with the libraries it loads.
fn program(mut builder: ImageBuilder, paths: &[PathBuf]) -> ImageBuilder {
    let mut all: BTreeSet<PathBuf> = BTreeSet::new();
    for path in paths {
        let loaded = Command::new("ldd").arg(path).output().unwrap();
        let loaded = String::from_utf8(loaded.stdout).unwrap();
        all.extend(loaded.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
        all.insert(path.clone());
    }
    for path in all {
        let content = std::fs::read(&path).unwrap();
        builder = builder.file(path.strip_prefix("/").unwrap().to_str().unwrap(), content, 0o755);
    }
    builder
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}; `make test` installs what the tests need");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn node() -> (ImageBuilder, String) {
    let path = said(Command::new("node").args(["-p", "process.execPath"]));
    (program(usual(Image::builder()).busybox(), &[PathBuf::from(&path)]), path)
}

/// Python as it is on this machine, with the standard library less its tests.
fn python() -> (ImageBuilder, String) {
    let ask = "import sys, sysconfig; p = sysconfig.get_paths(); print(sys._base_executable or sys.executable); print(p['stdlib'])";
    let answer = said(Command::new("python3").args(["-c", ask]));
    let (executable, library) = answer.split_once('\n').unwrap();
    let executable = std::fs::canonicalize(executable).unwrap();
    let extensions = walk(&Path::new(library).join("lib-dynload"));
    let programs: Vec<PathBuf> = extensions.into_iter().chain([executable.clone()]).collect();
    let mut builder = program(usual(Image::builder()).busybox(), &programs);
    for file in walk(Path::new(library)).into_iter().filter(|file| file.extension().is_some_and(|end| end == "py")) {
        let content = std::fs::read(&file).unwrap();
        builder = builder.file(file.strip_prefix("/").unwrap().to_str().unwrap(), content, 0o644);
    }
    (builder, executable.display().to_string())
}

/// The files below a directory, without packages and tests.
fn walk(directory: &Path) -> Vec<PathBuf> {
    const SKIPPED: [&str; 9] = [
        "test",
        "tests",
        "site-packages",
        "dist-packages",
        "idlelib",
        "lib2to3",
        "ensurepip",
        "tkinter",
        "__pycache__",
    ];
    let Ok(entries) = std::fs::read_dir(directory) else { return vec![] };
    let entries = entries.map(Result::unwrap).filter(|entry| {
        let name = entry.file_name();
        !SKIPPED.contains(&name.to_string_lossy().as_ref()) && !name.to_string_lossy().starts_with("config-")
    });
    let inner = |path: PathBuf| if path.is_dir() { walk(&path) } else { vec![path] };
    entries.flat_map(|entry| inner(entry.path())).collect()
}

/// What `docker extension init` makes: a compose file with one service, a static program, nothing else in the image.
#[tokio::test]
async fn the_template_with_a_compose_file() {
    let compose = "services:\n  tmpl:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    stop_signal: SIGKILL\n";
    let image = usual(Image::builder())
        .file("metadata.json", compose_metadata("docker-compose.yaml", Some("backend.sock")), 0o644)
        .file("docker-compose.yaml", compose, 0o644)
        .file("service", hello_backend(), 0o755)
        .change(&format!(r#"CMD ["/service", "serve", "--socket", "{SOCKET}"]"#))
        .build()
        .await;
    circle::go(&image, &Expected { answers: HELLO, ..Expected::ready() }).await;
}

/// volumes-backup: the engine's socket, in Docker Desktop's spelling, and capabilities that every container has.
#[tokio::test]
async fn a_backend_that_uses_the_engine() {
    let compose = "services:
  backend:
    image: ${DESKTOP_PLUGIN_IMAGE}
    volumes: ['/var/run/docker.sock.raw:/var/run/docker.sock']
    cap_add: [DAC_OVERRIDE, FOWNER]
";
    let image = shell()
        .file("metadata.json", compose_metadata("docker-compose.yaml", Some("backend.sock")), 0o644)
        .file("docker-compose.yaml", compose, 0o644)
        .change(&serve())
        .build()
        .await;
    let run: (&[&str], &str) = (&["/bin/sh", "-c", "test -S /var/run/docker.sock && echo socket"], "socket\n");
    circle::go(&image, &Expected { answers: HELLO, run: Some(run), ..Expected::ready() }).await;
}

/// Everything a compose file of several services holds in real extensions, beside the file at the image's root or in a
/// directory of its own.
async fn several_services(directory: &str) {
    let tag = unique("many");
    let other = Image::builder().busybox().build_as(&format!("longshore-test/{tag}-other")).await;
    let compose = format!(
        r#"version: "3.9"
x-logging: &log {{driver: json-file}}
services:
  backend:
    image: ${{DESKTOP_PLUGIN_IMAGE}}
    depends_on:
      redis: {{condition: service_healthy}}
      init: {{condition: service_completed_successfully}}
    logging: *log
    env_file: app.env
    environment: ['HASH=$$2a$$10', 'PORT=${{APP_DB_PORT:-1521}}', 'EMPTY=${{NOT_SET_ANYWHERE}}']
    volumes: ['data:/data', './conf/app.conf:/etc/app.conf:ro']
  redis:
    image: {other}
    container_name: {tag}-redis
    command: [sh, -c, "touch /up; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    healthcheck: {{test: [CMD, ls, /up], interval: 1s, retries: 30}}
    ports: ['127.0.0.1::6379']
    volumes: ['cache:/cache', /anonymous]
  init:
    image: {other}
    command: |
      sh -c 'cat > /data/Caddyfile <<EOF
      :80 {{ respond "$$HOME" }}
      EOF'
    volumes: ['data:/data']
  off:
    image: longshore-test/is-nowhere:1
    profiles: [more]
volumes:
  data:
  cache: {{name: {tag}-cache}}
"#,
        other = other.reference,
    );
    let at = |name: &str| format!("{directory}{name}");
    let image = shell()
        .file("metadata.json", compose_metadata(&at("compose.yaml"), Some("backend.sock")), 0o644)
        .file(&at("compose.yaml"), compose, 0o644)
        .file(&at("conf/app.conf"), "conf\n", 0o644)
        .file(&at("app.env"), "FROM_FILE=yes\n", 0o644)
        .change(&serve())
        .build_as(&format!("longshore-test/{tag}"))
        .await;
    let script = "echo $HASH $PORT [$EMPTY] $FROM_FILE; cat /etc/app.conf /data/Caddyfile";
    let wanted = "$2a$10 1521 [] yes\nconf\n:80 { respond \"/\" }\n";
    let run: (&[&str], &str) = (&["/bin/sh", "-c", script], wanted);
    circle::go(&image, &Expected { answers: HELLO, run: Some(run), volumes: 2, ..Expected::ready() }).await;
}

#[tokio::test]
async fn several_services_at_the_root() {
    several_services("").await;
}

#[tokio::test]
async fn several_services_in_a_directory() {
    several_services("vm/").await;
}

/// `app.listen(path)` in Node, as others, who may neither write as root nor clear away what they left.
#[tokio::test]
async fn node_backends() {
    let plain = "const http = require('http'), fs = require('fs'); process.on('SIGTERM', () => process.exit(1));
http.createServer((q, r) => r.end(JSON.stringify({url: q.url}))).listen(process.argv[2], () => MODE);";
    for (user, mode) in [("0", "0"), ("1000", "0"), ("0", "fs.chmodSync(process.argv[2], 0o777)")] {
        let (builder, path) = node();
        let image = builder
            .file("metadata.json", metadata(), 0o644)
            .file("app.js", plain.replace("MODE", mode), 0o644)
            .change(&format!("USER {user}"))
            .change(&format!(r#"CMD ["{path}", "/app.js", "{SOCKET}"]"#))
            .build()
            .await;
        let answers: &[(&str, &str)] = &[("/a?b={\"c\": 1}", "/a?b=")];
        circle::go(&image, &Expected { answers, run: Some((&["/bin/echo", "hi"], "hi\n")), ..Expected::ready() }).await;
    }
}

/// HeyDocker reads once, at most 1,024 bytes, answers without a length and closes.
const READS_ONCE: &str = r#"import os, signal, socketserver, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        head, body = self.request.recv(1024).decode().split("\r\n\r\n", 1)
        self.request.sendall(("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"path\": \"%s\"}" % head.split(" ")[1]).encode())
socketserver.UnixStreamServer(sys.argv[1], Handler).serve_forever()
"#;

/// As uvicorn and its kin do: asynchronous, chunked.
const CHUNKED: &str = r#"import asyncio, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
async def handle(reader, writer):
    try:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
    except asyncio.IncompleteReadError:
        return writer.close()
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for part in (b"path ", path):
        writer.write(b"%x\r\n%s\r\n" % (len(part), part))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
async def main():
    await (await asyncio.start_unix_server(handle, sys.argv[1])).serve_forever()
asyncio.run(main())
"#;

#[tokio::test]
async fn python_backends() {
    for (program, answers) in [(READS_ONCE, [("/x?y", r#"{"path": "/x?y"}"#)]), (CHUNKED, [("/x?y", "path /x?y")])] {
        let (builder, path) = python();
        let image = builder
            .file("metadata.json", metadata(), 0o644)
            .file("app.py", program, 0o644)
            .change(&format!(r#"CMD ["{path}", "/app.py", "{SOCKET}"]"#))
            .build()
            .await;
        circle::go(&image, &Expected { answers: &answers, ..Expected::ready() }).await;
    }
}

/// Links for everything: the tab's directory, the icon, the compose file, the host programs' directory.
#[tokio::test]
async fn links_everywhere() {
    let manifest = r#"{"icon": "/icon.svg",
        "ui": {"dashboard-tab": {"title": "Test", "root": "/client", "src": "/index.html?v0.4.0"}},
        "vm": {"composefile": "/docker-compose.yaml", "exposes": {"socket": "backend.sock"}},
        "host": {"binaries": [{"linux": [{"path": "/host/linux/h.sh"}, {"path": "/host/linux/lib.sh"}]}]}}"#;
    let image = Image::builder()
        .busybox()
        .file("metadata.json", manifest, 0o644)
        .file("opt/app/dist/index.html", "<h1>links</h1>", 0o644)
        .file("opt/app/x.svg", "<svg/>", 0o644)
        .file("opt/app/dc.yaml", "services:\n  a:\n    image: $DESKTOP_PLUGIN_IMAGE\n", 0o644)
        .file("opt/bin/h.sh", "#!/bin/sh\n. $(dirname $0)/lib.sh\nhi\n", 0o755)
        .file("opt/bin/lib.sh", "hi() { echo hi from lib; }\n", 0o644)
        .file("opt/app/service", hello_backend(), 0o755)
        .link("app", "/opt/app")
        .link("client", "/app/dist")
        .link("icon.svg", "../opt/app/x.svg")
        .link("docker-compose.yaml", "app/dc.yaml")
        .link("service", "app/service")
        .link("host/linux", "/opt/bin")
        .link("opt/app/dist/dangling", "/nowhere")
        .link("opt/app/dist/root", "/")
        .link("opt/app/dist/here", ".")
        .link("opt/app/dist/absolute.html", "/app/dist/index.html")
        .change(&serve())
        .build()
        .await;
    circle::go(&image, &Expected { answers: HELLO, ..Expected::ready() }).await;
}

/// An image names itself by its published name instead of the variable.
#[tokio::test]
async fn an_extension_that_names_itself() {
    let id = format!("longshore-test/{}", unique("self"));
    let image = shell()
        .file("metadata.json", compose_metadata("compose.yaml", Some("backend.sock")), 0o644)
        .file("compose.yaml", format!("services:\n  a:\n    image: {id}:1\n"), 0o644)
        .change(&serve())
        .build_as(&id)
        .await;
    circle::go(&image, &Expected { answers: HELLO, ..Expected::ready() }).await;
}

/// docker-dive: a backend without a command, which ends at once; only the tab and host programs matter. Every third real
/// image has no command of its own.
#[tokio::test]
async fn a_backend_that_has_nothing_to_do() {
    let idle = || shell().change(r#"CMD ["/bin/sh"]"#);
    let compose = idle()
        .file("metadata.json", compose_metadata("compose.yaml", None), 0o644)
        .file("compose.yaml", "services:\n  dive:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n", 0o644)
        .build()
        .await;
    circle::go(&compose, &Expected::ready()).await;
    let single = idle().file("metadata.json", r#"{"vm": {"image": "${DESKTOP_PLUGIN_IMAGE}"}}"#, 0o644).build().await;
    circle::go(&single, &Expected::ready()).await;
}

/// neo4j and a dozen others: a socket is declared and nobody makes it.
#[tokio::test]
async fn a_socket_that_nobody_makes() {
    let compose = "services:
  db:
    image: ${DESKTOP_PLUGIN_IMAGE}
    command: [sh, -c, \"trap 'exit 0' TERM; while :; do sleep 0.1; done\"]
";
    let image = shell()
        .file("metadata.json", compose_metadata("compose.yaml", Some("backend.sock")), 0o644)
        .file("compose.yaml", compose, 0o644)
        .build()
        .await;
    let scratch = tempfile::tempdir().unwrap();
    let config = scratch.path().join("config.toml");
    std::fs::write(&config, "ready_timeout = \"2s\"\n").unwrap();
    let args = vec!["--config".into(), config.into_os_string()];
    let broker = Broker::start_with(BrokerOptions { args, ..Default::default() }).await;
    let installed = broker.install(circle::request(&image, &[], false)).await.unwrap();
    assert_eq!((installed.state(), &*installed.state_reason), (pb::ExtensionState::Degraded, "NO_SOCKET"));
    broker.uninstall(&image.id, false).await.unwrap();
}

/// An image of nothing but files has no command; it is never run.
#[tokio::test]
async fn an_extension_without_a_backend() {
    let manifest = metadata().replace("\"vm\"", "\"ignored\"");
    let image = usual(Image::builder()).file("metadata.json", manifest, 0o644).build().await;
    circle::go(&image, &Expected::ready()).await;
}

#[tokio::test]
async fn a_tab_of_many_files() {
    let manifest = metadata().replace("\"vm\"", "\"ignored\"");
    let mut builder = usual(Image::builder()).file("metadata.json", manifest, 0o644);
    for number in 0..20_000 {
        builder = builder.file(&format!("ui/assets/{}/{number}.js", number % 100), "x", 0o644);
    }
    let image = builder.build().await;
    let broker = Broker::start_plain().await;
    let installed = broker.install(circle::request(&image, &[], false)).await.unwrap();
    assert!(Path::new(&installed.ui.unwrap().root_dir).join("assets/99/19999.js").is_file());
    broker.uninstall(&image.id, false).await.unwrap();
    assert_eq!(std::fs::read_dir(broker.data_dir().join("extensions")).unwrap().count(), 0);
}

/// Who never logged in to a registry can pull: no configuration is no failure.
#[tokio::test]
async fn a_pull_needs_no_docker_configuration() {
    let broker = Broker::start().await;
    let nowhere = crate::support::trusting("127.0.0.1:9/nobody/nothing:1");
    let mut request = nowhere;
    if let Some(pb::source::Source::Image(image)) = request.source.as_mut().and_then(|s| s.source.as_mut()) {
        image.pull = pb::PullPolicy::Missing.into();
    }
    let refused = broker.install(request).await.unwrap_err();
    assert_eq!(reason(&refused), "PULL_FAILED");
    assert!(!refused.message().contains("credentials"), "{}", refused.message());
}
