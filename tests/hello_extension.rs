//! The example extension is complete, and its backend speaks HTTP: built as its author would, without any engine.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread::sleep,
    time::Duration,
};

use tempfile::TempDir;

/// The laid-out extension. Tests run in processes of their own: whoever comes first builds it, and the others wait.
fn root() -> PathBuf {
    let temp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let lock = File::create(temp.join("hello-extension.lock")).unwrap();
    lock.lock().unwrap();
    let root = temp.join("hello-extension");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello-extension");
    let built = root.join("built");
    let newer = Command::new("find").arg(&example).arg("-newer").arg(&built).output().unwrap();
    if !newer.status.success() || !newer.stdout.is_empty() {
        assert!(Command::new(example.join("build.sh")).arg(&root).status().unwrap().success());
        File::create(built).unwrap();
    }
    root
}

/// A running backend; ended when dropped.
struct Backend {
    process: Child,
    directory: TempDir,
}

impl Backend {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let process = Backend::spawn(directory.path());
        Backend { process, directory }
    }

    fn spawn(directory: &Path) -> Child {
        let mut command = Command::new(root().join("hello-backend"));
        command.arg("serve").arg("--socket").arg(directory.join("guest/hello.sock"));
        let process = command.arg("--data").arg(directory.join("data")).spawn().unwrap();
        let listens = || UnixStream::connect(directory.join("guest/hello.sock")).is_ok();
        assert!((0..200).any(|_| listens() || (sleep(Duration::from_millis(20)), false).1), "it does not listen");
        process
    }

    /// Kills it, which leaves its socket behind, and starts it again.
    fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = Backend::spawn(self.directory.path());
    }

    fn connect(&self) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(self.directory.path().join("guest/hello.sock")).unwrap())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends a request and reads one response: status, and a body as long as the head says.
fn ask(connection: &mut BufReader<UnixStream>, request: &[u8]) -> (u16, Vec<u8>) {
    connection.get_mut().write_all(request).unwrap();
    let (mut status, mut length) = (0, 0);
    for number in 0.. {
        let mut line = String::new();
        connection.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            None if number == 0 => status = line.split(' ').nth(1).unwrap().parse().unwrap(),
            Some(("Content-Length", value)) => length = value.parse().unwrap(),
            None => break,
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).unwrap();
    (status, body)
}

#[test]
fn everything_the_manifest_names_is_there() {
    let text = std::fs::read_to_string(root().join("metadata.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let tab = &manifest["ui"]["dashboard-tab"];
    let entry = format!("{}/{}", tab["root"].as_str().unwrap(), tab["src"].as_str().unwrap());
    let mut paths = vec![entry, manifest["icon"].as_str().unwrap().into()];
    paths.push(manifest["vm"]["composefile"].as_str().unwrap().into());
    for platform in ["darwin", "linux", "windows"] {
        paths.push(manifest["host"]["binaries"][0][platform][0]["path"].as_str().unwrap().into());
    }
    for path in paths {
        assert!(root().join(path.trim_start_matches('/')).is_file(), "{path}");
    }
}

#[test]
fn one_connection_carries_many_requests() {
    let backend = Backend::start();
    let mut connection = backend.connect();
    let answer = ask(&mut connection, b"GET /hello?name=%C3%BC+x HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(answer, (200, "Hello, ü x!\n".into()));
    let answer = ask(&mut connection, b"POST /echo HTTP/1.1\r\nContent-Length: 4\r\n\r\n\x00\xff\r\n");
    assert_eq!(answer, (200, b"\x00\xff\r\n".to_vec()));
    let chunks = b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nt: v\r\n\r\n";
    assert_eq!(ask(&mut connection, chunks), (200, b"abc".to_vec()));
    assert_eq!(ask(&mut connection, b"DELETE /echo HTTP/1.1\r\n\r\n").0, 405);
    assert_eq!(ask(&mut connection, b"GET /nothing HTTP/1.1\r\n\r\n").0, 404);
    assert_eq!(ask(&mut connection, b"GET /slow?ms=5 HTTP/1.1\r\n\r\n").1, b"5 ms later\n");
    assert_eq!(ask(&mut connection, b"nonsense\r\n\r\n").0, 400);
}

#[test]
fn the_count_and_the_socket_survive_a_kill() {
    let mut backend = Backend::start();
    let count = |backend: &Backend| ask(&mut backend.connect(), b"GET /count HTTP/1.1\r\n\r\n").1;
    assert_eq!(count(&backend), b"1\n");
    backend.restart();
    assert_eq!(count(&backend), b"2\n");
}

#[test]
fn the_host_program_uses_its_arguments() {
    let output = Command::new(root().join("host/hello.sh")).args(["you", "4"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((text.lines().count(), text.starts_with("1: hello, you, from ")), (5, true));
    let output = Command::new(root().join("hello-backend")).arg("whoami").output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"hello-backend: process "));
}
