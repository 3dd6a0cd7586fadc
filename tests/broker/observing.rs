//! What the broker tells of itself: log lines that say whose call they belong to, and metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use longshore::pb::{self, ExecTarget};
use serde_json::Value;
use tempfile::TempDir;
use tonic::{Code, Request};

use crate::{
    first_call::{clients, hello_extension},
    support::{Broker, BrokerOptions, Stage, eventually, local, shell, started},
};

/// Where a broker tells its metrics.
pub(crate) struct Metrics(TempDir);

impl Metrics {
    pub(crate) fn new() -> Metrics {
        Metrics(tempfile::tempdir().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("run/metrics.sock")
    }

    pub(crate) fn options(&self) -> BrokerOptions {
        let args = vec!["--metrics-socket".into(), self.socket().into()];
        BrokerOptions { args, ..BrokerOptions::default() }
    }

    /// What curl reads there, as an operator does.
    fn read(&self, path: &str) -> (String, String) {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code} %{content_type}"]);
        curl.arg("--unix-socket").arg(self.socket()).arg(format!("http://localhost{path}"));
        let output = curl.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, told) = text.rsplit_once('\n').unwrap();
        (body.to_owned(), told.to_owned())
    }

    /// The samples, as Prometheus's own library for Python reads them, by name and labels.
    pub(crate) fn samples(&self) -> Samples {
        let (text, told) = self.read("/metrics");
        assert_eq!(told, "200 application/openmetrics-text; version=1.0.0; charset=utf-8");
        let mut reader = Command::new(clients().join("bin/python"));
        reader.args(["-c", READER]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut reader = reader.spawn().unwrap();
        reader.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = reader.wait_with_output().unwrap();
        assert!(output.status.success(), "it cannot be read:\n{text}");
        let lines = String::from_utf8(output.stdout).unwrap();
        Samples(lines.lines().map(|line| serde_json::from_str::<(String, f64)>(line).unwrap()).collect())
    }
}

const READER: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read
for family in read(sys.stdin.read()):
    for sample in family.samples:
        labels = ','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))
        print(json.dumps([sample.name + '{' + labels + '}', sample.value]))
";

#[derive(Debug)]
pub(crate) struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// One that is not told counts as 0.
    pub(crate) fn of(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }
}

/// The names of metrics as they are told, and as the table in the documentation lists them.
fn names(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let full = |(name, of): (&str, &str)| match of {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name.to_owned(),
    };
    types.map(full).collect()
}

fn listed(heading: &str) -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/observability.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    cells.map(|(name, _)| name.to_owned()).collect()
}

#[tokio::test]
async fn metrics_agree_with_what_was_done() {
    let metrics = Metrics::new();
    let stage = Stage::install(hello_extension(), metrics.options()).await;
    let broker = &stage.broker;
    let directory = local(broker).await;
    let before = metrics.samples();
    for _ in 0..3 {
        assert_eq!(broker.get(&stage.id(), "/hello").await.unwrap().status, 200);
    }
    let missing = broker.get("longshore-test/not-there", "/").await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let mut run = broker.start_program(shell(&directory, ExecTarget::Host, "exec sleep 60")).await;
    started(&mut run).await;
    let watching = broker.events().await.watch(pb::EventServiceWatchRequest::default()).await.unwrap();
    let open = pb::OpenRequest { extension: directory.clone() };
    let mut session = broker.sessions().await.open(open).await.unwrap().into_inner();
    session.message().await.unwrap();

    let during = metrics.samples();
    let more = |name: &str| during.of(name) - before.of(name);
    let fetched = "method=longshore.v1.BackendService/Fetch";
    assert_eq!(more(&format!("longshore_calls_total{{code=OK,{fetched}}}")), 3.0, "{during:#?}");
    assert_eq!(more(&format!("longshore_calls_total{{code=NOT_FOUND,{fetched}}}")), 1.0);
    assert_eq!(more(&format!("longshore_call_duration_seconds_count{{{fetched}}}")), 4.0);
    assert!(more(&format!("longshore_call_duration_seconds_sum{{{fetched}}}")) > 0.0);
    assert!(more("longshore_backend_sent_bytes_total{}") > 100.0, "{during:#?}");
    assert!(more("longshore_backend_received_bytes_total{}") > 100.0, "{during:#?}");
    assert_eq!((more("longshore_execs_started_total{}"), during.of("longshore_execs_living{}")), (1.0, 1.0));
    assert_eq!((during.of("longshore_event_watchers{}"), during.of("longshore_sessions{}")), (1.0, 1.0));
    assert_eq!(during.of("longshore_calls_in_flight{}"), 3.0, "the run, the watch and the session");
    assert_eq!(during.of("longshore_extensions{state=READY}"), 2.0);
    assert_eq!(during.of("longshore_extensions{state=FAILED}"), 0.0);
    assert_eq!(during.of("longshore_engine_present{}"), 1.0);
    assert!(during.of("longshore_store_write_seconds_count{}") > 0.0);
    assert!(during.of("longshore_reconciler_looks_total{}") > 0.0);
    assert_eq!(during.of("longshore_held_limit_bytes{}"), f64::from(256 << 20));
    assert_eq!(during.of(concat!("longshore_build_info{version=", env!("CARGO_PKG_VERSION"), "}")), 1.0);
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).unwrap().count() as f64;
    assert!((during.of("process_open_fds{}") - descriptors).abs() <= 8.0, "{descriptors}");
    assert!(during.of("process_resident_memory_bytes{}") > 1e6);

    // A connection waits for the next call, but not for long.
    eventually(|| async {
        broker.get(&stage.id(), "/hello").await.unwrap();
        (metrics.samples().of("longshore_backend_connections{}") == 1.0).then_some(())
    })
    .await;

    drop((run, watching, session));
    eventually(|| async {
        let after = metrics.samples();
        let cancelled = "longshore_calls_total{code=CANCELLED,method=longshore.v1.ExecService/Run}";
        let is_over = after.of("longshore_execs_living{}") == 0.0
            && after.of("longshore_execs_ended_total{}") == 1.0
            && after.of(cancelled) == 1.0
            && after.of("longshore_event_watchers{}") + after.of("longshore_sessions{}") == 0.0;
        is_over.then_some(())
    })
    .await;
    assert_eq!(metrics.samples().of("longshore_exec_survivors_total{}"), 0.0);
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_metric_is_told() {
    let metrics = Metrics::new();
    let _broker = Broker::start_with(metrics.options()).await;
    assert_eq!(names(&metrics.read("/metrics").0), listed("Metrics"));
}

#[tokio::test]
async fn metrics_are_for_the_user_alone_and_go_with_the_broker() {
    let metrics = Metrics::new();
    let mut broker = Broker::start_with(metrics.options()).await;
    let socket = metrics.socket();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    assert_eq!(metrics.read("/").1, "404 text/plain; charset=utf-8");
    // A program of an extension has the user's rights, and is refused all the same.
    let script = format!("curl -s -w ' %{{http_code}}' --unix-socket {} http://localhost/metrics", socket.display());
    let extension = local(&broker).await;
    let said = broker.run(shell(&extension, ExecTarget::Host, &script)).await.text();
    assert_eq!(said, "metrics are for the user of this broker\n 403");
    // Readers that say nothing hold up neither others nor the end.
    let silent: Vec<_> = (0..4).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    assert!(metrics.read("/metrics").1.starts_with("200 "));
    assert!(broker.stop().await.success());
    assert!(!socket.exists());
    drop(silent);
}

/// The lines of a log in JSON that belong to a call.
fn of_call(broker: &Broker, id: &str) -> Vec<Value> {
    let (log, id) = (broker.log(), id.parse::<u64>().unwrap());
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["span"]["call"] == id).collect()
}

pub(crate) fn call_id(metadata: &tonic::metadata::MetadataMap) -> Option<String> {
    Some(metadata.get("longshore-call-id")?.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn what_is_logged_of_a_call_bears_the_id_that_its_caller_is_told() {
    // With all that the libraries log as well.
    let args = ["--log-format", "json", "--log", "trace"].map(Into::into).to_vec();
    let stage = Stage::install(hello_extension(), BrokerOptions { args, ..Default::default() }).await;
    let (broker, extension) = (&stage.broker, stage.id());
    let open = pb::OpenRequest { extension: extension.clone() };
    let mut stream = broker.sessions().await.open(open).await.unwrap().into_inner();
    let session = stream.message().await.unwrap().unwrap();
    let content = Some(pb::header::Content::Value("a-secret-header".into()));
    let headers = vec![pb::Header { name: "x-secret".into(), content }];
    let body = b"a-secret-body".to_vec().into();
    let fetch = pb::FetchRequest { path: "/echo".into(), method: "POST".into(), headers, body, ..Default::default() };
    let mut request = Request::new(fetch);
    request.metadata_mut().insert("longshore-session", session.token.parse().unwrap());
    let answer = broker.backends().await.fetch(request).await.unwrap();
    let id = call_id(answer.metadata()).expect("a call that is logged says its id");
    let is_end = |line: &Value| line["fields"]["message"] == "the call ended";
    let ended = eventually(|| async { of_call(broker, &id).into_iter().find(is_end) }).await;
    let uid = rustix::process::geteuid().as_raw();
    assert!(ended["fields"]["took_ms"].as_f64().unwrap() > 0.0);
    let span = &ended["span"];
    for (field, value) in [
        ("name", "call".into()),
        ("method", "longshore.v1.BackendService/Fetch".into()),
        ("extension", extension.clone().into()),
        ("session", session.session_id.clone().into()),
        ("uid", Value::from(uid)),
        ("code", "OK".into()),
    ] {
        assert_eq!(span[field], value, "{field} of {span}");
    }
    for secret in [&*session.token, "a-secret-header", "a-secret-body"] {
        assert!(!broker.log().contains(secret), "{secret:?} is logged");
    }

    // What goes on behind a call belongs to it.
    let request = pb::UninstallRequest { extension: extension.clone(), volumes: true };
    let removed = broker.extensions().await.uninstall(request).await.unwrap();
    let id = call_id(removed.metadata()).unwrap();
    let lines = of_call(broker, &id);
    let line = lines.iter().find(|line| line["fields"]["message"] == "uninstalled").expect("it is logged");
    assert_eq!(line["span"]["extension"], extension.as_str());
    let fields: BTreeSet<String> = span.as_object().unwrap().keys().filter(|name| *name != "name").cloned().collect();
    assert_eq!(fields, listed("Fields of a call"));
}

#[tokio::test]
async fn ids_are_told_where_something_is_logged_or_fails() {
    let env = vec![("LONGSHORE_LOG".to_owned(), "info".to_owned())];
    let stage = Stage::install(hello_extension(), BrokerOptions { env, ..Default::default() }).await;
    let (broker, extension) = (&stage.broker, stage.id());
    let fetch = |extension: &str| pb::FetchRequest {
        extension: extension.to_owned(),
        path: "/hello".into(),
        ..Default::default()
    };
    let mut backends = broker.backends().await;
    let answer = backends.fetch(fetch(&extension)).await.unwrap();
    assert_eq!(call_id(answer.metadata()), None, "nothing is logged of a call to a backend that goes well");
    let failed = backends.fetch(fetch("longshore-test/not-there")).await.unwrap_err();
    let first: u64 = call_id(failed.metadata()).expect("a failure says its id").parse().unwrap();
    let request = pb::StreamRequest { part: Some(pb::stream_request::Part::Head(Default::default())) };
    let mut streamed = backends.stream(tokio_stream::iter([request])).await.unwrap().into_inner();
    let failed = streamed.message().await.unwrap_err();
    let second: u64 = call_id(failed.metadata()).expect("so does one in a stream").parse().unwrap();
    assert!(second > first);
    let listed = broker.extensions().await.list(pb::ExtensionServiceListRequest::default()).await.unwrap();
    assert!(call_id(listed.metadata()).is_some());
    broker.uninstall(&extension, true).await.unwrap();
    let line = broker.log().lines().find(|line| line.contains("uninstalled")).map(ToOwned::to_owned);
    let line = line.expect("it is logged as text");
    let method = "method=\"longshore.v1.ExtensionService/Uninstall\"";
    assert!(line.contains("call{call=") && line.contains(method), "{line}");
    assert!(line.contains(&format!("extension=\"{extension}\"")), "{line}");
}
