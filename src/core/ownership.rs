//! Which extension owns which object of the engine: the ledger, and what labels claim.

use std::collections::HashMap;

use super::Broker;
use crate::model::{
    error::{Error, Reason, Result},
    extension::{LedgerEntry, OwnerSource, ResourceKind},
    reference::ExtensionId,
};

/// Label that names the extension an object was made for.
pub(super) const EXTENSION_LABEL: &str = "dev.longshore.extension";
/// Label with the generation it was made for.
pub(super) const GENERATION_LABEL: &str = "dev.longshore.generation";
/// Label that marks what one install made.
pub(super) const NONCE_LABEL: &str = "dev.longshore.nonce";
/// Compose's label for the service.
pub(super) const SERVICE_LABEL: &str = "com.docker.compose.service";
/// Compose's label for the project.
pub(super) const PROJECT_LABEL: &str = "com.docker.compose.project";
/// Fewest digits that an id may be shortened to.
const MIN_PREFIX_DIGITS: usize = 4;

/// An object of the engine and its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// What it is.
    pub kind: ResourceKind,
    /// Full id; for a volume its name.
    pub id: String,
    /// Name.
    pub name: String,
    /// Who owns it, if anybody does.
    pub owner: Option<Owner>,
    /// State, for a container.
    pub state: String,
    /// Image, for a container.
    pub image: String,
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

/// Which resources to list.
#[derive(Debug, Clone, Default)]
pub struct ResourceFilter {
    /// Only what this extension owns.
    pub extension: Option<ExtensionId>,
    /// Only these kinds; all where empty.
    pub kinds: Vec<ResourceKind>,
    /// Leave out what nobody owns.
    pub owned_only: bool,
}

impl Broker {
    /// The engine's objects with their owners, ordered by kind and name. Of an extension that is not installed there may
    /// still be what was kept of it, or what claims to be its own.
    ///
    /// Errors: EXTENSION_NOT_FOUND, ENGINE_UNAVAILABLE.
    pub async fn resources(&self, filter: &ResourceFilter) -> Result<Vec<Resource>> {
        let wanted = |kind| filter.kinds.is_empty() || filter.kinds.contains(&kind);
        let ledger = self.store.ledger(None).await?;
        let ledger: HashMap<(ResourceKind, &str), &LedgerEntry> =
            ledger.iter().map(|entry| ((entry.kind, entry.id.as_str()), entry)).collect();
        let mut resources = Vec::new();
        let mut add = |kind, id: String, name: String, labels: &HashMap<String, String>, state, image| {
            let owner = owner(ledger.get(&(kind, id.as_str())).copied(), labels);
            resources.push(Resource { kind, id, name, owner, state, image });
        };
        if wanted(ResourceKind::Container) {
            for c in self.engine.containers(&[]).await? {
                add(ResourceKind::Container, c.id, c.name, &c.labels, c.state, c.image);
            }
        }
        if wanted(ResourceKind::Network) {
            for n in self.engine.networks().await? {
                add(ResourceKind::Network, n.id, n.name, &n.labels, String::new(), String::new());
            }
        }
        if wanted(ResourceKind::Volume) {
            for v in self.engine.volumes().await? {
                add(ResourceKind::Volume, v.name.clone(), v.name, &v.labels, String::new(), String::new());
            }
        }
        let extension = filter.extension.as_ref().map(ExtensionId::as_str);
        resources.retain(|resource| match &resource.owner {
            Some(owner) => extension.is_none_or(|extension| owner.extension == extension),
            None => extension.is_none() && !filter.owned_only,
        });
        if let (Some(id), true) = (&filter.extension, resources.is_empty()) {
            self.installed(id).await?;
        }
        resources.sort_by(|a, b| (a.kind, &a.name, &a.id).cmp(&(b.kind, &b.name, &b.id)));
        Ok(resources)
    }

    /// One object by its full id, its name, or the beginning of its id.
    ///
    /// Errors: RESOURCE_NOT_FOUND, RESOURCE_AMBIGUOUS, ENGINE_UNAVAILABLE.
    pub async fn owner_of(&self, kind: Option<ResourceKind>, id: &str) -> Result<Resource> {
        if id.is_empty() {
            let message = "say which object: its id, its name, or the beginning of its id";
            return Err(Error::new(Reason::RequestInvalid, "id", message));
        }
        let filter = ResourceFilter { kinds: kind.into_iter().collect(), ..Default::default() };
        let name = id.trim_start_matches('/');
        let mut all = self.resources(&filter).await?;
        if let Some(exact) = all.iter().position(|resource| resource.id == id || resource.name == name) {
            return Ok(all.swap_remove(exact));
        }
        let fits = |resource: &Resource| id.len() >= MIN_PREFIX_DIGITS && resource.id.starts_with(id);
        all.retain(|resource| resource.kind != ResourceKind::Volume && fits(resource));
        match (all.pop(), all.len()) {
            (Some(only), 0) => Ok(only),
            (Some(_), others) => {
                let message = format!("{id:?} is the beginning of {} ids; give more digits", others + 1);
                Err(Error::new(Reason::ResourceAmbiguous, id, message))
            }
            (None, _) => {
                let message = format!("the engine has no container, network or volume {id:?}");
                Err(Error::new(Reason::ResourceNotFound, id, message))
            }
        }
    }
}

fn owner(entry: Option<&LedgerEntry>, labels: &HashMap<String, String>) -> Option<Owner> {
    if let Some(entry) = entry {
        return Some(Owner {
            extension: entry.extension.clone(),
            generation: entry.generation,
            source: entry.source,
            service: entry.service.clone(),
            first_seen_ms: Some(entry.first_seen_ms),
        });
    }
    Some(Owner {
        extension: labels.get(EXTENSION_LABEL)?.clone(),
        generation: labels.get(GENERATION_LABEL).and_then(|number| number.parse().ok()).unwrap_or(0),
        source: OwnerSource::Label,
        service: labels.get(SERVICE_LABEL).cloned().unwrap_or_default(),
        first_seen_ms: None,
    })
}
