//! Each line of what was counted in real extensions, handled on purpose; and properties of the reader.

mod host;
mod properties;
mod text;
mod ui;
mod vm;

use super::{
    HostOs, Manifest, PLUGIN_IMAGE, Parsed, Problem, SocketName, VmSource, find_program, parse, place_findings,
};
use crate::model::problem::{Severity, first_error};

/// A backend and nothing else wrong.
const VM: &str = r#""icon":"i.svg","vm":{"composefile":"c.yaml"}"#;
/// A UI and nothing else wrong.
const UI: &str = r#""icon":"i.svg","ui":{"dashboard-tab":{"title":"T","root":"ui","src":"index.html"}}"#;

fn parsed(text: &str) -> Parsed {
    parse(text.as_bytes(), HostOs::Linux)
}

fn manifest(text: &str) -> Manifest {
    let parsed = parsed(text);
    parsed.manifest.unwrap_or_else(|| panic!("{text}: {:?}", parsed.problems))
}

/// Findings as `severity pointer`, in order.
fn findings(parsed: &Parsed) -> Vec<String> {
    let name = |severity| match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    parsed.problems.iter().map(|problem| format!("{} {}", name(problem.severity), problem.field)).collect()
}

/// Asserts that reading `text` finds exactly `wanted`, and that a manifest comes out unless that holds an error.
fn finds(text: &str, wanted: &[&str]) {
    let parsed = parsed(text);
    assert_eq!(findings(&parsed), wanted, "{text}\n{:#?}", parsed.problems);
    assert_eq!(parsed.manifest.is_none(), wanted.iter().any(|finding| finding.starts_with("error")), "{text}");
}

fn tab(members: &str) -> String {
    format!(r#"{{"icon":"i.svg","ui":{{"dashboard-tab":{{{members}}}}}}}"#)
}

fn vm(members: &str) -> String {
    format!(r#"{{"icon":"i.svg","vm":{{{members}}}}}"#)
}

#[test]
fn a_usual_manifest_is_read() {
    let text = r#"{
      "icon": "docker.svg",
      "ui": {"dashboard-tab": {"title": "Hello", "root": "/ui", "src": "index.html", "backend": {"socket": "x.sock"}}},
      "vm": {"composefile": "docker-compose.yaml", "exposes": {"socket": "x.sock"}},
      "host": {"binaries": [{"darwin": [{"path": "/darwin/kubectl"}], "linux": [{"path": "/linux/kubectl"}],
                             "windows": [{"path": "/windows/kubectl.exe"}]}]}
    }"#;
    finds(text, &[]);
    let manifest = manifest(text);
    assert_eq!(manifest.icon.as_ref().unwrap().as_str(), "docker.svg");
    let ui = manifest.ui.as_ref().unwrap();
    assert_eq!((ui.title.as_str(), ui.root.as_str(), ui.entry.as_str()), ("Hello", "ui", "index.html"));
    let vm = manifest.vm.as_ref().unwrap();
    assert_eq!(vm.source, VmSource::Compose("docker-compose.yaml".parse().unwrap()));
    assert_eq!(vm.socket.as_ref().unwrap().as_str(), "x.sock");
    let [need] = &manifest.needs()[..] else { panic!("one need") };
    assert_eq!(need.grant.to_string(), "host.exec:kubectl");
    assert_eq!(need.origin, "/host/binaries/0/linux/0/path");
}

#[test]
fn unknown_and_legacy_keys_never_prevent_an_install() {
    for key in [
        "name",
        "provider",
        "description",
        "version",
        "desktop-plugin-version",
        "vendor",
        "api-version",
        "title",
        "publisher",
        "author",
        "license",
    ] {
        finds(&format!(r#"{{{VM},"{key}":"x"}}"#), &[&format!("note /{key}")]);
    }
    finds(&format!(r#"{{{VM},"capabilities":["host-networking"]}}"#), &["note /capabilities"]);
    finds(&format!(r#"{{{VM},"a/b~":{{"deep":[1,2]}},"$schema":"x"}}"#), &["note /a~1b~0"]);
    finds(&vm(r#""image":"a/b","isolation":"dockerd""#), &["note /vm/isolation"]);
    finds(
        &vm(r#""image":"a/b","exposes":{"named-pipe":"x","host-socket":"y"}"#),
        &["note /vm/exposes/named-pipe", "note /vm/exposes/host-socket"],
    );
    finds(&vm(r#""image":"a/b","composeFile":"c.yaml""#), &["warning /vm/composeFile"]);
    let name = &parsed(&format!(r#"{{{VM},"name":"x"}}"#)).problems[0];
    assert!(name.message.contains("org.opencontainers.image.title"), "{name}");
}

#[test]
fn nothing_at_all_is_an_error() {
    for text in ["{}", r#"{"icon":"i.svg"}"#, r#"{"ui":null,"vm":null,"host":null}"#, r#"{"vm":{}}"#] {
        let found = findings(&parsed(text));
        assert!(found.contains(&"error ".to_owned()), "{text}: {found:?}");
        assert!(parsed(text).manifest.is_none());
    }
    finds(&format!("{{{VM}}}"), &[]);
    finds(&format!("{{{UI}}}"), &[]);
}

#[test]
fn what_is_found_in_the_files_is_given_its_place() {
    let text =
        b"{ \"icon\": \"i.svg\",\n  \"host\": { \"binaries\": [ {},\n    { \"linux\": [ { \"path\": \"/x\" } ] } ] } }";
    let mut problems = [
        Problem::warning("", "a.label", "w"),
        Problem::error("metadata.json", "/host/binaries/1/linux/0/path", "x"),
        Problem::error("compose.yaml", "services", "y"),
        Problem::warning("metadata.json", "/icon", "z"),
        Problem::note("metadata.json", "/none", "n"),
    ];
    place_findings(&mut problems, text);
    let told: Vec<String> =
        problems.iter().map(|found| format!("{}:{}:{}", found.message, found.line, found.column)).collect();
    assert_eq!(told, ["n:0:0", "z:1:11", "x:3:28", "w:0:0", "y:0:0"]);
}
