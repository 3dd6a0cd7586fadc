//! The backend.

use super::*;

#[test]
fn compose_files_lie_anywhere_in_the_image() {
    for path in ["docker-compose.yaml", "docker-compose.yml", "compose.yaml", "vm/extension-compose.yml", "/c.yml"] {
        let text = vm(&format!(r#""composefile":"{path}""#));
        finds(&text, &[]);
        let VmSource::Compose(read) = manifest(&text).vm.unwrap().source else { panic!("{path}") };
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
        assert_eq!(manifest(&text).vm.unwrap().source, VmSource::Image(wanted.into()));
    }
    for image in ["${OTHER}", "${DESKTOP_PLUGIN_IMAGE}:2", "Not An Image", "-x"] {
        finds(&vm(&format!(r#""image":"{image}""#)), &["error /vm/image"]);
    }
}

#[test]
fn the_compose_file_wins_over_the_image() {
    let text = vm(r#""image":"${DESKTOP_PLUGIN_IMAGE}","composefile":"c.yaml""#);
    finds(&text, &["warning /vm/image"]);
    assert_eq!(manifest(&text).vm.unwrap().source, VmSource::Compose("c.yaml".parse().unwrap()));
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
