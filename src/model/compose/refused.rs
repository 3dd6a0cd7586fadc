//! What a compose file may not ask for, found before Compose opens anything (design section 5): Compose reads some files
//! of the host, fetches some from elsewhere and runs some programs merely to show the configuration.

use super::{
    flaw::Flaw,
    variables,
    yaml::{Node, Value},
};

/// Top-level keys that are refused, and what would be right.
pub(super) const TOP_LEVEL: [(&str, &str); 2] = [
    ("include", "other compose files are not included; put their services into this file"),
    ("models", "models need a program on the host; run the model in a service"),
];

/// Keys of a service that are refused, and what would be right.
pub(super) const OF_SERVICE: [(&str, &str); 2] = [
    ("build", "images are not built at installation; publish the image and name it under `image`"),
    ("provider", "a provider runs a program on the host; use a service with an image"),
];

/// What was found in a file.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Everything that is refused.
    pub(super) flaws: Vec<Flaw>,
    /// The files beside it that it names, as they are written.
    pub(super) files: Vec<String>,
    /// Those of them that Compose itself reads; what is mounted it does not.
    pub(super) texts: Vec<String>,
}

/// Finds everything in the file that is refused, and the files that it names.
pub(super) fn find(root: &Node) -> Found {
    let mut found = Found::default();
    for (key, value) in root.entries() {
        if let Some((_, why)) = TOP_LEVEL.iter().find(|(name, _)| *name == key) {
            found.flaws.push(Flaw::at(key, value.place, *why));
        }
    }
    for section in ["secrets", "configs"] {
        for (name, entry) in root.get(section).map(Node::entries).unwrap_or_default() {
            if let Some(file) = entry.get("file") {
                check_path(file, &format!("{section}.{name}.file"), &mut found);
            }
        }
    }
    for (name, service) in root.get("services").map(Node::entries).unwrap_or_default() {
        check_service(service, &format!("services.{name}"), &mut found);
    }
    found.files.sort();
    found.files.dedup();
    found
}

/// The files whose services are extended, as they are written.
pub(super) fn extended(root: &Node) -> Vec<String> {
    let services = root.get("services").map(Node::entries).unwrap_or_default();
    let file = |service: &Node| service.get("extends")?.get("file")?.text().map(str::to_owned);
    let mut files: Vec<String> = services.into_iter().filter_map(|(_, service)| file(service)).collect();
    files.sort();
    files.dedup();
    files
}

fn check_service(service: &Node, field: &str, found: &mut Found) {
    for (key, value) in service.entries() {
        let field = format!("{field}.{key}");
        if let Some((_, why)) = OF_SERVICE.iter().find(|(name, _)| *name == key) {
            found.flaws.push(Flaw::at(&field, value.place, *why));
        }
        match key {
            "env_file" | "label_file" => check_files(value, &field, found),
            "extends" | "credential_spec" => {
                if let Some(file) = value.get("file") {
                    check_path(file, &format!("{field}.file"), found);
                }
            }
            "develop" => {
                for watch in value.get("watch").map(Node::items).unwrap_or_default() {
                    if let Some(path) = watch.get("path") {
                        check_path(path, &format!("{field}.watch.path"), found);
                    }
                }
            }
            "security_opt" => check_profiles(value, &field, found),
            "volumes" => find_binds(value, found),
            _ => {}
        }
    }
}

/// A file name, a list of them, or a list of mappings with `path`.
fn check_files(value: &Node, field: &str, found: &mut Found) {
    match &value.value {
        Value::Scalar { .. } => check_path(value, field, found),
        Value::Map(_) => {
            if let Some(path) = value.get("path") {
                check_path(path, &format!("{field}.path"), found);
            }
        }
        Value::List(items) => {
            for (at, item) in items.iter().enumerate() {
                check_files_item(item, &format!("{field}[{at}]"), found);
            }
        }
    }
}

fn check_files_item(item: &Node, field: &str, found: &mut Found) {
    match item.get("path") {
        Some(path) => check_path(path, &format!("{field}.path"), found),
        None => check_path(item, field, found),
    }
}

/// `seccomp=<file>` makes Compose read that file.
fn check_profiles(value: &Node, field: &str, found: &mut Found) {
    for (at, item) in value.items().iter().enumerate() {
        let Some(option) = item.text() else { continue };
        let field = format!("{field}[{at}]");
        if variables::has_reference(option) {
            found.flaws.push(Flaw::at(&field, item.place, "may not hold a variable; write the option itself"));
        } else if let Some(profile) = seccomp_file(option) {
            name_file(profile, &field, item, found);
        }
    }
}

/// The file that a security option makes Compose read, if it does.
pub(super) fn seccomp_file(option: &str) -> Option<&str> {
    let (name, value) = option.split_once(['=', ':'])?;
    (name == "seccomp" && !matches!(value, "unconfined" | "builtin")).then_some(value)
}

fn check_path(node: &Node, field: &str, found: &mut Found) {
    if let Some(path) = node.text().filter(|_| !node.is_null()) {
        name_file(path, field, node, found);
    }
}

fn name_file(path: &str, field: &str, node: &Node, found: &mut Found) {
    match outside(path) {
        Some(why) => found.flaws.push(Flaw::at(field, node.place, why)),
        None => {
            if !field.starts_with("secrets.") && !field.starts_with("configs.") {
                found.texts.push(path.to_owned());
            }
            found.files.push(path.to_owned());
        }
    }
}

/// Relative binds name files beside the compose file; whether a bind is allowed is asked later.
fn find_binds(value: &Node, found: &mut Found) {
    for item in value.items() {
        let source = match item.get("source") {
            Some(source) => source.text(),
            None => item.text().and_then(|text| text.split(':').next()),
        };
        let relative = source.filter(|source| source.starts_with('.') && outside(source).is_none());
        found.files.extend(relative.map(str::to_owned));
    }
}

/// Why `path` may lie outside the directory of the compose file, if it may.
pub(super) fn outside(path: &str) -> Option<String> {
    let remote = path.contains("://")
        || path.starts_with("git@")
        || path.starts_with("github.com/")
        || path.ends_with(".git")
        || path.contains(".git#")
        || path.contains(".git:");
    let drive = path.as_bytes().get(1) == Some(&b':') && path.starts_with(|c: char| c.is_ascii_alphabetic());
    let why = if path.contains('$') {
        "holds a variable"
    } else if remote {
        "is fetched from elsewhere"
    } else if path.starts_with('~') {
        "lies in the home directory"
    } else if path.starts_with(['/', '\\']) || drive {
        "is an absolute path"
    } else if path.split(['/', '\\']).any(|part| part == "..") {
        "leads out of the compose file's directory"
    } else {
        return None;
    };
    Some(format!("{path:?} {why}; only files beside the compose file in the image can be named here"))
}
