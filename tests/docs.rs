//! What the pages under `docs` say is so: their commands exist, their links lead somewhere, their examples are files.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page, with its path relative to the repository.
fn pages() -> Vec<(PathBuf, String)> {
    let mut pages: Vec<_> = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(root()).unwrap().to_owned(), text)
        })
        .collect();
    pages.push(("README.md".into(), fs::read_to_string(root().join("README.md")).unwrap()));
    assert!(pages.len() > 8);
    pages
}

/// The commands in the shell blocks of a page, lines that go on joined.
fn commands(text: &str) -> Vec<String> {
    let blocks = text.split("\n```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    blocks.flat_map(|block| block.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn commands_of_longshore_exist_with_their_options() {
    let mut count = 0;
    for (page, text) in pages() {
        for command in commands(&text) {
            let Some(args) = command.strip_prefix("longshore ") else { continue };
            let args = args.split(" #").next().unwrap().split(" -- ").next().unwrap();
            let words = args.split_whitespace().map(|word| word.trim_matches('\''));
            let output = Command::new(env!("CARGO_BIN_EXE_longshore")).args(words).arg("--help").output().unwrap();
            assert!(output.status.success(), "{}: {command}\n{output:?}", page.display());
            count += 1;
        }
    }
    assert!(count > 15, "{count}");
}

/// The anchor of a heading, as the sites that show Markdown make it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

#[test]
fn links_lead_somewhere() {
    for (page, text) in pages() {
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|target| !target.contains("://") && !target.contains(' ')) {
            let (file, place) = target.split_once('#').unwrap_or((target, ""));
            let file =
                if file.is_empty() { root().join(&page) } else { root().join(page.parent().unwrap()).join(file) };
            assert!(file.exists(), "{}: {target}", page.display());
            if !place.is_empty() {
                let linked = fs::read_to_string(&file).unwrap();
                let mut headings = linked.lines().filter(|line| line.starts_with('#'));
                let is_there = headings.any(|line| anchor(line.trim_start_matches('#').trim()) == place);
                assert!(is_there, "{}: {target}", page.display());
            }
        }
    }
}

#[test]
fn the_readme_links_to_every_page() {
    let pages = pages();
    let (_, readme) = pages.last().unwrap();
    for (page, _) in &pages[..pages.len() - 1] {
        assert!(readme.contains(&format!("({}", page.display())), "{}", page.display());
    }
}

#[test]
fn the_example_in_rust_is_the_file_that_is_tested() {
    let page = fs::read_to_string(root().join("docs/embed-in-tauri.md")).unwrap();
    let shown = page.split_once("\n```rust\n").unwrap().1.split_once("\n```\n").unwrap().0;
    let file = fs::read_to_string(root().join("examples/rust-frontend/main.rs")).unwrap();
    assert_eq!(shown, file.trim_end());
}
