//! Who is not let in, and what is not carried.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use longshore::pb;

use super::stage;
use crate::support::{BrokerOptions, Image, Stage, as_both, docker};

as_both!(
    what_is_not_granted_is_refused_and_ends,
    a_disabled_extension_is_refused,
    strangers_are_refused,
    nothing_goes_by_unstamped,
    too_much_is_refused,
    an_engine_that_is_away_is_told,
);

async fn set_grants(stage: &Stage, allow: &[&str]) {
    let allow = allow.iter().map(ToString::to_string).collect();
    let request = pb::GrantServiceSetRequest { extension: stage.id(), allow, ..Default::default() };
    stage.broker.grants().await.set(request).await.unwrap();
}

async fn what_is_not_granted_is_refused_and_ends(options: BrokerOptions) {
    let stage = stage(options).await;
    let name = stage.name("held");
    stage.says(&["run", "-d", "--name", &name, &stage.image.reference, "sleep", "1000"]);
    let mut held = stage.docker(&["wait", &name]).spawn().unwrap();
    let mut idle = UnixStream::connect(stage.gateway()).unwrap();
    assert!(ask(&mut idle, "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").starts_with("HTTP/1.1 200"));
    set_grants(&stage, &["host.exec:any"]).await;
    assert!(!held.wait().unwrap().success(), "an open stream ends");
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0, "an idle connection ends");
    let told = stage.complains(&["ps"]);
    assert!(told.contains("engine.full"), "{told}");
    set_grants(&stage, &["engine.full"]).await;
    stage.says(&["rm", "-f", &name]);
}

async fn a_disabled_extension_is_refused(options: BrokerOptions) {
    let stage = stage(options).await;
    let id = stage.id();
    let mut idle = UnixStream::connect(stage.gateway()).unwrap();
    assert!(ask(&mut idle, "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").starts_with("HTTP/1.1 200"));
    stage.broker.extensions().await.disable(pb::DisableRequest { extension: id.clone() }).await.unwrap();
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0);
    assert!(stage.complains(&["ps"]).contains("is disabled"));
    stage.broker.extensions().await.enable(pb::EnableRequest { extension: id }).await.unwrap();
    stage.says(&["ps"]);
}

async fn strangers_are_refused(options: BrokerOptions) {
    let stage = stage(options).await;
    let image = Image::builder().busybox().file("client", super::inside::client(), 0o755).build().await;
    let dir = stage.gateway().parent().unwrap().display().to_string();
    let ping = "printf 'GET /_ping HTTP/1.1\\r\\nHost: d\\r\\nConnection: close\\r\\n\\r\\n' | /client /x/docker.sock";
    let bind = format!("{dir}:/x:ro");
    // A container that the extension did not make, with the machine's processes in sight or not.
    for pid in ["", "host"] {
        let run = ["run", "--rm", "--pid", pid, "-v", &bind, "--network", "none", &image.reference];
        let told = docker(&[&run[..], &["busybox", "sh", "-c", ping]].concat());
        assert!(told.contains("403 Forbidden") && told.contains("another's container"), "{told}");
    }
    // One that bears the extension's name, as anybody can have it.
    let label = format!("dev.longshore.extension={}", stage.id());
    let told = docker(&["run", "--rm", "--label", &label, "-v", &bind, &image.reference, "busybox", "sh", "-c", ping]);
    assert!(told.contains("403 Forbidden"), "{told}");
    // The same made by the extension is let in.
    let told = stage.says(&["run", "--rm", "-v", &bind, &image.reference, "busybox", "sh", "-c", ping]);
    assert!(told.contains("200 OK"), "{told}");
}

async fn nothing_goes_by_unstamped(options: BrokerOptions) {
    let stage = stage(options).await;
    let image = &stage.image.reference;
    let body = |labels: &str| {
        format!(r#"{{"Image":"{image}","LABELS":{{{labels}}},"labelſ":{{"dev.longshore.extension":"x/y"}}}}"#)
    };
    let create = |path: &str, name: &str| {
        let body = body(r#""dev.longshore.nonce":"x""#);
        format!(
            "POST {path}?name={name} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let owned = |name: &str| super::labels("container", name)["dev.longshore.extension"] == stage.id();
    // On a connection that carried other things before, all at once.
    let names: Vec<String> = (0..4).map(|_| stage.name("raw")).collect();
    let mut stream = UnixStream::connect(stage.gateway()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n";
    let upload = "POST /nothing HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let pipelined = [
        head,
        &create("/v1.41/containers/create", &names[0]),
        upload,
        &create("/containers/%63reate", &names[1]),
        &create("//containers/create", &names[2]),
    ];
    stream.write_all(pipelined.concat().as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 201").count(), 2, "{answers}");
    assert!(owned(&names[0]) && owned(&names[1]));
    // In chunks, and asking first.
    let mut stream = UnixStream::connect(stage.gateway()).unwrap();
    let head = "POST /containers/create?name=".to_owned()
        + &names[3]
        + " HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
    assert!(ask(&mut stream, &head).starts_with("HTTP/1.1 100"));
    let body = body("");
    let answer = ask(&mut stream, &format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(owned(&names[3]));
    // Heads that two readers could take for different things.
    for head in [
        "POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET /_ping HTTP/1.1\nHost: d\n\n\r\n\r\n",
        "GET http://d/containers/create HTTP/1.1\r\nHost: d\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /info HTTP/1.1\r\nHost: d\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\n",
        "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n[]",
    ] {
        let answer = ask(&mut UnixStream::connect(stage.gateway()).unwrap(), head);
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("\"message\":\"longshore: "), "{head} {answer}");
    }
    for name in &names {
        let _ = std::process::Command::new("docker").args(["rm", "-f", name]).output();
    }
}

async fn too_much_is_refused(options: BrokerOptions) {
    let stage = stage(options).await;
    let answer = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(stage.gateway()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The other side may be done before all is said.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let huge = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(1 << 20));
    assert!(answer(huge.as_bytes()).starts_with("HTTP/1.1 400"));
    let head = "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 9000000\r\n\r\n";
    assert!(answer(&[head.as_bytes(), &vec![b' '; 9_000_000]].concat()).starts_with("HTTP/1.1 413"));
    let begun = std::time::Instant::now();
    assert!(answer(b"GET / HTTP/1.1\r\nA").starts_with("HTTP/1.1 408"), "a head that does not go on");
    assert!(begun.elapsed() < Duration::from_secs(19));
    // Far more connections than there may be: what is beyond is told, and when they go others come.
    let before = stage.broker.resident_kib();
    let mut all: Vec<UnixStream> = Vec::new();
    for _ in 0..700 {
        all.push(UnixStream::connect(stage.gateway()).unwrap());
    }
    let told = all.iter().filter(|stream| {
        let mut stream = *stream;
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).is_ok() && answer == *b"HTTP/1.1 503"
    });
    assert_eq!(told.count(), 700 - longshore::gateway::MAX_CONNECTIONS);
    let grown = stage.broker.resident_kib().saturating_sub(before);
    assert!(grown < 12 << 10, "{grown} KiB");
    drop(all);
    for attempt in 0.. {
        if stage.docker(&["ps"]).output().unwrap().status.success() {
            break;
        }
        assert!(attempt < 100, "others come when they go");
    }
}

async fn an_engine_that_is_away_is_told(options: BrokerOptions) {
    // A name of our own for the engine's socket, which can go.
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = dir.path().join("engine.sock");
    std::os::unix::fs::symlink("/var/run/docker.sock", &path).unwrap();
    let args = vec!["--engine".into(), format!("unix://{}", path.display()).into()];
    let stage = stage(BrokerOptions { args, ..options }).await;
    stage.says(&["ps"]);
    let mut held = UnixStream::connect(stage.gateway()).unwrap();
    assert!(ask(&mut held, "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").starts_with("HTTP/1.1 200"));
    std::fs::remove_file(&path).unwrap();
    let told = stage.complains(&["ps"]);
    assert!(told.contains("the engine does not answer"), "{told}");
    std::os::unix::fs::symlink("/var/run/docker.sock", &path).unwrap();
    stage.says(&["ps"]);
}

/// Sends bytes and reads what comes at once.
/// Asks, and reads the head of the answer and as much behind it as its length says.
fn ask(stream: &mut UnixStream, text: &str) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut piece).unwrap();
        answer.extend_from_slice(&piece[..read]);
        let told = String::from_utf8_lossy(&answer).into_owned();
        if read == 0 || told.split_once("\r\n\r\n").is_some_and(|(head, body)| body.len() >= length(head)) {
            return told;
        }
    }
}

/// The length that a head gives.
fn length(head: &str) -> usize {
    let given =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
    given.map_or(0, |length| length.trim().parse().unwrap())
}
