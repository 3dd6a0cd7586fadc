//! What holds for every text.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

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
