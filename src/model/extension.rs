//! An installed extension as the broker records it, and what is observed of it.

use serde::{Deserialize, Serialize};

use super::{
    grant::{Grant, Need},
    reference::ExtensionId,
};

/// One installed extension: the extension and its current generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Installed {
    /// Who it is.
    pub id: ExtensionId,
    /// Number of its installed state.
    pub generation: i64,
    /// How far a change of it is.
    pub phase: Phase,
    /// Whether the user wants it to run.
    pub enabled: bool,
    /// When it was installed, in milliseconds since 1970.
    pub installed_at_ms: i64,
    /// What was installed.
    pub record: Record,
}

/// How far a change of an extension is; anything but `Installed` at start is what a crash left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// An install is going on, or broke off.
    Installing,
    /// At rest.
    Installed,
    /// An uninstall is going on, or broke off.
    Uninstalling,
}

/// What was installed: everything that Uninstall needs when image, manifest and compose file are gone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Record {
    /// Reference it was installed under.
    pub reference: String,
    /// Version: the tag.
    pub version: String,
    /// Content id of the image; absent where the extension came from a directory without an image.
    pub image_id: Option<String>,
    /// Images that this install brought into the engine, by reference.
    pub fetched_images: Vec<String>,
    /// Volumes that did not exist before this install.
    pub made_volumes: Vec<String>,
    /// How long the installing call gave the backend to become ready, in milliseconds; absent where it did not say.
    #[serde(default)]
    pub ready_timeout_ms: Option<u64>,
    /// Whether an uninstall that is under way shall take the named volumes too.
    #[serde(default)]
    pub remove_volumes: bool,
    /// Label value, unique to this install, that marks what it creates.
    pub nonce: String,
    /// Title label or tab title. Untrusted.
    pub title: String,
    /// Description label. Untrusted.
    pub description: String,
    /// Vendor label. Untrusted.
    pub vendor: String,
    /// The UI part.
    pub ui: Option<UiRecord>,
    /// The container part.
    pub backend: Option<BackendRecord>,
    /// Host programs for this operating system.
    pub binaries: Vec<BinaryRecord>,
    /// What it cannot work without.
    pub needs: Vec<NeedRecord>,
    /// What was tolerated.
    pub warnings: Vec<String>,
}

/// The UI part of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UiRecord {
    /// Title of the tab. Untrusted.
    pub title: String,
    /// Entry page, relative to the generation's `ui` directory.
    pub entry: String,
    /// File name in the generation's `icon` directory.
    pub icon: Option<String>,
}

/// The container part of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendRecord {
    /// Compose project.
    pub project: String,
    /// The service that is called.
    pub service: String,
    /// Socket file name that the manifest exposes.
    pub socket: Option<String>,
    /// Services in the author's order.
    pub services: Vec<String>,
    /// Whether its containers were made: false where the image was never built.
    pub built: bool,
}

/// A host program of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinaryRecord {
    /// File name in the generation's `host` directory.
    pub name: String,
    /// True for a directory that programs use.
    pub directory: bool,
}

/// A need of a record, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedRecord {
    /// Name of the grant.
    pub grant: String,
    /// Where the need comes from.
    pub origin: String,
}

impl From<&Need> for NeedRecord {
    fn from(need: &Need) -> Self {
        NeedRecord { grant: need.grant.to_string(), origin: need.origin.clone() }
    }
}

impl Record {
    /// The needs. One that cannot be read (a newer broker wrote it) is left out: it was accepted when it was written.
    pub fn needs(&self) -> Vec<Need> {
        let read = |need: &NeedRecord| {
            need.grant.parse::<Grant>().ok().map(|grant| Need { grant, origin: need.origin.clone() })
        };
        self.needs.iter().filter_map(read).collect()
    }
}

/// Which object of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// A container.
    Container,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

impl ResourceKind {
    /// All kinds, in the order they are listed.
    pub const ALL: [ResourceKind; 3] = [ResourceKind::Container, ResourceKind::Network, ResourceKind::Volume];

    /// The name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            ResourceKind::Container => "container",
            ResourceKind::Network => "network",
            ResourceKind::Volume => "volume",
        }
    }

    /// Reads the name in the store.
    pub fn from_name(name: &str) -> Option<Self> {
        ResourceKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// One entry of the ledger: an object that the broker made for an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// What it is.
    pub kind: ResourceKind,
    /// Full id; for a volume its name.
    pub id: String,
    /// Name when it was recorded.
    pub name: String,
    /// To whom it belongs.
    pub extension: String,
    /// The generation that it came with.
    pub generation: i64,
    /// Service of the compose file; empty where there is none.
    pub service: String,
    /// A volume that outlives the extension unless its removal is asked for.
    pub keep: bool,
    /// When it was recorded, in milliseconds since 1970.
    pub first_seen_ms: i64,
}
