//! What there is in the engine, held in memory: read whole when the engine is reached, and kept right by its events. So a
//! list of a thousand containers costs nothing, and whoever watches is told what changes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::UNIX_EPOCH,
};

use super::ring::Ring;
use crate::{
    engine::{Container, Engine, Network, Volume},
    exec::ExecInfo,
    model::{
        error::Result,
        extension::{Owner, OwnerSource, ResourceKind},
    },
};

/// Changes that are held for those who read slowly or come back.
const MAX_HELD: usize = 10_000;

/// Which object.
pub(super) type ObjectKey = (ResourceKind, String);

/// An object, as the engine tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) name: String,
    pub(super) labels: HashMap<String, String>,
    /// State of a container, as the engine names it, or of a program.
    pub(super) state: String,
    /// Exit code of a container's last run, where it is known.
    pub(super) exit_code: Option<i64>,
    pub(super) image: String,
    /// To whom it belongs, where the ledger need not be asked: a program.
    pub(super) owner: Option<Owner>,
}

/// An object that came, changed or went.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) number: u64,
    pub(super) key: ObjectKey,
    /// As it is now, or was last.
    pub(super) object: Object,
    pub(super) is_gone: bool,
}

/// All objects of the engine.
#[derive(Debug)]
pub(super) struct Catalogue {
    held: Mutex<Held>,
    pub(super) changes: Ring<Changed>,
}

#[derive(Debug, Default)]
struct Held {
    /// Whether it is what there is: not before the engine was reached, nor while it is away.
    is_current: bool,
    objects: BTreeMap<ObjectKey, Object>,
    /// Those that were added, and where the changes were then: a list that was asked for before does not have them.
    added: HashMap<ObjectKey, u64>,
}

impl Default for Catalogue {
    fn default() -> Self {
        Catalogue { held: Mutex::default(), changes: Ring::new(MAX_HELD) }
    }
}

impl Catalogue {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All objects of some kinds, ordered by kind and id; `None` while they are not known.
    pub(super) fn all(&self, wanted: impl Fn(ResourceKind) -> bool) -> Option<Vec<(ObjectKey, Object)>> {
        let held = self.lock();
        let of_kind = held.objects.iter().filter(|((kind, _), _)| wanted(*kind));
        held.is_current.then(|| of_kind.map(|(key, object)| (key.clone(), object.clone())).collect())
    }

    /// What a label says on some objects.
    pub(super) fn labels(&self, of: &HashSet<ObjectKey>, label: &str) -> Vec<String> {
        let held = self.lock();
        of.iter().filter_map(|key| held.objects.get(key)?.labels.get(label).cloned()).collect()
    }

    /// Whether it is what there is.
    pub(super) fn is_current(&self) -> bool {
        self.lock().is_current
    }

    /// The engine is away: what is held may be wrong.
    pub(super) fn lost(&self) {
        self.lock().is_current = false;
    }

    /// Takes a whole list of some kinds, for which the engine was asked at `asked`, in the place of what is held of them.
    /// Returns the objects that came, changed or went.
    pub(super) fn replace(&self, kinds: &[ResourceKind], asked: u64, now: Vec<(ObjectKey, Object)>) -> Vec<Object> {
        let mut held = self.lock();
        let now: BTreeMap<ObjectKey, Object> = now.into_iter().collect();
        held.added.retain(|key, at| !kinds.contains(&key.0) || *at > asked);
        let is_gone =
            |key: &&ObjectKey| kinds.contains(&key.0) && !now.contains_key(*key) && !held.added.contains_key(*key);
        let gone: Vec<ObjectKey> = held.objects.keys().filter(is_gone).cloned().collect();
        let mut touched: Vec<Object> = gone.into_iter().filter_map(|key| self.remove(&mut held, key)).collect();
        touched.extend(now.into_iter().filter_map(|(key, object)| self.insert(&mut held, key, object)));
        if kinds.len() == ResourceKind::OBJECTS.len() {
            held.is_current = true;
        }
        touched
    }

    /// Takes what was found of single objects. Returns those that came, changed or went.
    pub(super) fn update(&self, asked: &[ObjectKey], mut found: HashMap<ObjectKey, Object>) -> Vec<Object> {
        let mut held = self.lock();
        let one = |key: &ObjectKey| match found.remove(key) {
            Some(object) => self.insert(&mut held, key.clone(), object),
            None => self.remove(&mut held, key.clone()),
        };
        asked.iter().filter_map(one).collect()
    }

    /// Where it is now: what the engine is asked for from here on is newer.
    pub(super) fn now(&self) -> u64 {
        self.changes.newest()
    }

    /// Takes what the engine answered to somebody who asked at `asked`, unless its events have told anything since.
    pub(super) fn refresh(&self, asked: u64, found: Vec<(ObjectKey, Object)>) {
        let mut held = self.lock();
        if held.is_current && self.changes.newest() == asked {
            for (key, object) in found {
                self.insert(&mut held, key, object);
            }
        }
    }

    /// Takes objects that the engine's events may not have told of yet.
    pub(super) fn add(&self, found: Vec<(ObjectKey, Object)>) {
        let mut held = self.lock();
        for (key, object) in found {
            // What the events said is newer.
            if !held.objects.contains_key(&key) {
                self.insert(&mut held, key.clone(), object);
                held.added.insert(key, self.changes.newest());
            }
        }
    }

    /// Forgets objects that are gone.
    pub(super) fn forget(&self, gone: impl IntoIterator<Item = ObjectKey>) {
        let mut held = self.lock();
        for key in gone {
            self.remove(&mut held, key);
        }
    }

    /// Tells of a program that came or went; who lists programs asks those who run them.
    pub(super) fn tell_exec(&self, info: &ExecInfo, is_gone: bool) {
        let (key, object) = exec(info, if is_gone { "exited" } else { "running" });
        let _held = self.lock();
        self.tell(key, object, is_gone);
    }

    /// Tells of an object again: its owner is known now, or another.
    pub(super) fn tell_again(&self, keys: &[ObjectKey]) {
        let held = self.lock();
        for key in keys {
            if let Some(object) = held.objects.get(key) {
                self.tell(key.clone(), object.clone(), false);
            }
        }
    }

    fn insert(&self, held: &mut Held, key: ObjectKey, object: Object) -> Option<Object> {
        if held.objects.insert(key.clone(), object.clone()).as_ref() == Some(&object) {
            return None;
        }
        self.tell(key, object.clone(), false);
        Some(object)
    }

    fn remove(&self, held: &mut Held, key: ObjectKey) -> Option<Object> {
        held.added.remove(&key);
        let object = held.objects.remove(&key)?;
        self.tell(key, object.clone(), true);
        Some(object)
    }

    fn tell(&self, key: ObjectKey, object: Object, is_gone: bool) {
        self.changes.push(|number| Changed { number, key, object, is_gone });
    }
}

/// Asks the engine for its objects.
///
/// # Errors
///
/// `ENGINE_UNAVAILABLE`.
pub(super) async fn objects(
    engine: &Engine,
    wanted: impl Fn(ResourceKind) -> bool,
) -> Result<Vec<(ObjectKey, Object)>> {
    let mut objects: Vec<(ObjectKey, Object)> = Vec::new();
    if wanted(ResourceKind::Container) {
        objects.extend(engine.containers(&[]).await?.into_iter().map(Into::into));
    }
    if wanted(ResourceKind::Network) {
        objects.extend(engine.networks().await?.into_iter().map(Into::into));
    }
    if wanted(ResourceKind::Volume) {
        objects.extend(engine.volumes().await?.into_iter().map(Into::into));
    }
    Ok(objects)
}

impl From<Container> for (ObjectKey, Object) {
    fn from(it: Container) -> Self {
        let Container { id, name, image, state, exit_code, labels } = it;
        ((ResourceKind::Container, id), Object { name, labels, state, exit_code, image, owner: None })
    }
}

impl From<Network> for (ObjectKey, Object) {
    fn from(Network { id, name, labels }: Network) -> Self {
        let (state, image) = (String::new(), String::new());
        ((ResourceKind::Network, id), Object { name, labels, state, exit_code: None, image, owner: None })
    }
}

impl From<Volume> for (ObjectKey, Object) {
    fn from(Volume { name, labels }: Volume) -> Self {
        let (state, image) = (String::new(), String::new());
        ((ResourceKind::Volume, name.clone()), Object { name, labels, state, exit_code: None, image, owner: None })
    }
}

/// A program as a resource.
pub(super) fn exec(info: &ExecInfo, state: &str) -> (ObjectKey, Object) {
    let began = info.began.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let owner = Owner {
        extension: info.owner.clone(),
        generation: info.generation,
        source: OwnerSource::Created,
        service: info.service.clone().unwrap_or_default(),
        first_seen_ms: i64::try_from(began).ok(),
    };
    let object = Object {
        name: info.program.clone(),
        labels: HashMap::new(),
        state: state.to_owned(),
        exit_code: None,
        image: String::new(),
        owner: Some(owner),
    };
    ((ResourceKind::Exec, info.id.clone()), object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, state: &str) -> (ObjectKey, Object) {
        let labels = HashMap::new();
        let object =
            Object { name: id.into(), labels, state: state.into(), exit_code: None, image: "i".into(), owner: None };
        ((ResourceKind::Container, id.into()), object)
    }

    fn told(catalogue: &Catalogue, from: u64) -> Vec<(String, String, bool)> {
        let mut all = vec![];
        while let Some(change) = catalogue.changes.after(from + all.len() as u64).unwrap() {
            all.push((change.key.1.clone(), change.object.state.clone(), change.is_gone));
        }
        all
    }

    #[test]
    fn only_differences_are_told_and_a_list_counts_while_the_engine_is_there() {
        let catalogue = Catalogue::default();
        assert_eq!(catalogue.all(|_| true), None);
        let now = catalogue.now();
        catalogue.replace(&ResourceKind::OBJECTS, now, vec![container("a", "running"), container("b", "exited")]);
        assert_eq!(catalogue.all(|_| true).unwrap().len(), 2);
        let touched = catalogue.replace(
            &ResourceKind::OBJECTS,
            catalogue.now(),
            vec![container("b", "running"), container("c", "created")],
        );
        assert_eq!(touched.len(), 3);
        let expected = [("a", "running", true), ("b", "running", false), ("c", "created", false)];
        assert_eq!(told(&catalogue, 2), expected.map(|(id, state, gone)| (id.to_owned(), state.to_owned(), gone)));
        let key = container("c", "").0;
        assert_eq!(catalogue.update(std::slice::from_ref(&key), HashMap::from([container("c", "created")])), vec![]);
        assert_eq!(catalogue.update(&[key], HashMap::new()).len(), 1);
        let asked = catalogue.now();
        catalogue.refresh(asked, vec![container("b", "exited")]);
        catalogue.refresh(asked, vec![container("b", "running")]);
        assert_eq!(catalogue.all(|_| true).unwrap()[0].1.state, "exited", "what was told later counts");
        // A list that was asked for before something was added does not take it away; the next does.
        let asked = catalogue.now();
        catalogue.add(vec![container("d", "created")]);
        catalogue.replace(&ResourceKind::OBJECTS, asked, vec![container("b", "exited")]);
        assert_eq!(catalogue.all(|_| true).unwrap().len(), 2);
        catalogue.replace(&ResourceKind::OBJECTS, catalogue.now(), vec![container("b", "exited")]);
        assert_eq!(catalogue.all(|_| true).unwrap().len(), 1);
        catalogue.lost();
        assert_eq!(catalogue.all(|_| true), None);
    }
}
