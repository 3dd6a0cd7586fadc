//! The README says what is so: its examples are the files under `examples`, and its table names every setting.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The text of the one fenced block of that language.
fn block<'a>(readme: &'a str, language: &str) -> &'a str {
    let (_, rest) = readme.split_once(&format!("\n```{language}\n")).unwrap();
    rest.split_once("\n```\n").unwrap().0
}

#[test]
fn its_examples_are_those_that_are_tested() {
    let readme = read("README.md");
    for (language, path) in [
        ("javascript", "examples/first-call/node/first-call.js"),
        ("python", "examples/first-call/python/first_call.py"),
        ("js", "examples/first-call/node/talk.js"),
    ] {
        assert_eq!(block(&readme, language), read(path).trim_end(), "the README differs from {path}");
    }
}

#[test]
fn the_example_configuration_has_every_key_with_its_default() {
    use std::collections::{BTreeMap, BTreeSet};

    use longshore::config::{ServeArgs, keys, resolve, resolve::Machine};

    let example = read("deploy/config.toml");
    // A key that is commented out has no blank before it; what is said of one has.
    let is_key = |line: &str| line.starts_with('#') && line.as_bytes().get(1).is_some_and(u8::is_ascii_lowercase);
    let active: String = example.lines().map(|line| line[usize::from(is_key(line))..].to_owned() + "\n").collect();
    let (mut table, mut named) = ("", BTreeSet::new());
    for line in active.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        match (line.strip_prefix('['), line.split_once(" = ")) {
            (Some(name), _) => table = name.trim_end_matches(']'),
            (None, Some((key, _))) if table.is_empty() => _ = named.insert(key.to_owned()),
            (None, Some((key, _))) => _ = named.insert(format!("{table}.{key}")),
            (None, None) => panic!("{line}"),
        }
    }
    assert_eq!(named, keys().collect());

    let env = BTreeMap::from([("HOME", "/home/me"), ("XDG_RUNTIME_DIR", "/run/user/1000")]);
    let env = env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let no_context = |_: &Path, _: &str| Err("there is none".to_owned());
    let machine = Machine {
        uid: 1000,
        temp_dir: "/tmp".into(),
        exists: &|_| false,
        passwd: String::new(),
        group: "longshore:x:990:".into(),
        context: &no_context,
    };
    let load = |content: &str| {
        let file = Some(("/config.toml".into(), content.to_owned()));
        resolve(&ServeArgs::default(), &env, file, &machine).unwrap()
    };
    let mut with = load(&active);
    // These have no default that could be written.
    assert!(with.idle_timeout.take().is_some() && with.total_timeout.take().is_some());
    assert!(with.metrics_socket.take().is_some() && with.otlp_endpoint.take().is_some());
    with.engine_origin = "default".into();
    let without = load(&example);
    assert_eq!(with, without);
}

#[test]
fn its_table_names_every_setting() {
    let readme = read("README.md");
    for variable in longshore::config::resolve::VARIABLES {
        assert!(readme.contains(&format!("`{variable}`")), "{variable}");
    }
    let named = readme.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").nth(1));
    for variable in named.filter_map(|cell| cell.strip_prefix("`LONGSHORE_")?.strip_suffix('`')) {
        let variable = format!("LONGSHORE_{variable}");
        assert!(longshore::config::resolve::VARIABLES.contains(&variable.as_str()), "{variable}");
    }
}
