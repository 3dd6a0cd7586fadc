//! Host binaries.

use super::*;

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
        let files = manifest.binaries.iter().filter(|binary| !binary.directory);
        find_program(files.map(|binary| binary.name.as_str()), name, os).map(str::to_owned)
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
