//! The `vm` part: where the backend's containers come from, and the socket they listen on.

use super::{
    json::{Keys, Node, Object, Reader, shown},
    path::{ImagePath, NameFault, SocketName},
};
use crate::model::reference::Reference;

/// Stands for the extension's own image in `vm.image` and in compose files.
pub const PLUGIN_IMAGE: &str = "${DESKTOP_PLUGIN_IMAGE}";

const VM: Keys = Keys {
    known: &["image", "composefile", "exposes"],
    obsolete: &[("isolation", "Docker Desktop removed it in 2021")],
};
const EXPOSES: Keys = Keys {
    known: &["socket"],
    obsolete: &[
        ("host-socket", "Docker Desktop removed it in 2021; name the socket in `socket`"),
        ("named-pipe", "Docker Desktop removed it in 2021; name the socket in `socket`"),
    ],
};

/// The backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// What its containers are made from.
    pub source: VmSource,
    /// Socket that it exposes in the guest directory.
    pub socket: Option<SocketName>,
}

/// What a backend is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmSource {
    /// One container of that image: [`PLUGIN_IMAGE`], or a reference.
    Image(String),
    /// The services of a compose file in the image.
    Compose(ImagePath),
}

/// What was found under a key.
enum Found<T> {
    Absent,
    Faulty,
    Good(T),
}

/// Reads the `vm` part, if there is one. `tab_socket` is the UI tab's mention of the socket.
pub(super) fn read<'a>(reader: &mut Reader<'a>, node: Option<&Node<'a>>, tab_socket: Option<&Node<'a>>) -> Option<Vm> {
    let Some(node) = node else {
        ignore_tab_socket(reader, tab_socket);
        return None;
    };
    let vm = reader.object(node, &VM)?;
    let source = read_source(reader, node, &vm);
    if matches!(source, Found::Absent) {
        reader.warning(node, "names neither `image` nor `composefile`, so there is no backend");
        ignore_tab_socket(reader, tab_socket);
    }
    let exposed = read_exposed(reader, &vm);
    let Found::Good(source) = source else { return None };
    let socket = read_socket(reader, exposed, tab_socket);
    Some(Vm { source, socket })
}

/// The generator of Docker's own tool writes this key also where there is no backend; three real extensions have it.
fn ignore_tab_socket(reader: &mut Reader<'_>, tab_socket: Option<&Node<'_>>) {
    if let Some(node) = tab_socket {
        reader.note(node, "socket is ignored: there is no backend");
    }
}

/// The compose file wins over the image: of the two real extensions with both, one has a compose file that runs
/// another image and publishes the port its UI calls, and in the other both mean the same.
fn read_source<'a>(reader: &mut Reader<'a>, vm_node: &Node<'a>, vm: &Object<'a>) -> Found<VmSource> {
    let image = vm.get("image").map_or(Found::Absent, |node| read_image(reader, node));
    let composefile = vm.get("composefile").map_or(Found::Absent, |node| read_composefile(reader, node));
    match (composefile, image) {
        (Found::Good(path), Found::Good(_)) => {
            let node = vm.get("image").unwrap_or(vm_node);
            reader.warning(node, "image is ignored: `composefile` is given as well, and wins");
            Found::Good(VmSource::Compose(path))
        }
        (Found::Faulty, _) | (_, Found::Faulty) => Found::Faulty,
        (Found::Good(path), Found::Absent) => Found::Good(VmSource::Compose(path)),
        (Found::Absent, Found::Good(image)) => Found::Good(VmSource::Image(image)),
        (Found::Absent, Found::Absent) => Found::Absent,
    }
}

fn read_composefile<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Found<ImagePath> {
    let Some(text) = reader.string(node) else { return Found::Faulty };
    match ImagePath::read(&text) {
        Ok((path, false)) => Found::Good(path),
        Ok((_, true)) => {
            reader.error(node, format!("composefile {} is a directory; name the file in it", shown(&text)));
            Found::Faulty
        }
        Err(NameFault::Empty) => Found::Absent,
        Err(fault) => {
            reader.error(node, format!("composefile {} {fault}", shown(&text)));
            Found::Faulty
        }
    }
}

fn read_image<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Found<String> {
    let Some(text) = reader.string(node) else { return Found::Faulty };
    let image = text.trim();
    let fault = match image {
        "" => return Found::Absent,
        PLUGIN_IMAGE | "$DESKTOP_PLUGIN_IMAGE" => return Found::Good(PLUGIN_IMAGE.to_owned()),
        image if image.contains('$') => format!("may hold no variable; the only one is {PLUGIN_IMAGE}, alone"),
        image => match image.parse::<Reference>() {
            Ok(_) => return Found::Good(image.to_owned()),
            Err(_) => format!("is no image reference; write {PLUGIN_IMAGE} or one like `org/name:1.0`"),
        },
    };
    reader.error(node, format!("image {} {fault}", shown(image)));
    Found::Faulty
}

fn read_exposed<'a>(reader: &mut Reader<'a>, vm: &Object<'a>) -> Found<SocketName> {
    let Some(exposes) = vm.get("exposes") else { return Found::Absent };
    let Some(exposes) = reader.object(exposes, &EXPOSES) else { return Found::Faulty };
    let Some(node) = exposes.get("socket") else { return Found::Absent };
    let Some(text) = reader.string(node) else { return Found::Faulty };
    match text.parse::<SocketName>() {
        Ok(name) => Found::Good(name),
        Err(NameFault::Empty) => Found::Absent,
        Err(fault) => {
            reader.error(node, format!("socket {} {fault}", shown(&text)));
            Found::Faulty
        }
    }
}

/// The tab's socket is the older spelling, equal in every real extension that has both; alfresco has it alone.
fn read_socket<'a>(
    reader: &mut Reader<'a>,
    exposed: Found<SocketName>,
    tab_socket: Option<&Node<'a>>,
) -> Option<SocketName> {
    let exposed = match exposed {
        Found::Good(name) => Some(name),
        Found::Absent => None,
        Found::Faulty => return None,
    };
    let Some(node) = tab_socket else { return exposed };
    let text = reader.string(node)?;
    match (text.parse::<SocketName>(), exposed) {
        (Err(NameFault::Empty), exposed) => exposed,
        (Ok(name), None) => {
            reader.note(node, "socket is taken from here; the documented place is `vm.exposes.socket`");
            Some(name)
        }
        (Ok(name), Some(exposed)) if name == exposed => Some(exposed),
        (_, Some(exposed)) => {
            let text = shown(&text);
            reader.warning(
                node,
                format!("socket {text} is ignored: `vm.exposes.socket` says {}", shown(exposed.as_str())),
            );
            Some(exposed)
        }
        (Err(fault), None) => {
            reader.error(node, format!("socket {} {fault}", shown(&text)));
            None
        }
    }
}
