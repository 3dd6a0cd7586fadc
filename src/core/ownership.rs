//! Which extension owns which object of the engine and which program: the ledger, and what labels claim.

use std::collections::HashMap;

use super::{
    Broker,
    catalogue::{self, Object, ObjectKey},
    proof::proof,
};
use crate::{
    engine::Engine,
    exec::{ExecFilter, ExecView},
    model::{
        error::{Error, Reason, Result},
        extension::{Installed, LedgerEntry, Maker, Owner, OwnerSource, ResourceKind},
        labels,
        reference::ExtensionId,
        signature::Key,
    },
    store::Store,
};

/// Fewest digits that an id may be shortened to.
const MIN_PREFIX_DIGITS: usize = 4;

/// An object of the engine, or a program, and its owner.
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
    /// State, for a container or a program.
    pub state: String,
    /// Image, for a container.
    pub image: String,
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
    /// # Errors
    ///
    /// `EXTENSION_NOT_FOUND`, `ENGINE_UNAVAILABLE`.
    pub async fn resources(&self, filter: &ResourceFilter) -> Result<Vec<Resource>> {
        let wanted = |kind| filter.kinds.is_empty() || filter.kinds.contains(&kind);
        let mut objects = match self.catalogue.all(wanted) {
            Some(objects) => objects,
            None => catalogue::objects(&self.engine, wanted).await?,
        };
        objects.extend(self.exec_objects(wanted));
        let resources = self.owned(filter, objects).await?;
        if let (Some(id), true) = (&filter.extension, resources.is_empty()) {
            self.installed(id).await?;
        }
        Ok(resources)
    }

    /// The programs that run.
    fn exec_objects(&self, wanted: impl Fn(ResourceKind) -> bool) -> Vec<(ObjectKey, Object)> {
        if !wanted(ResourceKind::Exec) {
            return vec![];
        }
        let state = |view: &ExecView| match (view.pid, &view.exit) {
            (_, Some(_)) => "exited",
            (None, None) => "created",
            (Some(_), None) => "running",
        };
        self.hub.execs(ExecFilter::All).iter().map(|view| catalogue::exec(&view.info, state(view))).collect()
    }

    /// The objects that a filter selects, with their owners.
    async fn owned(&self, filter: &ResourceFilter, objects: Vec<(ObjectKey, Object)>) -> Result<Vec<Resource>> {
        let ledger = self.store.ledger(None).await?;
        let ledger: HashMap<(ResourceKind, &str), &LedgerEntry> =
            ledger.iter().map(|entry| ((entry.kind, entry.id.as_str()), entry)).collect();
        let with_owner = objects.into_iter().map(|(key, object)| {
            let entry = ledger.get(&(key.0, key.1.as_str())).copied();
            resource(key, object, entry, self.behalf.is_one_of_several())
        });
        let mut resources: Vec<Resource> = with_owner.filter(|resource| selects(filter, resource)).collect();
        resources.sort_by(|a, b| (a.kind, &a.name, &a.id).cmp(&(b.kind, &b.name, &b.id)));
        Ok(resources)
    }

    /// One of the objects that a filter selects, by its full id, its name, or the beginning of its id.
    ///
    /// # Errors
    ///
    /// `RESOURCE_NOT_FOUND`, `RESOURCE_AMBIGUOUS`, `ENGINE_UNAVAILABLE`.
    pub async fn owner_of(&self, filter: &ResourceFilter, id: &str) -> Result<Resource> {
        if id.is_empty() {
            let message = "say which object: its id, its name, or the beginning of its id";
            return Err(Error::new(Reason::RequestInvalid, "id", message));
        }
        // Asked anew: it may be so new that the engine has not told of it.
        let wanted = |kind| filter.kinds.is_empty() || filter.kinds.contains(&kind);
        let mut objects = catalogue::objects(&self.engine, wanted).await?;
        objects.extend(self.exec_objects(wanted));
        among(self.owned(filter, objects).await?, id)
    }
}

/// One of some objects, by its full id, its name, or the beginning of its id.
fn among(mut all: Vec<Resource>, id: &str) -> Result<Resource> {
    let name = id.trim_start_matches('/');
    // A volume's id is its name.
    let has_id = |resource: &Resource| resource.kind != ResourceKind::Volume && resource.id == id;
    if let Some(exact) = all.iter().position(has_id) {
        return Ok(all.swap_remove(exact));
    }
    let (mut named, mut others): (Vec<_>, Vec<_>) = all.into_iter().partition(|resource| resource.name == name);
    // Programs come and go, and extensions name them: they count where nothing else has the name.
    if named.iter().any(|resource| resource.kind != ResourceKind::Exec) {
        named.retain(|resource| resource.kind != ResourceKind::Exec);
    }
    match (named.pop(), named.len()) {
        (Some(only), 0) => return Ok(only),
        (Some(_), more) => {
            let message = format!("{id:?} is the name of {} objects; give the id of one, or its kind", more + 1);
            return Err(Error::new(Reason::ResourceAmbiguous, id, message));
        }
        (None, _) => {}
    }
    let fits = |resource: &Resource| id.len() >= MIN_PREFIX_DIGITS && resource.id.starts_with(id);
    others.retain(|resource| resource.kind != ResourceKind::Volume && fits(resource));
    match (others.pop(), others.len()) {
        (Some(only), 0) => Ok(only),
        (Some(_), more) => {
            let message = format!("{id:?} is the beginning of {} ids; give more digits", more + 1);
            Err(Error::new(Reason::ResourceAmbiguous, id, message))
        }
        (None, _) => {
            let message = format!("there is no container, network, volume or program {id:?}");
            Err(Error::new(Reason::ResourceNotFound, id, message))
        }
    }
}

/// An object with its owner.
///
/// Where there are several users, labels claim nothing: they may tell of another user's extension.
pub(super) fn resource(
    (kind, id): ObjectKey,
    object: Object,
    entry: Option<&LedgerEntry>,
    is_one_of_several: bool,
) -> Resource {
    let labels = if is_one_of_several { &HashMap::new() } else { &object.labels };
    let owner = object.owner.or_else(|| owner(entry, labels));
    Resource { kind, id, name: object.name, owner, state: object.state, image: object.image }
}

/// Whether a filter selects an object.
pub(super) fn selects(filter: &ResourceFilter, resource: &Resource) -> bool {
    if !filter.kinds.is_empty() && !filter.kinds.contains(&resource.kind) {
        return false;
    }
    match (&resource.owner, &filter.extension) {
        (Some(owner), Some(extension)) => owner.extension == extension.as_str(),
        (Some(_), None) => true,
        (None, extension) => extension.is_none() && !filter.owned_only,
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
        extension: labels.get(labels::EXTENSION)?.clone(),
        generation: labels.get(labels::GENERATION).and_then(|number| number.parse().ok()).unwrap_or(0),
        source: OwnerSource::Label,
        service: labels.get(labels::SERVICE).cloned().unwrap_or_default(),
        first_seen_ms: None,
    })
}

/// The service of one of an extension's containers, empty for one that the extension made by itself; `None` for a
/// container that is not its own.
pub(super) async fn own_container(
    store: &Store,
    engine: &Engine,
    key: &Key,
    installed: &Installed,
    container: &str,
) -> Result<Option<String>> {
    let ledger = store.ledger(Some(&installed.id)).await?;
    if let Some(entry) = ledger.into_iter().find(|e| e.kind == ResourceKind::Container && e.id == container) {
        return Ok(Some(entry.service));
    }
    // One that has just been made may not be on it yet: it proves which generation it is of.
    let Some(found) = engine.container(container).await? else { return Ok(None) };
    let generations = store.generations(&installed.id).await?;
    let is_own = proof(key, &(&found).into()).is_ok_and(|proof| {
        let is_of_one = generations.iter().any(|generation| generation.record.nonce == proof.nonce);
        proof.maker == Maker::Broker && proof.extension == installed.id && is_of_one
    });
    Ok(is_own.then(|| found.labels.get(labels::SERVICE).cloned().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(kind: ResourceKind, id: &str, name: &str) -> Resource {
        let (id, name) = (id.to_owned(), name.to_owned());
        Resource { kind, id, name, owner: None, state: String::new(), image: String::new() }
    }

    #[test]
    fn an_id_comes_before_a_name_and_a_name_before_a_beginning() {
        use ResourceKind::{Container, Exec, Network, Volume};
        let all = || {
            vec![
                resource(Container, "aaaa1111", "bbbb2222"),
                resource(Network, "bbbb2222", "web"),
                resource(Volume, "web", "web"),
                resource(Container, "bbbb3333", "db"),
                resource(Volume, "aaaa1111", "aaaa1111"),
                resource(Exec, "exec-1", "db"),
                resource(Exec, "exec-2", "tool"),
                resource(Exec, "exec-3", "tool"),
            ]
        };
        let found = |id: &str| among(all(), id).map(|found| (found.kind, found.name)).map_err(|error| error.reason());
        assert_eq!(found("aaaa1111"), Ok((Container, "bbbb2222".into())), "an id is no volume's name");
        assert_eq!(found("bbbb2222"), Ok((Network, "web".into())), "nor another's name");
        assert_eq!(found("/db"), Ok((Container, "db".into())));
        assert_eq!(found("bbbb3"), Ok((Container, "db".into())));
        assert_eq!(found("web"), Err(Reason::ResourceAmbiguous));
        assert_eq!(found("tool"), Err(Reason::ResourceAmbiguous));
        assert_eq!(found("bbbb"), Err(Reason::ResourceAmbiguous));
        assert_eq!(found("bbb"), Err(Reason::ResourceNotFound), "too short");
    }
}
