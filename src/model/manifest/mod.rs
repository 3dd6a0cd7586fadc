//! `metadata.json`: what an extension consists of.
//!
//! The format is Docker Desktop's. Where its documentation is silent, the 146 extensions that were counted decide:
//! what one of them contains works or is a problem that names the field. Unknown keys never prevent an install.

mod host;
mod host_os;
mod json;
pub mod labels;
mod path;
mod ui;
mod vm;

#[cfg(test)]
mod tests;

pub use self::{
    host::{HostBinary, find_program},
    host_os::HostOs,
    json::{FILE, MAX_BYTES},
    path::{ImagePath, NameFault, SocketName},
    ui::Ui,
    vm::{PLUGIN_IMAGE, Vm, VmSource},
};

use self::json::{Keys, Node, Object, Reader};
use super::{
    grant::{Grant, Need},
    problem::Problem,
};

/// Keys of the file's root. The obsolete ones were counted in real extensions; labels and the tag took their place.
const ROOT: Keys = Keys {
    known: &["icon", "ui", "vm", "host"],
    obsolete: &[
        ("name", "the label org.opencontainers.image.title holds it"),
        ("title", "the label org.opencontainers.image.title holds it"),
        ("provider", "the label org.opencontainers.image.vendor holds it"),
        ("vendor", "the label org.opencontainers.image.vendor holds it"),
        ("publisher", "the label org.opencontainers.image.vendor holds it"),
        ("author", "the label org.opencontainers.image.vendor holds it"),
        ("description", "the label org.opencontainers.image.description holds it"),
        ("license", "the label org.opencontainers.image.licenses holds it"),
        ("version", "the image's tag is the version"),
        ("desktop-plugin-version", "the label com.docker.desktop.extension.api.version holds it"),
        ("api-version", "the label com.docker.desktop.extension.api.version holds it"),
        ("capabilities", "what the containers may do is written in the compose file"),
    ],
};

/// What an extension consists of, as far as it concerns this operating system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Icon file.
    pub icon: Option<ImagePath>,
    /// The UI part.
    pub ui: Option<Ui>,
    /// The backend.
    pub vm: Option<Vm>,
    /// Files to copy to the host; no two have the same name.
    pub binaries: Vec<HostBinary>,
    /// The operating system it was read for.
    pub os: HostOs,
}

/// The outcome of reading a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The manifest; `None` exactly when one of the problems is an error.
    pub manifest: Option<Manifest>,
    /// What is sound of one with errors: nothing to install, but enough to look for what else is wrong.
    pub remains: Option<Manifest>,
    /// Everything that is wrong or worth knowing, in the order of the file.
    pub problems: Vec<Problem>,
}

/// Reads `metadata.json` for one operating system: strict JSON of at most 1 MiB, a byte order mark allowed.
pub fn parse(bytes: &[u8], os: HostOs) -> Parsed {
    let (mut reader, root) = match Reader::open(bytes) {
        Ok(opened) => opened,
        Err(problem) => return Parsed { manifest: None, remains: None, problems: vec![problem] },
    };
    let read = read(&mut reader, &root, os);
    let (manifest, remains) = if reader.has_errors() { (None, read) } else { (read, None) };
    Parsed { manifest, remains, problems: reader.finish() }
}

/// Fills in line and column of findings about `metadata.json` that name a field and no place, and puts all findings about
/// it first, in the order of the file.
pub fn place_findings(problems: &mut [Problem], text: &[u8]) {
    for problem in problems.iter_mut().filter(|problem| problem.file == FILE && problem.line == 0) {
        (problem.line, problem.column) = json::place_of(text, &problem.field).unwrap_or_default();
    }
    problems.sort_by_key(|problem| match problem.file.as_str() {
        FILE => (false, problem.line, problem.column),
        _ => (true, 0, 0),
    });
}

fn read<'a>(reader: &mut Reader<'a>, root: &Node<'a>, os: HostOs) -> Option<Manifest> {
    let object = reader.object(root, &ROOT)?;
    let tab = object.get("ui").map(|node| ui::read(reader, node)).unwrap_or_default();
    let vm = vm::read(reader, object.get("vm"), tab.socket.as_ref());
    let host = object.get("host").map(|node| host::read(reader, node, os)).unwrap_or_default();
    let icon = read_icon(reader, root, &object, tab.ui.is_some());
    if tab.ui.is_none() && vm.is_none() && host.declared == 0 && !reader.has_errors() {
        reader.error(root, "holds nothing to install: it needs a usable `ui`, `vm` or `host` part");
    }
    Some(Manifest { icon, ui: tab.ui, vm, binaries: host.binaries, os })
}

/// Ten real extensions have no icon, so it is never more than a warning that there is none.
fn read_icon<'a>(reader: &mut Reader<'a>, root: &Node<'a>, object: &Object<'a>, has_ui: bool) -> Option<ImagePath> {
    let node = object.get("icon");
    let text = match node {
        Some(node) => reader.string(node)?,
        None => String::new(),
    };
    let node = node.unwrap_or(root);
    match ImagePath::read(&text) {
        Ok((path, false)) => Some(path),
        Ok((_, true)) => {
            reader.warning(node, "icon is a directory; it is ignored");
            None
        }
        Err(NameFault::Empty) if has_ui => {
            reader.warning(node, "has no `icon`, the path of an SVG or PNG file in the image");
            None
        }
        Err(NameFault::Empty) => {
            reader.note(node, "has no `icon`, the path of an SVG or PNG file in the image");
            None
        }
        Err(NameFault::Url) => {
            reader.warning(node, "icon is a URL; it is ignored: the icon must be a file in the image");
            None
        }
        Err(fault) => {
            reader.error(node, format!("icon {} {fault}", json::shown(&text)));
            None
        }
    }
}

impl Manifest {
    /// The grants that its host programs need, one for each.
    pub fn needs(&self) -> Vec<Need> {
        let programs = self.binaries.iter().filter(|binary| binary.is_program(self.os));
        programs
            .map(|binary| Need { grant: Grant::HostExec(binary.name.clone()), origin: binary.origin.clone() })
            .collect()
    }
}
