//! The first look at a compose file, before Compose itself reads anything.

use super::{
    canonical,
    flaw::Flaw,
    refused,
    variables::{self, MAX_VARIABLES, PLUGIN_VARIABLE, Variable},
    yaml::{self, Node, Place, Value},
};
use crate::model::error::Result;

/// How many files a compose file may extend, files of files included.
const MAX_FILES: usize = 32;

/// What a compose file says before anything is resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepass {
    /// The services in the author's order.
    pub services: Vec<String>,
    /// The services whose image is `${DESKTOP_PLUGIN_IMAGE}`, in any spelling.
    pub plugin_services: Vec<String>,
    /// The host's variables that the file refers to; `HOME` and `DESKTOP_PLUGIN_IMAGE`, which are always set, left out.
    pub variables: Vec<Variable>,
    /// Files beside this one whose services it extends. They need a prepass too ([`prepass_all`] sees to it).
    pub extends: Vec<String>,
    /// All files beside this one that it names, as paths below its directory ([`prepass_all`] adds those of the files it
    /// extends).
    pub files: Vec<String>,
    /// Those of them that Compose itself reads, whole.
    pub texts: Vec<String>,
    /// What Compose must be given instead of the author's text; empty where there are flaws.
    pub canonical: String,
    /// What is wrong. A file with any of these is not given to Compose.
    pub flaws: Vec<Flaw>,
    /// What works, though perhaps not as the author thinks.
    pub warnings: Vec<String>,
}

/// A file that must be replaced by its checked form before Compose runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedFile {
    /// Path relative to the directory of the compose file.
    pub path: String,
    /// The text to put there.
    pub canonical: String,
}

/// Looks at one compose file; opens nothing.
pub fn prepass(text: &[u8]) -> Prepass {
    let mut found = Prepass::default();
    let root = match yaml::read(text) {
        Ok(root) => root,
        Err(flaw) => {
            found.flaws.push(flaw);
            return found;
        }
    };
    // Everything below walks the tree with aliases unfolded, so its bounds come first.
    match canonical::write(&root) {
        Ok(canonical) => found.canonical = canonical,
        Err(flaw) => {
            found.flaws.push(flaw);
            return found;
        }
    }
    read_services(&root, &mut found);
    let named = refused::find(&root);
    found.flaws.extend(named.flaws);
    found.files = named.files;
    found.texts = named.texts;
    found.extends = refused::extended(&root);
    read_variables(&root, &mut found);
    if !found.flaws.is_empty() {
        found.canonical.clear();
    }
    found
}

/// Looks at a compose file and at every file whose services it extends, and returns the checked texts of all of them,
/// which must be put in place of the author's before Compose runs. `read` gives a file's bytes by its path below
/// the compose file's directory.
///
/// # Errors
/// What `read` returns for the compose file itself; everything else is a flaw in the result.
pub fn prepass_all(file: &str, mut read: impl FnMut(&str) -> Result<Vec<u8>>) -> Result<(Prepass, Vec<CheckedFile>)> {
    let mut first = prepass(&read(file)?);
    let mut checked: Vec<CheckedFile> = Vec::new();
    let mut waiting = beside(file, &first.extends);
    while let Some(path) = waiting.pop() {
        if path == file || checked.iter().any(|done| done.path == path) {
            continue;
        }
        if checked.len() >= MAX_FILES {
            first.flaws.push(Flaw::of_text(format!("extends more than {MAX_FILES} files")));
            break;
        }
        let inner = match read(&path) {
            Ok(bytes) => prepass(&bytes),
            Err(error) => {
                first.flaws.push(Flaw::of_text(format!("{path}, which is extended: {error}")));
                continue;
            }
        };
        waiting.extend(beside(&path, &inner.extends));
        first.files.extend(beside(&path, &inner.files));
        first.texts.extend(beside(&path, &inner.texts));
        for variable in &inner.variables {
            variables::add(&mut first.variables, &variable.name, variable.has_default, &variable.field);
        }
        let flaws = inner.flaws.into_iter();
        first.flaws.extend(flaws.map(|flaw| Flaw { message: format!("{} (in {path})", flaw.message), ..flaw }));
        checked.push(CheckedFile { path, canonical: inner.canonical });
    }
    // A service may extend one of its own file, and Compose then reads that file from the disk.
    checked.push(CheckedFile { path: file.to_owned(), canonical: first.canonical.clone() });
    Ok((first, checked))
}

/// Paths written in `file`, relative to the directory everything is in. Those that lead out of it are left out; they
/// are flaws already.
fn beside(file: &str, names: &[String]) -> Vec<String> {
    let directory = file.rsplit_once('/').map_or("", |(directory, _)| directory);
    let join = |name: &String| {
        let parts: Vec<&str> =
            directory.split('/').chain(name.split('/')).filter(|part| !part.is_empty() && *part != ".").collect();
        parts.join("/")
    };
    names.iter().filter(|name| refused::outside(name).is_none()).map(join).collect()
}

fn read_services(root: &Node, found: &mut Prepass) {
    let Some(services) = root.get("services") else {
        found.flaws.push(Flaw::at("services", Place::default(), "is missing; it is a mapping with a service per key"));
        return;
    };
    if !matches!(services.value, Value::Map(_)) || services.entries().is_empty() {
        found.flaws.push(Flaw::at("services", services.place, "must be a mapping with at least one service"));
    }
    for (name, service) in services.entries() {
        found.services.push(name.to_owned());
        let image = service.get("image").and_then(Node::text);
        if image.is_some_and(|image| variables::is_only(image, PLUGIN_VARIABLE)) {
            found.plugin_services.push(name.to_owned());
        }
    }
    if root.get("name").is_some() {
        found.warnings.push("name: the project's name is always that of the extension; this one is not used".into());
    }
}

fn read_variables(root: &Node, found: &mut Prepass) {
    variables::gather(root, "", &mut found.variables);
    // `environment: [NAME]` and `environment: {NAME: }` pass a variable of the host on.
    for (name, service) in root.get("services").map(Node::entries).unwrap_or_default() {
        let Some(environment) = service.get("environment") else { continue };
        let field = format!("services.{name}.environment");
        for item in environment.items().iter().filter_map(|item| item.text()) {
            if !item.is_empty() && !item.contains('=') && !variables::has_reference(item) {
                variables::add(&mut found.variables, item, false, &field);
            }
        }
        for (key, _) in environment.entries().iter().filter(|(_, value)| value.is_null()) {
            variables::add(&mut found.variables, key, false, &field);
        }
    }
    for section in ["secrets", "configs"] {
        for (name, entry) in root.get(section).map(Node::entries).unwrap_or_default() {
            if let Some(variable) = entry.get("environment").and_then(Node::text) {
                variables::add(&mut found.variables, variable, false, &format!("{section}.{name}.environment"));
            }
        }
    }
    if found.variables.len() > MAX_VARIABLES {
        found.flaws.push(Flaw::of_text(format!("refers to more than {MAX_VARIABLES} variables")));
    }
}
