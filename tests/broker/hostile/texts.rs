//! What an extension writes into errors, and how much of it the broker holds.

use std::{process::Output, time::Duration};

use longshore::pb::FetchRequest;
use tokio::io::AsyncWriteExt;
use tonic::{Code, Status};

use super::{
    archives::{saved, source},
    *,
};
use crate::support::{BrokerOptions, Stage, reason};

/// Bytes that clients of every language take of a status: in trailers, a text percent-encoded and details in base64.
const MAX_STATUS_BYTES: usize = 8 << 10;
/// More than anybody wants to read.
const MAX_TOLD_BYTES: usize = 16 << 10;

/// What a status takes in HTTP/2 trailers.
fn wire_bytes(status: &Status) -> usize {
    let response = status.clone().into_http::<()>();
    response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

/// What the command line told must be short and harmless.
fn check_told(what: &str, output: &Output) {
    let told = String::from_utf8([&output.stdout[..], &output.stderr[..]].concat()).unwrap();
    assert!(!told.is_empty() && told.len() <= MAX_TOLD_BYTES, "{what}: {} bytes", told.len());
    let bad = |c: char| (c.is_control() && c != '\n' && c != '\t') || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!told.contains(bad), "{what}: {told:?}");
}

#[tokio::test]
async fn errors_stay_small_and_printable() {
    let broker = Broker::start().await;
    let evil = "\\e[2J\\e]0;x\\a\\u202e\\u2066\\x9b31m";
    let long = |piece: &str| piece.repeat(900_000 / piece.len());
    let web = "services:\n  web:\n    image: x\n";
    let service = |name: &str| format!("services:\n  \"{name}\":\n    image: x\n    build: .\n");
    let table = [
        ("a name of a service", service(&long("x"))),
        ("a name that means harm", service(evil)),
        ("a long one that does", service(&long(evil))),
        ("one of other letters", service(&long("\u{1f6a2}"))),
        ("percent signs", service(&long("%"))),
        ("a key that Compose tells of", format!("{web}    \"{}\": 1\n", long("k"))),
        ("an image", format!("services:\n  web:\n    image: \"{}\"\n", long(evil))),
        ("a path", format!("{web}    env_file: \"/{}\"\n", long(evil))),
        ("a value", format!("{web}    mem_limit: \"{}\"\n", long("\u{e9}"))),
        ("a bind", format!("{web}    volumes: ['/{}:/x']\n", long("p"))),
        ("a bind that means harm", format!("{web}    volumes: [\"/{evil}:/x\"]\n")),
        (
            "many binds",
            format!("{web}    volumes: [{}]\n", (0..2000).map(|at| format!("'/x{at}:/x{at}',")).collect::<String>()),
        ),
        ("no YAML", format!("services: [\"{}\n", long("\u{7}"))),
    ];
    for (what, file) in table {
        let files: [(&str, &[u8]); 2] =
            [("metadata.json", COMPOSED.as_bytes()), ("vm/docker-compose.yml", file.as_bytes())];
        let source = laid_out(&broker, "longshore-test/texts:1", &files);
        let status = install(&broker, &source, &[]).await.expect_err(what);
        assert!(wire_bytes(&status) <= MAX_STATUS_BYTES, "{what}: {} bytes", wire_bytes(&status));
        assert!(status.code() != Code::Internal && !reason(&status).is_empty(), "{what}: {status:?}");
        let Some(pb::source::Source::Directory(directory)) = source.source else { panic!() };
        check_told(what, &broker.cli(&["install", &directory.path]).output().unwrap());
        let output = broker.cli(&["--json", "install", &directory.path]).output().unwrap();
        check_told(what, &output);
        for line in String::from_utf8([output.stdout, output.stderr].concat()).unwrap().lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{what}: {error}: {line:?}"));
        }
    }
    let manifest = format!("{{\"{}\u{1b}[2J\": {{,", "m".repeat(900_000));
    let status =
        install(&broker, &laid_out(&broker, "longshore-test/texts:1", &[("metadata.json", manifest.as_bytes())]), &[])
            .await;
    assert!(wire_bytes(&status.unwrap_err()) <= MAX_STATUS_BYTES);
}

#[tokio::test]
async fn labels_are_shown_without_what_means_harm() {
    let broker = Broker::start().await;
    let evil = "\u{1b}[2J\u{1b}]0;x\u{7}\u{202e}";
    let text = evil.repeat(20_000);
    let title = format!("{evil}title");
    let labels = [
        ("org.opencontainers.image.title", title.as_str()),
        ("org.opencontainers.image.description", &text),
        ("org.opencontainers.image.vendor", evil),
        ("com.docker.desktop.extension.api.version", &text),
    ];
    let mut layer = tar::Builder::new(Vec::new());
    let manifest = br#"{"ui": {"dashboard-tab": {"title": "T", "root": "ui", "src": "index.html"}}}"#;
    for (path, content) in [("metadata.json", &manifest[..]), ("ui/index.html", b"x")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        layer.append_data(&mut header, path, content).unwrap();
    }
    let id = format!("longshore-test/{}", unique("labels"));
    let archive = saved(&[&format!("{id}:1")], &layer.into_inner().unwrap(), &labels);
    let source = source(&broker, &archive);
    install(&broker, &source, &[]).await.unwrap();
    for command in [&["ls"][..], &["inspect", &id], &["ps"], &["grants", &id]] {
        let output = broker.cli(command).output().unwrap();
        let told = String::from_utf8([&output.stdout[..], &output.stderr[..]].concat()).unwrap();
        let bad = |c: char| (c.is_control() && c != '\n' && c != '\t') || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(output.status.success() && !told.contains(bad), "{command:?}: {told:.2000?}");
    }
    broker.uninstall(&id, false).await.unwrap();
}

/// Answers every connection with this head and then zeros for as long as anybody reads.
fn serve(listener: tokio::net::UnixListener, head: String) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = head.clone();
            tokio::spawn(async move {
                let zeros = vec![0; 256 << 10];
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(&zeros).await.is_ok() {}
            });
        }
    })
}

/// 256 MiB for bodies; the rest is the usual size of the broker, with a hundred connections to either side, and what the
/// allocator keeps.
const MAX_GROWTH_KIB: u64 = 640 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_bounded_all_together() {
    let stage = Stage::idle(BrokerOptions::default()).await;
    for (head, fits) in
        [("HTTP/1.1 200 OK\r\nContent-Length: 16777216\r\n\r\n", true), ("HTTP/1.1 200 OK\r\n\r\n", false)]
    {
        let backend = serve(stage.listen(), head.to_owned());
        let before = stage.broker.peak_kib();
        let fetches = (0..100)
            .map(|_| stage.fetch(FetchRequest { path: "/".into(), max_body_bytes: 16 << 20, ..Default::default() }));
        let all = futures_util::future::join_all(fetches);
        let told = tokio::time::timeout(Duration::from_secs(120), all).await.expect("every call is answered");
        let mut whole = 0;
        for told in told {
            match told {
                Ok(told) => {
                    assert!(fits && told.body.len() == 16 << 20);
                    whole += 1;
                }
                Err(status) => {
                    let reason = reason(&status);
                    assert!(reason == "LIMIT_REACHED" || (!fits && reason == "BODY_TOO_LARGE"), "{status:?}");
                }
            }
        }
        assert_eq!(whole > 0, fits);
        let grown = stage.broker.peak_kib() - before;
        assert!(grown < MAX_GROWTH_KIB, "it grew by {} MiB", grown >> 10);
        backend.abort();
        let _ = backend.await;
        // What was held is free again.
        let backend = serve(stage.listen(), "HTTP/1.1 200 OK\r\nContent-Length: 16777216\r\n\r\n".into());
        for _ in 0..20 {
            let request = FetchRequest { path: "/".into(), max_body_bytes: 16 << 20, ..Default::default() };
            assert_eq!(stage.fetch(request).await.unwrap().body.len(), 16 << 20);
        }
        backend.abort();
        let _ = backend.await;
    }
}

#[tokio::test]
async fn the_head_of_a_body_that_is_too_large_stays_small() {
    let stage = Stage::idle(BrokerOptions::default()).await;
    let lines: String = (0..60).map(|at| format!("X-Line-{at}: {}\r\n", "h".repeat(900))).collect();
    let backend = serve(stage.listen(), format!("HTTP/1.1 200 OK\r\nX-First: 1\r\n{lines}\r\n"));
    let request = FetchRequest { path: "/".into(), max_body_bytes: 100, ..Default::default() };
    let status = stage.fetch(request).await.unwrap_err();
    assert_eq!(reason(&status), "BODY_TOO_LARGE", "{status:?}");
    assert!(wire_bytes(&status) <= MAX_STATUS_BYTES, "{} bytes", wire_bytes(&status));
    backend.abort();
}
