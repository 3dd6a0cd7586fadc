//! The first call of a front end, as the README shows it: in Node and Python, with the libraries' default settings.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use longshore::pb;

use crate::support::{Broker, BrokerOptions, Image, ImageBuilder, Stage, eventually, hello_backend, trusting};

/// The hello extension as its author builds it.
pub(crate) fn hello_extension() -> ImageBuilder {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello-extension");
    let read = |path: &str| fs::read(root.join(path)).unwrap();
    let mut builder = Image::builder();
    for path in ["metadata.json", "docker-compose.yaml", "icon.svg", "ui/index.html"] {
        builder = builder.file(path, read(path), 0o644);
    }
    builder
        .file("host/hello.sh", read("host/hello.sh"), 0o755)
        .file("hello-backend", hello_backend(), 0o755)
        .change(r#"ENTRYPOINT ["/hello-backend"]"#)
        .change(r#"CMD ["serve", "--socket", "/run/guest-services/hello.sock", "--data", "/data"]"#)
}

/// Where `tests/setup/clients.sh` puts the clients of other languages.
pub(crate) fn clients() -> PathBuf {
    let beside = |directory: &Path| directory.join("clients");
    let found = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors().map(beside).find(|path| path.join("stamp").exists());
    found.expect("the tests need clients; `make setup` installs them")
}

#[tokio::test]
async fn the_examples_of_the_readme_work() {
    let broker = Broker::start().await;
    let image = hello_extension().build().await;
    broker.install(trusting(&image.reference)).await.unwrap();
    let mut node = Command::new("node");
    node.arg("examples/first-call/node/first-call.js").env("NODE_PATH", clients().join("node_modules"));
    let mut python = Command::new(clients().join("bin/python"));
    python.arg("examples/first-call/python/first_call.py");
    for (name, command) in [("Node", &mut node), ("Python", &mut python)] {
        command.arg(&image.id).current_dir(env!("CARGO_MANIFEST_DIR")).env("LONGSHORE_SOCKET", broker.socket());
        let output = command.output().unwrap();
        let shown = format!("{name}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{shown}");
        for line in [
            format!("fetch: 200 Hello, {name}!"),
            format!("5: hello, {name}, from Linux on the host"),
            "hello.sh: done, exit code 0".into(),
            "run: exit code 0".into(),
        ] {
            assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line} in {shown}");
        }
    }
    let mut talk = Command::new("node");
    talk.arg("examples/first-call/node/talk.js").env("NODE_PATH", clients().join("node_modules")).arg(&image.id);
    talk.current_dir(env!("CARGO_MANIFEST_DIR")).env("LONGSHORE_SOCKET", broker.socket());
    let mut talk = talk.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    talk.stdin.take().unwrap().write_all("ahoy\ngrüße".as_bytes()).unwrap();
    let output = talk.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "AHOY\nGRÜSSE\nexec: exit code 0\n");
    broker.uninstall(&image.id, true).await.unwrap();
}

#[tokio::test]
async fn a_directory_comes_and_goes_without_an_engine() {
    let args = ["--engine".into(), "unix:///nonexistent/docker.sock".into()].to_vec();
    let broker = Broker::start_with(BrokerOptions { args, ..Default::default() }).await;
    let path = format!("{}/examples/hello-extension", env!("CARGO_MANIFEST_DIR"));
    let directory = pb::DirectorySource { path, reference: "longshore-test/no-engine:1".into() };
    let source = Some(pb::Source { source: Some(pb::source::Source::Directory(directory)) });
    let installed = broker.install(pb::InstallRequest { source, trust: true, ..Default::default() }).await.unwrap();
    assert_eq!(installed.state_reason, "BACKEND_NOT_BUILT");
    broker.uninstall(&installed.id, true).await.unwrap();
    assert!(broker.uninstall(&installed.id, true).await.is_err());
}

/// The front end of the examples, on a broker.
fn front_end(broker: &Broker, args: &[&str]) -> Command {
    let mut node = Command::new("node");
    node.arg("examples/node-frontend/main.js").args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    node.env("NODE_PATH", clients().join("node_modules")).env("LONGSHORE_SOCKET", broker.socket());
    node.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    node
}

#[tokio::test]
async fn the_front_end_in_node_works() {
    let stage = Stage::install(hello_extension(), BrokerOptions::default()).await;
    let (broker, id) = (&stage.broker, stage.id());
    let failed = front_end(broker, &["org/not-there"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    let told = String::from_utf8(failed.stderr).unwrap();
    assert!(told.starts_with("EXTENSION_NOT_FOUND: ") && !told.contains("try again"), "{told}");

    let watching = front_end(broker, &[&id, "--watch"]).spawn().unwrap();
    let sessions = async || broker.sessions().await.list(pb::SessionServiceListRequest::default()).await;
    // Its program ends before it waits for the view's end; then the extension is removed under it.
    eventually(|| async { (!sessions().await.unwrap().into_inner().sessions.is_empty()).then_some(()) }).await;
    let execs = async || broker.exec().await.list(pb::ExecServiceListRequest::default()).await;
    eventually(|| async { (!execs().await.unwrap().into_inner().execs.is_empty()).then_some(()) }).await;
    eventually(|| async { execs().await.unwrap().into_inner().execs.is_empty().then_some(()) }).await;
    broker.uninstall(&id, true).await.unwrap();
    let output = watching.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    for line in [
        format!("{id} 1: ready, Hello"),
        "fetch: 200 Hello, front end!".into(),
        "echo: text/x-greeting ahoy".into(),
        "5: hello, you, from Linux on the host".into(),
        "run: exit code 0".into(),
        "view: SESSION_ENDED".into(),
        format!("event: {id} uninstall_began"),
    ] {
        assert_eq!(shown.lines().filter(|found| *found == line).count(), 1, "{line:?} in {shown}");
    }
    let left = sessions().await.unwrap().into_inner().sessions;
    assert_eq!(left, []);
}

#[tokio::test]
async fn an_install_in_node_asks_for_what_is_needed() {
    let image = hello_extension().build().await;
    let broker = Broker::start().await;
    for (answer, code) in [("n\n", 1), ("y\n", 0)] {
        let mut node = Command::new("node");
        node.arg("examples/node-frontend/install.js").arg(&image.reference).current_dir(env!("CARGO_MANIFEST_DIR"));
        node.env("NODE_PATH", clients().join("node_modules")).env("LONGSHORE_SOCKET", broker.socket());
        let mut node = node.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        node.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        let output = node.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(shown.contains("    host.exec:hello.sh, asked for in /host/binaries/0/linux/0/path\n"), "{shown}");
        assert_eq!(shown.contains(&format!("installed {} 1: ready\n", image.id)), code == 0, "{shown}");
        assert_eq!(broker.extension(&image.id).await.is_ok(), code == 0);
    }
    // Without consent it is told what is missing, in a form that a front end reads. A list says where it is at.
    broker.uninstall(&image.id, true).await.unwrap();
    let script = "(async () => {
        const broker = new (require('./examples/node-frontend/broker').Broker)();
        console.log((await broker.list()).watchToken?.length > 0);
        await broker.install(process.argv[1], []).catch(({ reason, missing }) => console.log(reason, missing[0].name));
        process.exit();
    })()";
    let mut node = Command::new("node");
    node.args(["-e", script, &image.reference]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output =
        node.env("NODE_PATH", clients().join("node_modules")).env("LONGSHORE_SOCKET", broker.socket()).output();
    assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), "true\nGRANTS_REQUIRED host.exec:hello.sh\n");
}

#[tokio::test]
async fn the_front_end_in_rust_works() {
    let stage = Stage::install(hello_extension(), BrokerOptions::default()).await;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--offline", "--example", "rust-frontend", "--", &stage.id()]);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).env("LONGSHORE_SOCKET", stage.broker.socket());
    let output = cargo.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(shown.contains("fetch: 200 Hello, Rust!\n1: hello, Rust, from Linux on the host\n"), "{shown}");
}
