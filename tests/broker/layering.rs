//! The layers of the source: who names whom is what the picture in `docs/architecture.md` shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A module at the root of the crate, as the picture in the documentation shows it.
struct Module {
    name: String,
    /// The number of its layer, counted from above.
    layer: usize,
    /// The modules that it names besides itself.
    names: BTreeSet<String>,
}

/// Reads the picture in `docs/architecture.md`: lines of module, description and names, between rules that part layers.
fn picture() -> Vec<Module> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md")).unwrap();
    let picture = text.split_once("```text\n").unwrap().1.split_once("\n```").unwrap().0;
    let mut lines = picture.lines();
    let at = lines.next().unwrap().rsplit_once("names").unwrap().0.chars().count();
    let (mut layer, mut modules) = (0, Vec::new());
    for line in lines {
        if line.starts_with('─') {
            layer += 1;
            continue;
        }
        let (name, names) = (line.split_whitespace().next().unwrap(), line.chars().skip(at).collect::<String>());
        let names = names.split_whitespace().filter(|name| *name != "-").map(ToOwned::to_owned).collect();
        modules.push(Module { name: name.to_owned(), layer, names });
    }
    modules
}

/// A library, and the modules or files that may name it.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("bollard", &["engine"]),
    ("tonic", &["api", "backend.rs", "cli", "client", "pb.rs"]),
    ("tonic_types", &["api", "backend.rs", "cli", "client"]),
    ("tonic_health", &["api"]),
    ("tonic_reflection", &["api"]),
    ("prost", &["api", "cli"]),
    ("prost_types", &["api", "cli"]),
    ("clap", &["cli", "config/args.rs"]),
    ("clap_complete", &["cli"]),
    ("rusqlite", &["store"]),
    ("prometheus_client", &["api"]),
    ("opentelemetry", &["app", "api/trace.rs"]),
    ("opentelemetry_otlp", &["app"]),
    ("opentelemetry_sdk", &["app", "api/trace.rs"]),
    ("tracing_opentelemetry", &["app", "api/trace.rs"]),
    ("h2", &["api", "exec/tunnel", "proxy", "shim/tunnel"]),
    ("hyper", &["api", "dockerd", "engine", "proxy"]),
];

/// What `model` may not name: it opens nothing and waits for nothing.
const IMPURE: &[&str] = &["tokio", "rustix", "libc", "std::fs", "std::net", "std::os", "std::process", "std::env"];

#[test]
fn imports_are_those_of_the_picture() {
    let picture = picture();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, code) in sources() {
        let own = root_of(&file);
        let named = modules_named(&file, &code).into_iter();
        let others = named.filter(|name| *name != own && picture.iter().any(|module| module.name == *name));
        found.entry(own.clone()).or_default().extend(others);
    }
    // It holds nothing but the list of the others.
    assert_eq!(found.remove("lib"), Some(BTreeSet::new()));
    let shown: BTreeMap<_, _> = picture.iter().map(|module| (module.name.clone(), module.names.clone())).collect();
    assert_eq!(found, shown, "left: the imports; right: the picture in docs/architecture.md");
}

#[test]
fn in_the_picture_names_lead_downwards() {
    let picture = picture();
    assert!(picture.len() > 15 && picture.last().unwrap().layer > 5);
    for module in &picture {
        for name in &module.names {
            let named = picture.iter().find(|module| module.name == *name).unwrap_or_else(|| panic!("what is {name}?"));
            assert!(named.layer > module.layer, "{} names {name}, which is not below it", module.name);
        }
    }
}

#[test]
fn libraries_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        for (library, homes) in LIBRARIES {
            let is_home = homes.iter().any(|home| file.starts_with(home));
            if !is_home && names_path(&code, library) {
                wrong.push(format!("{} names {library}", file.display()));
            }
        }
        if file.starts_with("model") {
            let impure = IMPURE.iter().filter(|library| names_path(&code, library));
            wrong.extend(impure.map(|library| format!("{} names {library}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_readers_find_what_they_look_for() {
    let code = "use crate::{a::{b, c}, d, e::f}; fn x() { crate::g::h(); super::super::i::j(); super::k(); }";
    let named = modules_named(Path::new("core/deep/x.rs"), code);
    assert_eq!(named, ["a", "d", "e", "g"].map(String::from).into());
    let named = modules_named(Path::new("core/x.rs"), code);
    assert_eq!(named, ["a", "d", "e", "g", "i"].map(String::from).into());
    assert!(names_path("use std::{fs, io}; tonic::Status", "tonic"));
    assert!(names_path("use std::{io, fs};", "std::fs"));
    assert!(names_path("use std::fs;", "std::fs"));
    assert!(!names_path("use tonic_types::X; my::tonic", "tonic"));
    assert_eq!(without_comments("a // crate::b\nc"), "a \nc\n");
}

/// All files of the program, relative to `src`, without comments and without what is only for tests.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut directories = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if name != "tests" {
                    directories.push(path);
                }
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && name != "testing.rs" {
                let code = without_comments(&fs::read_to_string(&path).unwrap());
                let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
                found.push((path.strip_prefix(&root).unwrap().to_owned(), code));
            }
        }
    }
    assert!(found.len() > 100, "the sources are where they are looked for");
    found
}

fn without_comments(code: &str) -> String {
    // `//` in a text is cut as well, which hides no import.
    code.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect()
}

/// The module at the crate's root that a file belongs to.
fn root_of(file: &Path) -> String {
    let first = file.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules at the crate's root that a file names by `crate::` or enough of `super::`.
fn modules_named(file: &Path, code: &str) -> BTreeSet<String> {
    let is_mod = file.file_name().is_some_and(|name| name == "mod.rs");
    let depth = file.components().count() - usize::from(is_mod);
    let from_root = [("crate::".to_owned(), true), ("super::".repeat(depth), false), ("longshore::".to_owned(), true)];
    let mut named = BTreeSet::new();
    for (prefix, always) in from_root {
        for (at, _) in code.match_indices(&prefix) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if (before.is_alphanumeric() || before == '_' || before == ':') || (!always && depth == 0) {
                continue;
            }
            named.extend(first_names(&code[at + prefix.len()..]));
        }
    }
    named
}

/// The first name of each path that follows: of `a::b` it is `a`, of `{a::{b}, c}` they are `a` and `c`.
fn first_names(text: &str) -> Vec<String> {
    let name =
        |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = text.strip_prefix('{') else { return vec![name(text)] };
    let (mut depth, mut names, mut start) = (0_usize, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Whether code names a path such as `tonic` or `std::fs`.
fn names_path(code: &str, path: &str) -> bool {
    let (first, rest) = path.split_once("::").unwrap_or((path, ""));
    let prefix = format!("{first}::");
    code.match_indices(&prefix).any(|(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let begins = !(before.is_alphanumeric() || before == '_' || before == ':');
        begins && (rest.is_empty() || first_names(&code[at + prefix.len()..]).iter().any(|name| name == rest))
    })
}
