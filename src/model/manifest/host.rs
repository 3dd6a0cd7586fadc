//! The `host` part: files of the image that are copied to the machine, by operating system.

use std::collections::{HashMap, hash_map::Entry};

use super::{
    host_os::HostOs,
    json::{Keys, Node, Object, Reader, shown},
    path::{ImagePath, NameFault},
};

const HOST: Keys =
    Keys { known: &["binaries", "install", "x-rd-install", "x-rd-uninstall", "x-rd-shutdown"], obsolete: &[] };
const PLATFORMS: Keys = Keys { known: &["darwin", "linux", "windows", "install"], obsolete: &[] };
const ENTRY: Keys = Keys { known: &["path", "install"], obsolete: &[] };

/// Keys under which manifests ask for commands to be run; none of them belongs to the format.
const COMMANDS: &[&str] = &["install", "x-rd-install", "x-rd-uninstall", "x-rd-shutdown"];

/// Endings of files that lie beside programs and are none: settings, libraries, modules, texts.
const DATA_ENDINGS: &[&str] = &[
    "cfg",
    "conf",
    "crt",
    "css",
    "dll",
    "dylib",
    "htm",
    "html",
    "ini",
    "jar",
    "json",
    "md",
    "pem",
    "png",
    "properties",
    "pyc",
    "pyd",
    "pyi",
    "so",
    "svg",
    "tar",
    "tgz",
    "toml",
    "txt",
    "xml",
    "yaml",
    "yml",
    "zip",
];
/// Endings that Windows can start; without one of them a file is no program there.
const WINDOWS_ENDINGS: &[&str] = &["bat", "cmd", "com", "exe", "ps1"];

/// A file or directory that is copied to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostBinary {
    /// Where it lies in the image.
    pub path: ImagePath,
    /// Its base name: what an extension calls it by.
    pub name: String,
    /// Whether it was written as a directory, with a slash at its end; the whole of it is copied.
    pub directory: bool,
    /// JSON pointer of the entry.
    pub origin: String,
}

impl HostBinary {
    /// Whether it looks like something to be run. Mode bits decide that on Unix, and are not known here: only what is
    /// data by its ending is left out.
    pub fn is_program(&self, os: HostOs) -> bool {
        let ending = self.name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
        match os {
            _ if self.directory => false,
            HostOs::Windows => WINDOWS_ENDINGS.contains(&&*ending),
            HostOs::Linux | HostOs::MacOs => !DATA_ENDINGS.contains(&&*ending),
        }
    }
}

/// What the `host` part says.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// The entries for this operating system, the first of each name.
    pub(super) binaries: Vec<HostBinary>,
    /// How many entries there are for all operating systems together.
    pub(super) declared: usize,
}

/// The paths that were met first, by folded base name.
type Names = HashMap<String, ImagePath>;

/// The file that a call by `called` means, of those with these names: the one of that name, else the one that has an
/// ending which the operating system's shell would add ([`HostOs::program_endings`]). A path means none.
pub fn find_program<'a>(names: impl Iterator<Item = &'a str> + Clone, called: &str, os: HostOs) -> Option<&'a str> {
    if called.is_empty() {
        return None;
    }
    let mut endings = std::iter::once(&"").chain(os.program_endings());
    endings.find_map(|ending| {
        let wanted = folded(&format!("{called}{ending}"), os);
        names.clone().find(|name| folded(name, os) == wanted)
    })
}

/// A base name such that equal results mean one file on that operating system.
pub(super) fn folded(name: &str, os: HostOs) -> String {
    if os.folds_case() { name.to_lowercase() } else { name.to_owned() }
}

/// Reads the `host` part. All entries are checked; those for other operating systems are not kept.
pub(super) fn read<'a>(reader: &mut Reader<'a>, node: &Node<'a>, os: HostOs) -> Host {
    let mut host = Host::default();
    let Some(object) = reader.object(node, &HOST) else { return host };
    refuse_commands(reader, &object);
    let Some(list_node) = object.get("binaries") else {
        reader.note(node, "names no `binaries`, so nothing is copied to the host");
        return host;
    };
    let Some(list) = reader.array(list_node) else { return host };
    let mut systems = Vec::new();
    let mut names = Names::new();
    for element in &list {
        read_element(reader, element, |reader, entry, entry_os| {
            host.declared += 1;
            if !systems.contains(&entry_os.key()) {
                systems.push(entry_os.key());
            }
            let binary = read_entry(reader, entry).filter(|_| entry_os == os);
            host.binaries.extend(binary.filter(|binary| is_first(reader, entry, &mut names, binary, os)));
        });
    }
    if !systems.is_empty() && !systems.contains(&os.key()) {
        reader.note(list_node, format!("holds nothing for {os}, only for {}", systems.join(" and ")));
    }
    host
}

/// Reads one object of lists by operating system and hands each entry on.
fn read_element<'a>(
    reader: &mut Reader<'a>,
    node: &Node<'a>,
    mut entry: impl FnMut(&mut Reader<'a>, &Node<'a>, HostOs),
) {
    let Some(object) = reader.object(node, &PLATFORMS) else { return };
    refuse_commands(reader, &object);
    let lists: Vec<_> = HostOs::ALL.into_iter().filter_map(|os| Some((os, object.get(os.key())?))).collect();
    if lists.is_empty() {
        // Two real extensions list a program of the machine or a path without saying for which system.
        reader.warning(node, "names no operating system (`darwin`, `linux` or `windows`), so nothing is copied");
    }
    for (os, list) in lists {
        for element in reader.array(list).unwrap_or_default() {
            entry(reader, &element, os);
        }
    }
}

/// Reads one `{"path": …}`.
fn read_entry<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<HostBinary> {
    let object = reader.object(node, &ENTRY)?;
    refuse_commands(reader, &object);
    let Some(path_node) = object.get("path") else {
        reader.error(node, "has no `path`, the file's path in the image");
        return None;
    };
    let text = reader.string(path_node)?;
    let (path, directory) = match ImagePath::read(&text) {
        Ok(read) => read,
        // A real extension names `C:\Program Files\…\docker.exe`: nothing to copy, and no reason to refuse the rest.
        Err(fault @ (NameFault::Drive | NameFault::Backslash)) => {
            reader.warning(path_node, format!("path {} {fault}; it is not copied", shown(&text)));
            return None;
        }
        Err(fault) => {
            reader.error(path_node, format!("path {} {fault}", shown(&text)));
            return None;
        }
    };
    let name = path.name().to_owned();
    if name == "any" && !directory {
        // `host.exec:any` is the grant for every program there is.
        reader.error(path_node, "a host program may not be called \"any\"; give it another name");
        return None;
    }
    Some(HostBinary { path, name, directory, origin: path_node.pointer().to_owned() })
}

/// Whether an entry is the first of its name: names are flat, an extension calls its programs by base name alone.
fn is_first(reader: &mut Reader<'_>, node: &Node<'_>, names: &mut Names, binary: &HostBinary, os: HostOs) -> bool {
    let first = match names.entry(folded(&binary.name, os)) {
        Entry::Vacant(vacant) => {
            vacant.insert(binary.path.clone());
            return true;
        }
        Entry::Occupied(occupied) => occupied.into_mut(),
    };
    if *first == binary.path {
        reader.note(node, "is listed twice");
    } else {
        let (path, first) = (shown(&binary.path.to_string()), shown(&first.to_string()));
        reader.warning(node, format!("path {path} is not copied: {first} has the same base name and comes first"));
    }
    false
}

/// Says of every command the manifest wants to have run that it is not: `install` of hist-telepresence, which asks for
/// administrator's rights, and Rancher Desktop's hooks.
fn refuse_commands(reader: &mut Reader<'_>, object: &Object<'_>) {
    for key in COMMANDS {
        if let Some(node) = object.get(key) {
            reader.warning(node, format!("{key} is ignored: the broker never runs commands out of a manifest"));
        }
    }
}
