//! The `ui` part: one dashboard tab.

use super::{
    json::{Keys, Node, Object, Reader, shown},
    path::{ImagePath, NameFault},
};

/// Entry page of almost every extension (140 of 144).
const DEFAULT_ENTRY: &str = "index.html";

const UI: Keys = Keys { known: &["dashboard-tab"], obsolete: &[] };
const TAB: Keys = Keys { known: &["title", "root", "src", "backend"], obsolete: &[] };
const BACKEND: Keys = Keys { known: &["socket", "tcp"], obsolete: &[] };

/// What a front end shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ui {
    /// Title of the tab, trimmed; empty where the author gave none. Untrusted text.
    pub title: String,
    /// Directory with the files.
    pub root: ImagePath,
    /// Entry page below `root`, without a leading slash; a query or fragment may follow (`index.html?v0.4.0`).
    pub entry: String,
}

impl Ui {
    /// The entry page's file below `root`: [`entry`](Ui::entry) without query and fragment.
    pub fn entry_file(&self) -> &str {
        split_suffix(&self.entry).0
    }
}

/// What the `ui` part says.
#[derive(Debug, Default)]
pub(super) struct Tab<'a> {
    /// The UI; `None` where there is nothing to show.
    pub(super) ui: Option<Ui>,
    /// The tab's own mention of the backend's socket.
    pub(super) socket: Option<Node<'a>>,
}

/// Reads the `ui` part.
pub(super) fn read<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Tab<'a> {
    let Some(object) = reader.object(node, &UI) else { return Tab::default() };
    let Some(tab_node) = object.get("dashboard-tab") else {
        reader.warning(node, "names no `dashboard-tab`, so there is no UI to show");
        return Tab::default();
    };
    let Some(tab) = reader.object(tab_node, &TAB) else { return Tab::default() };
    let title = read_title(reader, tab_node, &tab);
    let entry = read_entry(reader, tab_node, &tab);
    let root = read_root(reader, tab_node, &tab);
    let socket = tab.get("backend").and_then(|backend| read_backend(reader, backend));
    let ui = root.zip(entry).map(|(root, entry)| Ui { title, root, entry });
    Tab { ui, socket }
}

fn read_title<'a>(reader: &mut Reader<'a>, tab_node: &Node<'a>, tab: &Object<'a>) -> String {
    let node = tab.get("title");
    let text = match node.map(|node| reader.string(node)) {
        Some(Some(text)) => text,
        Some(None) => return String::new(),
        None => String::new(),
    };
    let title = text.trim().to_owned();
    if title.is_empty() {
        reader.warning(node.unwrap_or(tab_node), "has no `title`, the text of the tab");
    }
    title
}

/// A tab without a root cannot be shown; what else the extension holds can be installed all the same.
fn read_root<'a>(reader: &mut Reader<'a>, tab_node: &Node<'a>, tab: &Object<'a>) -> Option<ImagePath> {
    let node = tab.get("root");
    let text = match node {
        Some(node) => reader.string(node)?,
        None => String::new(),
    };
    match ImagePath::read(&text) {
        Ok((root, _)) => Some(root),
        Err(NameFault::Empty) => {
            let message = "has no `root`, the directory of the UI in the image, so there is no UI to show";
            reader.warning(node.unwrap_or(tab_node), message);
            None
        }
        Err(fault) => {
            reader.error(node.unwrap_or(tab_node), format!("root {} {fault}", shown(&text)));
            None
        }
    }
}

fn read_entry<'a>(reader: &mut Reader<'a>, tab_node: &Node<'a>, tab: &Object<'a>) -> Option<String> {
    let node = tab.get("src");
    let text = match node {
        Some(node) => reader.string(node)?,
        None => String::new(),
    };
    let node = node.unwrap_or(tab_node);
    let (page, suffix) = split_suffix(&text);
    let fault = match ImagePath::read(page) {
        _ if suffix.contains(char::is_control) => NameFault::Control.to_string(),
        Ok((path, false)) => return Some(format!("{}{suffix}", path.as_str())),
        Ok((_, true)) => "is a directory; name the page in it".to_owned(),
        Err(NameFault::Url) => "is a URL; name a page below `root`".to_owned(),
        Err(NameFault::Empty | NameFault::Root) => {
            reader.warning(node, format!("has no `src`, the entry page below `root`; {DEFAULT_ENTRY} is taken"));
            return Some(format!("{DEFAULT_ENTRY}{suffix}"));
        }
        Err(fault) => fault.to_string(),
    };
    reader.error(node, format!("src {} {fault}", shown(&text)));
    None
}

fn read_backend<'a>(reader: &mut Reader<'a>, node: &Node<'a>) -> Option<Node<'a>> {
    let backend = reader.object(node, &BACKEND)?;
    if let Some(tcp) = backend.get("tcp") {
        reader.warning(tcp, "tcp is ignored: backends are reached through a socket, see `vm.exposes.socket`");
    }
    backend.get("socket").cloned()
}

/// Splits a page's path from its query and fragment.
fn split_suffix(entry: &str) -> (&str, &str) {
    entry.split_at(entry.find(['?', '#']).unwrap_or(entry.len()))
}
