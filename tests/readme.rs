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
