//! Tests of the prepass: one line per trap of a real extension or of an attacker.

use proptest::prelude::*;

use super::prepass::*;
use crate::model::error::{Error, Reason};

fn look(text: &str) -> Prepass {
    prepass(text.as_bytes())
}

/// The fields of the flaws of a service `a` with these lines.
fn refused(lines: &str) -> Vec<String> {
    let text = format!("services:\n  a:\n    image: x\n    {}\n", lines.replace('\n', "\n    "));
    look(&text).flaws.into_iter().map(|flaw| flaw.field).collect()
}

#[test]
fn services_keep_the_authors_order() {
    let found = look(
        "services:\n  zoo: {image: \"${DESKTOP_PLUGIN_IMAGE}\"}\n  b: {image: $DESKTOP_PLUGIN_IMAGE}\n  a: {image: x}\n",
    );
    assert_eq!(found.services, ["zoo", "b", "a"]);
    assert_eq!(found.plugin_services, ["zoo", "b"]);
    assert!(found.flaws.is_empty() && found.variables.is_empty());
}

#[test]
fn an_anchored_image_is_seen() {
    let found = look("x-p: &p {image: '${DESKTOP_PLUGIN_IMAGE}'}\nservices:\n  a:\n    <<: *p\n");
    assert_eq!(found.plugin_services, ["a"]);
    let found = look("x-p: &p {build: .}\nservices:\n  a:\n    image: x\n    <<: *p\n");
    assert_eq!(found.flaws[0].field, "services.a.build");
}

#[test]
fn what_opens_or_runs_something_on_the_host_is_refused() {
    for (lines, field) in [
        ("build: ./open-webui-proxy", "services.a.build"),
        ("build: {context: .}", "services.a.build"),
        ("provider: {type: model}", "services.a.provider"),
        ("env_file: ~/workspace/docker/.env", "services.a.env_file"),
        ("env_file: /etc/passwd", "services.a.env_file"),
        ("env_file: ../x", "services.a.env_file"),
        ("env_file: a/../../x", "services.a.env_file"),
        ("env_file: ${HOME}/x", "services.a.env_file"),
        ("env_file: 'C:\\x'", "services.a.env_file"),
        ("env_file: [ok.env, /etc/passwd]", "services.a.env_file[1]"),
        ("env_file: [{path: /etc/passwd, required: false}]", "services.a.env_file[0].path"),
        ("label_file: /etc/passwd", "services.a.label_file"),
        ("extends: {file: /etc/passwd, service: x}", "services.a.extends.file"),
        ("extends: {file: 'https://github.com/a/b.git', service: x}", "services.a.extends.file"),
        ("extends: {file: 'git@github.com:a/b', service: x}", "services.a.extends.file"),
        ("extends: {file: 'oci://x/y', service: x}", "services.a.extends.file"),
        ("extends: {file: github.com/a/b, service: x}", "services.a.extends.file"),
        ("credential_spec: {file: /etc/passwd}", "services.a.credential_spec.file"),
        ("security_opt: ['seccomp:/etc/passwd']", "services.a.security_opt[0]"),
        ("security_opt: ['seccomp=${X}']", "services.a.security_opt[0]"),
        ("develop: {watch: [{path: /etc, action: sync}]}", "services.a.develop.watch.path"),
    ] {
        assert_eq!(refused(lines), [field], "{lines}");
    }
    for lines in [
        "env_file: my.env",
        "env_file: ./sub/.env",
        "env_file: [{path: my.env}]",
        "extends: {service: b}",
        "extends: b",
        "security_opt: [seccomp=unconfined, 'seccomp:profile.json', no-new-privileges]",
    ] {
        assert!(refused(lines).is_empty(), "{lines}: {:?}", refused(lines));
    }
}

#[test]
fn what_is_refused_at_the_top_names_its_place() {
    for (line, field) in [
        ("include: [other.yaml]", "include"),
        ("include: [{path: 'oci://x'}]", "include"),
        ("models: {m: {model: x}}", "models"),
        ("secrets: {s: {file: ~/.ssh/id_rsa}}", "secrets.s.file"),
        ("configs: {c: {file: /etc/shadow}}", "configs.c.file"),
    ] {
        let found = look(&format!("services: {{a: {{image: x}}}}\n{line}\n"));
        assert_eq!(found.flaws[0].field, field);
        assert_eq!(found.flaws[0].line, 2);
        assert!(found.canonical.is_empty());
    }
    let found = look("services:\n  a:\n    env_file: ~/workspace/docker/.env\n");
    assert_eq!((found.flaws[0].field.as_str(), found.flaws[0].line), ("services.a.env_file", 3));
}

#[test]
fn broken_files_are_problems() {
    for text in
        ["", "a: [", "- a", "services:", "services: []", "services: {}", "services:\n a: {}\n a: {}\n", "version: 3"]
    {
        assert!(!look(text).flaws.is_empty(), "{text:?}");
    }
    assert!(look("\u{feff}services:\r\n  a:\r\n    image: x\r\n").flaws.is_empty());
}

#[test]
fn variables_are_found_wherever_they_are() {
    let found = look(
        "services:\n  a:\n    image: ${OPEN_WEBUI_IMAGE:-x@sha256:12}\n    command: \"$$A ${B} $HOME\"\n    \
             environment: [PASSED, 'C=${C-1}', D=]\n    volumes: ['${B:-/x}:/x']\n  b:\n    image: x\n    environment: \
             {E: , F: ''}\nsecrets: {s: {environment: G}}\n",
    );
    let seen: Vec<_> = found.variables.iter().map(|v| (v.name.as_str(), v.has_default, v.field.as_str())).collect();
    assert_eq!(
        seen,
        [
            ("OPEN_WEBUI_IMAGE", true, "services.a.image"),
            ("B", false, "services.a.command"),
            ("C", true, "services.a.environment"),
            ("PASSED", false, "services.a.environment"),
            ("E", false, "services.b.environment"),
            ("G", false, "secrets.s.environment"),
        ]
    );
}

#[test]
fn extended_files_are_looked_at_too() {
    let files = |path: &str| match path {
        "vm/compose.yaml" => Ok(b"services: {a: {extends: {file: sub/base.yaml, service: b}}}".to_vec()),
        "vm/sub/base.yaml" => {
            Ok(b"services: {b: {build: ., image: '$X', extends: {file: base.yaml, service: c}}}".to_vec())
        }
        other => Err(Error::new(Reason::FileFailed, other, "no such file")),
    };
    let (found, checked) = prepass_all("vm/compose.yaml", files).unwrap();
    // Compose reads nothing that was not looked at: also the file itself is put in its place.
    let paths: Vec<&str> = checked.iter().map(|file| &*file.path).collect();
    assert_eq!(paths, ["vm/sub/base.yaml", "vm/compose.yaml"]);
    assert_eq!(found.flaws[0].field, "services.b.build");
    assert!(found.flaws[0].message.contains("vm/sub/base.yaml"));
    assert_eq!(found.variables[0].name, "X");
    let missing = |path: &str| match path {
        "c.yaml" => Ok(b"services: {a: {extends: {file: no.yaml, service: b}}}".to_vec()),
        other => Err(Error::new(Reason::FileFailed, other, "no such file")),
    };
    assert!(prepass_all("c.yaml", missing).unwrap().0.flaws[0].message.contains("no such file"));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prepass(&bytes);
    }

    #[test]
    fn no_yaml_panics_and_what_is_written_reads_the_same(
        text in "(services|a|x-y|env_file|<<|\\$\\{A\\}|&a|\\*a|!reset|: |- |\\{|\\}|\\[|\\]|,|\n|  |'|\"|#|~|\u{85}|\u{2028}|1){0,60}"
    ) {
        let found = prepass(text.as_bytes());
        if found.flaws.is_empty() {
            let again = prepass(found.canonical.as_bytes());
            prop_assert_eq!(again, found);
        }
    }
}

/// What grows with the square of a file, or worse, would not end before the test is killed.
#[test]
fn large_files_are_looked_at_in_linear_time() {
    let merges: String = (1..20_000).map(|at| format!("a{at}: &a{at} {{<<: *a{}}}\n", at - 1)).collect();
    assert!(look(&format!("a0: &a0 {{}}\n{merges}")).flaws[0].message.contains("deep"));
    let merges: String = (0..20_000).map(|at| format!("a{at}: &a{at} {{b: 1}}\n")).collect();
    let all: String = (0..20_000).map(|at| format!("*a{at},")).collect();
    assert!(look(&format!("{merges}z: {{<<: [{all}]}}\n")).flaws[0].message.contains("unfold"));
    look(&format!("x: &x [{}]\nservices: {{a: [{}]}}", "y,".repeat(100_000), "*x,".repeat(100_000)));
    look(&"${A}".repeat(200_000));
    look(&"${".repeat(400_000));
    look(&(0..90_000).map(|at| format!("- $V{at}\n")).collect::<String>());
}
