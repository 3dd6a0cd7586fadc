//! Each line of what was counted in real extensions, handled on purpose; and properties of the reader.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
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

/// A UI beside a list of host binaries.
fn host(binaries: &str) -> String {
    format!(r#"{{{UI},"host":{{"binaries":{binaries}}}}}"#)
}

fn paths(text: &str, os: HostOs) -> Vec<String> {
    let parsed = parse(text.as_bytes(), os);
    let manifest = parsed.manifest.unwrap_or_else(|| panic!("{text}: {:?}", parsed.problems));
    manifest.binaries.iter().map(|binary| binary.path.to_string()).collect()
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
    assert_eq!(vm.source, Source::Compose("docker-compose.yaml".parse().unwrap()));
    assert_eq!(vm.socket.as_ref().unwrap().as_str(), "x.sock");
    let [need] = &manifest.needs()[..] else { panic!("one need") };
    assert_eq!(need.grant.to_string(), "host.exec:kubectl");
    assert_eq!(need.origin, "/host/binaries/0/linux/0/path");
}

#[test]
fn titles_are_trimmed_and_kept() {
    for (title, wanted) in [("Open Horizon ", "Open Horizon"), ("Logs & Traces", "Logs & Traces"), ("X's", "X's")] {
        let text = tab(&format!(r#""title":"{title}","root":"ui","src":"index.html""#));
        finds(&text, &[]);
        assert_eq!(manifest(&text).ui.unwrap().title, wanted);
    }
    finds(&tab(r#""root":"ui","src":"a.html""#), &["warning /ui/dashboard-tab"]);
    finds(&tab(r#""title":" ","root":"ui","src":"a.html""#), &["warning /ui/dashboard-tab/title"]);
}

#[test]
fn roots_are_alike_with_and_without_a_slash() {
    for (root, wanted) in [
        ("ui", "ui"),
        ("/ui", "ui"),
        ("/client", "client"),
        ("build", "build"),
        ("/swagger-editor", "swagger-editor"),
        ("./plugin-ui/", "plugin-ui"),
    ] {
        let text = tab(&format!(r#""title":"T","root":"{root}","src":"index.html""#));
        finds(&text, &[]);
        assert_eq!(manifest(&text).ui.unwrap().root.as_str(), wanted, "{root}");
    }
    for root in ["..", "/a/../b", "/", r"C:\\ui", "http://localhost:3000"] {
        let text = tab(&format!(r#""title":"T","root":"{root}","src":"index.html""#));
        finds(&text, &["error /ui/dashboard-tab/root"]);
    }
}

#[test]
fn a_tab_without_a_root_is_left_out() {
    let text = format!(r#"{{{VM},"ui":{{"dashboard-tab":{{"title":"T","src":"index.html"}}}}}}"#);
    finds(&text, &["warning /ui/dashboard-tab"]);
    assert_eq!(manifest(&text).ui, None);
    finds(&tab(r#""title":"T","root":"","src":"a""#), &["error ", "warning /ui/dashboard-tab/root"]);
    finds(&format!(r#"{{{VM},"ui":{{}}}}"#), &["warning /ui"]);
}

#[test]
fn entries_lose_their_lead_and_keep_their_query() {
    for (src, entry, file) in [
        ("index.html", "index.html", "index.html"),
        ("/index.html", "index.html", "index.html"),
        ("./v2/index.html", "v2/index.html", "v2/index.html"),
        ("index.html?v0.4.0", "index.html?v0.4.0", "index.html"),
        ("/a.html?next=../x#/route", "a.html?next=../x#/route", "a.html"),
    ] {
        let text = tab(&format!(r#""title":"T","root":"ui","src":"{src}""#));
        finds(&text, &[]);
        let ui = manifest(&text).ui.unwrap();
        assert_eq!((ui.entry.as_str(), ui.entry_file()), (entry, file), "{src}");
    }
    for src in ["../index.html", "http://localhost:3000/", "v2/", r"a\\b.html", "a?\\u0000"] {
        let text = tab(&format!(r#""title":"T","root":"ui","src":"{src}""#));
        finds(&text, &["error /ui/dashboard-tab/src"]);
    }
}

#[test]
fn a_missing_entry_is_index_html() {
    for (src, entry, place) in [
        ("", "index.html", "warning /ui/dashboard-tab"),
        (r#","src":"""#, "index.html", "warning /ui/dashboard-tab/src"),
        (r#","src":null"#, "index.html", "warning /ui/dashboard-tab"),
        (r#","src":"?a=1""#, "index.html?a=1", "warning /ui/dashboard-tab/src"),
    ] {
        let text = tab(&format!(r#""title":"T","root":"ui"{src}"#));
        finds(&text, &[place]);
        assert_eq!(manifest(&text).ui.unwrap().entry, entry);
    }
}

#[test]
fn the_icon_may_be_missing_but_not_wrong() {
    let ui = r#""ui":{"dashboard-tab":{"title":"T","root":"ui","src":"index.html"}}"#;
    for (icon, wanted) in [
        (r#""icon":"icon.svg","#, None),
        (r#""icon":"/public/icon.png","#, None),
        ("", Some("warning ")),
        (r#""icon":"","#, Some("warning /icon")),
        (r#""icon":null,"#, Some("warning ")),
        (r#""icon":"icons/","#, Some("warning /icon")),
        (r#""icon":"https://example.com/i.svg","#, Some("warning /icon")),
        (r#""icon":"../../etc/passwd","#, Some("error /icon")),
        (r#""icon":["a.svg"],"#, Some("error /icon")),
    ] {
        finds(&format!("{{{icon}{ui}}}"), wanted.as_slice());
    }
    finds(r#"{"vm":{"image":"a/b"}}"#, &["note "]);
}

#[test]
fn compose_files_lie_anywhere_in_the_image() {
    for path in ["docker-compose.yaml", "docker-compose.yml", "compose.yaml", "vm/extension-compose.yml", "/c.yml"] {
        let text = vm(&format!(r#""composefile":"{path}""#));
        finds(&text, &[]);
        let Source::Compose(read) = manifest(&text).vm.unwrap().source else { panic!("{path}") };
        assert_eq!(read.as_str(), path.trim_start_matches('/'));
    }
    for path in ["../c.yaml", "vm/", "/", r"vm\\c.yaml"] {
        finds(&vm(&format!(r#""composefile":"{path}""#)), &["error /vm/composefile"]);
    }
}

#[test]
fn images_are_the_own_one_or_any_reference() {
    for (image, wanted) in [
        ("${DESKTOP_PLUGIN_IMAGE}", PLUGIN_IMAGE),
        ("$DESKTOP_PLUGIN_IMAGE", PLUGIN_IMAGE),
        ("ghcr.io/org/name:1.0", "ghcr.io/org/name:1.0"),
        ("redis", "redis"),
    ] {
        let text = vm(&format!(r#""image":"{image}""#));
        finds(&text, &[]);
        assert_eq!(manifest(&text).vm.unwrap().source, Source::Image(wanted.into()));
    }
    for image in ["${OTHER}", "${DESKTOP_PLUGIN_IMAGE}:2", "Not An Image", "-x"] {
        finds(&vm(&format!(r#""image":"{image}""#)), &["error /vm/image"]);
    }
}

#[test]
fn the_compose_file_wins_over_the_image() {
    let text = vm(r#""image":"${DESKTOP_PLUGIN_IMAGE}","composefile":"c.yaml""#);
    finds(&text, &["warning /vm/image"]);
    assert_eq!(manifest(&text).vm.unwrap().source, Source::Compose("c.yaml".parse().unwrap()));
    finds(&vm(r#""image":"A B","composefile":"c.yaml""#), &["error /vm/image"]);
}

#[test]
fn an_empty_vm_is_no_backend() {
    for vm in ["{}", r#"{"exposes":{"socket":"a.sock"}}"#, r#"{"image":"","composefile":""}"#] {
        let text = format!(r#"{{{UI},"vm":{vm}}}"#);
        finds(&text, &["warning /vm"]);
        assert_eq!(manifest(&text).vm, None);
    }
    let text = format!(r#"{{{UI},"vm":null}}"#);
    finds(&text, &[]);
    assert_eq!(manifest(&text).vm, None);
}

#[test]
fn sockets_are_bare_names() {
    for socket in ["backend.sock", "docker.sock", "extension-LocalStack.sock"] {
        let text = vm(&format!(r#""composefile":"c.yaml","exposes":{{"socket":"{socket}"}}"#));
        finds(&text, &[]);
        assert_eq!(manifest(&text).vm.unwrap().socket.unwrap().as_str(), socket);
    }
    for socket in ["/run/guest-services/a.sock", "a/b", ".", "..", "a\\u0000b", &"a".repeat(101)] {
        let text = vm(&format!(r#""composefile":"c.yaml","exposes":{{"socket":"{socket}"}}"#));
        finds(&text, &["error /vm/exposes/socket"]);
    }
    for exposes in ["{}", "null", r#"{"socket":""}"#, r#"{"socket":null}"#] {
        let text = vm(&format!(r#""composefile":"c.yaml","exposes":{exposes}"#));
        finds(&text, &[]);
        assert_eq!(manifest(&text).vm.unwrap().socket, None);
    }
}

#[test]
fn the_tabs_socket_stands_in_for_a_missing_one() {
    let with = |vm: &str, backend: &str| {
        format!(
            r#"{{"icon":"i.svg","ui":{{"dashboard-tab":{{"title":"T","root":"ui","src":"a.html","backend":{backend}}}}}{vm}}}"#
        )
    };
    let place = "/ui/dashboard-tab/backend/socket";
    let (bare, exposing) = (r#","vm":{"image":"a/b"}"#, r#","vm":{"image":"a/b","exposes":{"socket":"vm.sock"}}"#);
    for (vm, backend, found, socket) in [
        (exposing, r#"{"socket":"vm.sock"}"#, None, Some("vm.sock")),
        (exposing, r#"{"socket":"other.sock"}"#, Some("warning"), Some("vm.sock")),
        (exposing, r#"{"socket":"a/b"}"#, Some("warning"), Some("vm.sock")),
        (exposing, r#"{"socket":""}"#, None, Some("vm.sock")),
        (bare, r#"{"socket":"tab.sock"}"#, Some("note"), Some("tab.sock")),
        (bare, r#"{"socket":"../tab.sock"}"#, Some("error"), None),
        (bare, "{}", None, None),
        ("", r#"{"socket":"tab.sock"}"#, Some("note"), None),
        (r#","vm":null"#, r#"{"socket":"tab.sock"}"#, Some("note"), None),
    ] {
        let text = with(vm, backend);
        let found: Vec<String> = found.map(|severity| format!("{severity} {place}")).into_iter().collect();
        finds(&text, &found.iter().map(String::as_str).collect::<Vec<_>>());
        let read = parsed(&text).manifest.and_then(|manifest| manifest.vm).and_then(|vm| vm.socket);
        assert_eq!(read.as_ref().map(SocketName::as_str), socket, "{text}");
    }
    finds(&with(r#","vm":{}"#, r#"{"socket":"tab.sock"}"#), &[&format!("note {place}"), "warning /vm"]);
    finds(&with(bare, r#"{"tcp":"9000"}"#), &["warning /ui/dashboard-tab/backend/tcp"]);
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
fn host_binaries_may_be_empty() {
    for binaries in ["[]", "null"] {
        assert_eq!(paths(&host(binaries), HostOs::Linux), Vec::<String>::new());
    }
    finds(&host("[]"), &[]);
    finds(&format!(r#"{{{UI},"host":{{}}}}"#), &["note /host"]);
    finds(&host(r#"[{"linux":[]}]"#), &[]);
}

#[test]
fn host_binaries_are_those_of_this_system() {
    let text = host(
        r#"[{"darwin":[{"path":"/host/unix/x.sh"}],"linux":[{"path":"/host/unix/x.sh"}],
             "windows":[{"path":"/windows/x.cmd"},{"path":"/windows/lib/"}]},
            {"linux":[{"path":"tools/linux/y"}]}, {"windows":[{"path":"/windows/z.exe"}]}]"#,
    );
    finds(&text, &[]);
    assert_eq!(paths(&text, HostOs::Linux), ["/host/unix/x.sh", "/tools/linux/y"]);
    assert_eq!(paths(&text, HostOs::MacOs), ["/host/unix/x.sh"]);
    assert_eq!(paths(&text, HostOs::Windows), ["/windows/x.cmd", "/windows/lib", "/windows/z.exe"]);
}

#[test]
fn eight_objects_are_merged() {
    let objects: Vec<String> = (0..8)
        .map(|i| format!(r#"{{"linux":[{{"path":"/linux/b{i}"}}],"windows":[{{"path":"/w/b{i}.exe"}}]}}"#))
        .collect();
    let text = host(&format!("[{}]", objects.join(",")));
    finds(&text, &[]);
    assert_eq!(paths(&text, HostOs::Linux).len(), 8);
}

#[test]
fn paths_of_another_system_or_processor_are_taken_as_written() {
    let text = host(
        r#"[{"darwin":[{"path":"/dive/linux/arm64/launchdive"}],"linux":[{"path":"/windows/okteto-extension"},
             {"path":"/host/linux-amd64/x"},{"path":"/usr/bin/docker"}]}]"#,
    );
    finds(&text, &[]);
    assert_eq!(paths(&text, HostOs::Linux), ["/windows/okteto-extension", "/host/linux-amd64/x", "/usr/bin/docker"]);
}

#[test]
fn nothing_for_this_system_is_noted() {
    let text = host(r#"[{"darwin":[{"path":"/d/x"}],"windows":[{"path":"/w/x.exe"}]}]"#);
    finds(&text, &["note /host/binaries"]);
    assert!(parsed(&text).problems[0].message.contains("only for darwin and windows"));
    assert_eq!(paths(&text, HostOs::Linux), Vec::<String>::new());
    let alone = r#"{"icon":"i.svg","host":{"binaries":[{"windows":[{"path":"/w/x.exe"}]}]}}"#;
    finds(alone, &["note /host/binaries"]);
}

#[test]
fn entries_without_a_system_copy_nothing() {
    for entry in [r#"{"name":"docker","cmd":"docker"}"#, r#"{"path":"/usr/bin/kubectl"}"#, "{}"] {
        let parsed = parsed(&host(&format!("[{entry}]")));
        let warned = |finding: &String| finding == "warning /host/binaries/0";
        assert!(findings(&parsed).iter().any(warned), "{entry}: {:?}", parsed.problems);
        assert_eq!(parsed.manifest.unwrap().binaries, []);
    }
}

#[test]
fn paths_of_a_windows_machine_are_left_out() {
    let entry = r#"[{"windows":[{"path":"C:\\Program Files\\Docker\\docker.exe"},{"path":"bin\\x.exe"},
                    {"path":"/w/y.exe"}]}]"#;
    let (one, two) = ("warning /host/binaries/0/windows/0/path", "warning /host/binaries/0/windows/1/path");
    finds(&host(entry), &["note /host/binaries", one, two]);
    assert_eq!(paths(&host(entry), HostOs::Windows), ["/w/y.exe"]);
}

#[test]
fn install_commands_are_never_run() {
    let install = r#"{"command":"brew install x","requiresAdmin":true}"#;
    for (text, place) in [
        (format!(r#"{{{UI},"host":{{"binaries":[],"install":{install}}}}}"#), "/host/install"),
        (format!(r#"{{{UI},"host":{{"binaries":[],"x-rd-install":{{"linux":"x"}}}}}}"#), "/host/x-rd-install"),
        (host(&format!(r#"[{{"linux":[{{"path":"/x"}}],"install":{install}}}]"#)), "/host/binaries/0/install"),
        (host(&format!(r#"[{{"linux":[{{"path":"/x","install":{install}}}]}}]"#)), "/host/binaries/0/linux/0/install"),
    ] {
        finds(&text, &[&format!("warning {place}")]);
    }
}

#[test]
fn a_base_name_belongs_to_the_first() {
    let entries = r#"[{"linux":[{"path":"/a/__init__.py"},{"path":"/b/__init__.py"},{"path":"/c/__pycache__/"},
                     {"path":"/d/__pycache__/"},{"path":"a/__init__.py"},{"path":"/a/X"},{"path":"/a/x"}]}]"#;
    finds(
        &host(entries),
        &["warning /host/binaries/0/linux/1", "warning /host/binaries/0/linux/3", "note /host/binaries/0/linux/4"],
    );
    assert_eq!(paths(&host(entries), HostOs::Linux), ["/a/__init__.py", "/c/__pycache__", "/a/X", "/a/x"]);
    assert_eq!(
        paths(&host(&entries.replace("linux", "windows")), HostOs::Windows),
        ["/a/__init__.py", "/c/__pycache__", "/a/X"]
    );
}

#[test]
fn host_entries_that_are_wrong_name_their_place() {
    for (binaries, wanted) in [
        (r#"[{"linux":[{"path":"../x"}]}]"#, "error /host/binaries/0/linux/0/path"),
        (r#"[{"windows":[{"path":"/a/../x"}]}]"#, "error /host/binaries/0/windows/0/path"),
        (r#"[{"linux":[{"path":""}]}]"#, "error /host/binaries/0/linux/0/path"),
        (r#"[{"linux":[{"path":"/"}]}]"#, "error /host/binaries/0/linux/0/path"),
        (r#"[{"linux":[{"path":7}]}]"#, "error /host/binaries/0/linux/0/path"),
        (r#"[{"linux":[{"path":"/bin/any"}]}]"#, "error /host/binaries/0/linux/0/path"),
        (r#"[{"linux":[{}]}]"#, "error /host/binaries/0/linux/0"),
        (r#"[{"linux":["/x"]}]"#, "error /host/binaries/0/linux/0"),
        (r#"[{"linux":"/x"}]"#, "error /host/binaries/0/linux"),
        (r#"["/x"]"#, "error /host/binaries/0"),
        (r#"{"linux":[{"path":"/x"}]}"#, "error /host/binaries"),
    ] {
        let found = findings(&parsed(&host(binaries)));
        assert!(found.contains(&wanted.to_owned()), "{binaries}: {found:?}");
    }
}

#[test]
fn data_and_directories_need_no_grant() {
    let text = host(
        r#"[{"linux":[{"path":"/l/run.sh"},{"path":"/l/application.properties"},{"path":"/l/lib/"},
             {"path":"/l/tool-v0.4.0"}],
             "windows":[{"path":"/w/run.cmd"},{"path":"/w/readme"},{"path":"/w/a.ps1"},{"path":"/w/x.DLL"}]}]"#,
    );
    let needs = |os| -> Vec<String> {
        let needs = parse(text.as_bytes(), os).manifest.unwrap().needs();
        needs.iter().map(|need| need.grant.to_string()).collect()
    };
    assert_eq!(needs(HostOs::Linux), ["host.exec:run.sh", "host.exec:tool-v0.4.0"]);
    assert_eq!(needs(HostOs::Windows), ["host.exec:run.cmd", "host.exec:a.ps1"]);
    assert_eq!(paths(&text, HostOs::Linux).len(), 4);
}

#[test]
fn programs_are_found_without_their_ending() {
    let text = host(
        r#"[{"linux":[{"path":"/l/send-payload.sh"},{"path":"/l/both"},{"path":"/l/both.sh"},{"path":"/l/dir/"}],
             "windows":[{"path":"/w/send-payload.bat"},{"path":"/w/Tool.EXE"},{"path":"/w/tool.cmd"}]}]"#,
    );
    let find = |os, name: &str| {
        let manifest = parse(text.as_bytes(), os).manifest.unwrap();
        manifest.find_binary(name).map(|binary| binary.name.clone())
    };
    for (os, called, found) in [
        (HostOs::Linux, "send-payload", Some("send-payload.sh")),
        (HostOs::Linux, "send-payload.sh", Some("send-payload.sh")),
        (HostOs::Linux, "both", Some("both")),
        (HostOs::Linux, "Both", None),
        (HostOs::Linux, "dir", None),
        (HostOs::Linux, "kubectl", None),
        (HostOs::Linux, "", None),
        (HostOs::Linux, "l/both", None),
        (HostOs::Windows, "send-payload", Some("send-payload.bat")),
        (HostOs::Windows, "tool", Some("Tool.EXE")),
    ] {
        assert_eq!(find(os, called).as_deref(), found, "{os} {called}");
    }
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
fn wrong_types_are_named_with_their_place() {
    for (text, place) in [
        ("[]", "error "),
        ("null", "error "),
        ("7", "error "),
        (r#"{"ui":[]}"#, "error /ui"),
        (r#"{"ui":{"dashboard-tab":"x"}}"#, "error /ui/dashboard-tab"),
        (r#"{"vm":true}"#, "error /vm"),
        (r#"{"vm":{"image":1}}"#, "error /vm/image"),
        (r#"{"vm":{"composefile":["c"]}}"#, "error /vm/composefile"),
        (r#"{"vm":{"image":"a/b","exposes":"x.sock"}}"#, "error /vm/exposes"),
        (r#"{"host":[]}"#, "error /host"),
        (r#"{"vm":{"image":"\ud800"}}"#, "error /vm/image"),
    ] {
        let found = findings(&parsed(text));
        assert!(found.contains(&place.to_owned()), "{text}: {found:?}");
    }
}

#[test]
fn every_problem_is_found_at_once_with_its_place() {
    let text = "{\n  \"icon\": 1,\r\n  \"ui\": {\"dashboard-tab\": {\"title\": \"ü\", \"root\": \"..\"}},\n\
                \t\"vm\": {\"image\": \"\"\n}, \"vm\":\n{\"image\": \"A\"}\n}";
    let parsed = parsed(text);
    let places: Vec<_> =
        parsed.problems.iter().map(|problem| (problem.line, problem.column, problem.field.as_str())).collect();
    assert_eq!(
        places,
        [
            (2, 11, "/icon"),
            (3, 27, "/ui/dashboard-tab"),
            (3, 51, "/ui/dashboard-tab/root"),
            (6, 1, "/vm"),
            (6, 11, "/vm/image")
        ]
    );
    let error = first_error(&parsed.problems).unwrap();
    assert_eq!(error.message(), "metadata.json:2:11: /icon: must be a string, not a number (and 2 more errors)");
}

#[test]
fn duplicate_keys_are_told_and_the_last_counts() {
    let text = format!(r#"{{{VM},"icon":"second.svg"}}"#);
    finds(&text, &["warning /icon"]);
    assert_eq!(manifest(&text).icon.unwrap().as_str(), "second.svg");
}

#[test]
fn the_json_is_strict_but_for_a_byte_order_mark() {
    let good = format!("{{{UI}}}");
    for text in [good.clone(), format!("\u{feff}{good}"), good.replace(',', ",\r\n"), format!("{good}\r\n\n")] {
        assert_eq!(manifest(&text), manifest(&good));
    }
    for (text, line, column) in [
        ("", 1, 1),
        ("{\n  \"a\": 1,\n}", 3, 1),
        ("{ // comment\n}", 1, 3),
        ("{'a': 1}", 1, 2),
        ("{\"a\": 01}", 1, 8),
        ("{} {}", 1, 4),
        ("{\"a\": \"\n\"}", 1, 7),
    ] {
        let parsed = parsed(text);
        let [problem] = &parsed.problems[..] else { panic!("{text:?}: {:?}", parsed.problems) };
        assert!(parsed.manifest.is_none() && problem.is_error());
        assert_eq!((problem.line, problem.column), (line, column), "{text:?}: {problem}");
        assert!(problem.message.starts_with("is not valid JSON: "), "{problem}");
    }
    let bad = parse(b"{\n \"a\": \"\xff\"}", HostOs::Linux);
    assert_eq!(bad.problems[0].to_string(), "metadata.json:2:8: is not UTF-8 text");
}

#[test]
fn hostile_sizes_are_bounded() {
    let large = vec![b' '; (1 << 20) + 1];
    assert!(parse(&large, HostOs::Linux).problems[0].message.contains("at most 1048576"));
    assert!(parse(&vec![b'['; 1 << 20], HostOs::Linux).manifest.is_none());
    let deep = format!("{{{VM},\"x\":{}{}}}", "[".repeat(400_000), "]".repeat(400_000));
    finds(&deep, &["note /x"]);
    let keys: Vec<String> = (0..50_000).map(|i| format!("\"k{i}\":0")).collect();
    let many = parsed(&format!("{{{VM},{}}}", keys.join(",")));
    assert!(many.manifest.is_some() && many.problems.len() == 1000);
    let many = parsed(&format!("{{{VM},{},\"host\":7}}", keys.join(",")));
    assert!(many.manifest.is_none() && many.problems.len() == 1000);
    let long = parsed(&format!("{{{VM},\"{}\":0}}", "k".repeat(100_000)));
    assert!(long.problems[0].to_string().len() < 400);
}

#[test]
fn messages_hold_no_control_characters() {
    let text = format!(r#"{{{VM},"\u001b[2J":0,"icon":"\u001b]0;x\u0007"}}"#);
    let parsed = parsed(&text);
    assert_eq!(parsed.problems.len(), 3);
    for problem in &parsed.problems {
        assert!(!problem.to_string().contains(char::is_control), "{problem:?}");
    }
}

/// JSON that is made of a manifest's keys, in places where they belong and where they do not.
fn manifest_like() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[a-z./?\\\\:$ -]{0,12}",
        Just("${DESKTOP_PLUGIN_IMAGE}".to_owned()),
        Just("index.html?v0.4.0".to_owned()),
        Just("backend.sock".to_owned()),
    ];
    let key = prop::sample::select(vec![
        "icon",
        "ui",
        "vm",
        "host",
        "dashboard-tab",
        "title",
        "root",
        "src",
        "backend",
        "socket",
        "tcp",
        "image",
        "composefile",
        "exposes",
        "binaries",
        "darwin",
        "linux",
        "windows",
        "path",
        "install",
        "name",
        "Image",
        "x/y~z",
    ]);
    let leaf = prop_oneof![
        4 => text.prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

/// Manifests whose parts are right or nearly so.
fn nearly_right() -> impl Strategy<Value = Value> {
    let path = "/?[a-z]{1,6}(/[a-z]{1,4}){0,2}/?";
    let entries = || prop::collection::vec(path.prop_map(|path| json!({"path": path})), 0..4);
    let host = (entries(), entries()).prop_map(|(l, w)| json!({"binaries": [{"linux": l, "windows": w}]}));
    let tab = (path, "[ a-z&']{0,8}", "[a-z]{1,5}\\.html(\\?[a-z]{1,3})?")
        .prop_map(|(root, title, src)| json!({"dashboard-tab": {"root": root, "title": title, "src": src}}));
    let vm = ("[a-z]{1,5}\\.yaml", prop::option::of("[a-zA-Z.-]{1,9}"))
        .prop_map(|(file, socket)| json!({"composefile": file, "exposes": {"socket": socket}}));
    (prop::option::of(tab), prop::option::of(vm), prop::option::of(host), prop::option::of(path))
        .prop_map(|(ui, vm, host, icon)| json!({"icon": icon, "ui": ui, "vm": vm, "host": host}))
}

/// What holds for every text: a manifest exactly when there is no error, and places that exist.
fn check_invariants(parsed: &Parsed, text: &str) {
    assert_eq!(parsed.manifest.is_none(), parsed.problems.iter().any(Problem::is_error), "{parsed:?}");
    let value: Option<Value> = serde_json::from_str(text).ok();
    for problem in &parsed.problems {
        let line = text.split('\n').nth(problem.line as usize - 1).unwrap_or_else(|| panic!("{problem:?}"));
        assert!((1..=line.len() + 1).contains(&(problem.column as usize)), "{problem:?} in {line:?}");
        assert!(value.as_ref().is_none_or(|value| value.pointer(&problem.field).is_some()), "{problem:?} in {text}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes, HostOs::Linux);
    }

    #[test]
    fn no_text_of_json_marks_panics(text in "[\\[\\]{}:,\" \\n\\\\u0-9a-d]{0,60}") {
        let _ = parsed(&text);
    }

    #[test]
    fn every_problem_has_a_place(value in manifest_like(), os in prop::sample::select(HostOs::ALL.to_vec())) {
        let text = serde_json::to_string_pretty(&value).unwrap();
        check_invariants(&parse(text.as_bytes(), os), &text);
    }

    #[test]
    fn layout_changes_nothing(value in nearly_right(), os in prop::sample::select(HostOs::ALL.to_vec())) {
        let text = value.to_string();
        let parsed = parse(text.as_bytes(), os);
        check_invariants(&parsed, &text);
        let pretty = format!("\u{feff}{}\r\n", serde_json::to_string_pretty(&value).unwrap().replace('\n', "\r\n"));
        prop_assert_eq!(parse(pretty.as_bytes(), os).manifest, parsed.manifest);
    }

    #[test]
    fn kept_paths_never_lead_astray(value in nearly_right()) {
        if let Some(manifest) = parsed(&value.to_string()).manifest {
            let mut names: Vec<_> = manifest.binaries.iter().map(|binary| &binary.name).collect();
            prop_assert!(manifest.binaries.iter().all(|binary| binary.path.name() == binary.name));
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), manifest.binaries.len());
        }
    }
}
