//! An installed extension as the broker records it, and what is observed of it.

use serde::{Deserialize, Serialize};

use super::{
    grant::{Grant, Need},
    journal::{Change, ChangeKind},
    reference::ExtensionId,
};

/// One extension and one generation of it: the installed one, or the one that an update brings.
#[derive(Debug, Clone, PartialEq)]
pub struct Installed {
    /// Who it is.
    pub id: ExtensionId,
    /// Number of the generation.
    pub generation: i64,
    /// Whether the user wants it to run.
    pub enabled: bool,
    /// When the extension was installed, in milliseconds since 1970.
    pub installed_at_ms: i64,
    /// What the generation is made of.
    pub record: Record,
    /// What is under way with the extension; at start, what a crash broke off.
    pub change: Option<Change>,
}

impl Installed {
    /// Whether its containers shall run: the user wants it, or asks for it just now.
    pub fn is_wanted(&self) -> bool {
        self.enabled || self.changing() == Some(ChangeKind::Enable)
    }

    /// What is being done to it; `None` at rest.
    pub fn changing(&self) -> Option<ChangeKind> {
        self.change.as_ref().map(Change::kind)
    }
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
    /// Volumes that did not exist before this generation.
    pub made_volumes: Vec<String>,
    /// Networks that did not exist before this generation.
    #[serde(default)]
    pub made_networks: Vec<String>,
    /// How long the installing call gave the backend to become ready, in milliseconds; absent where it did not say.
    #[serde(default)]
    pub ready_timeout_ms: Option<u64>,
    /// Label value, unique to this generation, that marks what is created for it.
    pub nonce: String,
    /// The same for its networks, which outlive an update: that of the generation that was installed first. Empty in
    /// records of older brokers, whose networks carry `nonce`.
    #[serde(default)]
    pub network_nonce: String,
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
    /// Image of a backend that is one container; absent where a compose file says it.
    #[serde(default)]
    pub image: Option<String>,
    /// Whether its containers were made: false where the image was never built.
    pub built: bool,
    /// Services that were seen to run while all was ready: they are no jobs, and run again when the engine comes back.
    #[serde(default)]
    pub lasting: Vec<String>,
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
    /// The nonce of the extension's networks, which outlive generations. Records of older brokers have none of their own.
    pub fn network_nonce(&self) -> &str {
        if self.network_nonce.is_empty() { &self.nonce } else { &self.network_nonce }
    }

    /// The needs. One that cannot be read (a newer broker wrote it) is left out: it was accepted when it was written.
    pub fn needs(&self) -> Vec<Need> {
        let read = |need: &NeedRecord| {
            need.grant.parse::<Grant>().ok().map(|grant| Need { grant, origin: need.origin.clone() })
        };
        self.needs.iter().filter_map(read).collect()
    }
}

/// What an extension can own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// A container.
    Container,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// A program that runs. The broker alone knows of it, and it does not outlive the broker.
    Exec,
}

impl ResourceKind {
    /// The kinds of the engine's objects, in the order they are listed: those that the store records.
    pub const OBJECTS: [ResourceKind; 3] = [ResourceKind::Container, ResourceKind::Network, ResourceKind::Volume];

    /// The name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            ResourceKind::Container => "container",
            ResourceKind::Network => "network",
            ResourceKind::Volume => "volume",
            ResourceKind::Exec => "exec",
        }
    }

    /// Reads the name in the store.
    pub fn from_name(name: &str) -> Option<Self> {
        ResourceKind::OBJECTS.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// How it is known to whom an object belongs. What is on the ledger is removed with its owner; a mere label is a claim
/// that anybody can make, and never on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OwnerSource {
    /// The broker made it, or let the extension make it.
    Created,
    /// The broker lost its store and knows it by the signature that it carries.
    Recovered,
    /// Its labels say so.
    Label,
}

impl OwnerSource {
    /// The sources that the ledger knows.
    pub const RECORDED: [OwnerSource; 2] = [OwnerSource::Created, OwnerSource::Recovered];

    /// The name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            OwnerSource::Created => "created",
            OwnerSource::Recovered => "recovered",
            OwnerSource::Label => "label",
        }
    }

    /// Reads the name in the store.
    pub fn from_name(name: &str) -> Option<Self> {
        OwnerSource::RECORDED.into_iter().find(|source| source.as_str() == name)
    }
}

/// To whom an object belongs, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Extension id.
    pub extension: String,
    /// Its generation; 0 where unknown.
    pub generation: i64,
    /// How it is known.
    pub source: OwnerSource,
    /// Service of the compose file; may be empty.
    pub service: String,
    /// When it was recorded, in milliseconds since 1970.
    pub first_seen_ms: Option<i64>,
}

/// Who asked the engine for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Maker {
    /// The broker, for one generation: it goes with that generation.
    Broker,
    /// The extension, through a socket of its own: it outlives generations and goes with the extension.
    Extension,
}

impl Maker {
    /// The name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Maker::Broker => "broker",
            Maker::Extension => "extension",
        }
    }

    /// Reads the name in the store.
    pub fn from_name(name: &str) -> Option<Self> {
        [Maker::Broker, Maker::Extension].into_iter().find(|maker| maker.as_str() == name)
    }
}

/// One entry of the ledger: an object that is an extension's.
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
    /// How it is known.
    pub source: OwnerSource,
    /// Who asked the engine for it.
    pub maker: Maker,
    /// When it was recorded, in milliseconds since 1970.
    pub first_seen_ms: i64,
}

impl LedgerEntry {
    /// Whether it is a container of a generation's backend.
    pub fn is_backend_of(&self, generation: &Installed) -> bool {
        self.kind == ResourceKind::Container
            && self.maker == Maker::Broker
            && self.generation == generation.generation
            && self.extension == generation.id.as_str()
    }
}
