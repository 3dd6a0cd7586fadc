//! Journal and ledger against a model of them: whatever is asked of the store in whatever order, also by a broker that is
//! killed in between, what it says is what the model says.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::Store;
use crate::model::{
    extension::{Installed, LedgerEntry, Maker, OwnerSource, Record, ResourceKind},
    grant::{Decisions, Grant},
    journal::{ChangeKind, ChangeNotes, Step},
    reference::ExtensionId,
};

/// One thing that a broker asks of its store. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Act {
    /// The next thing that can be done with an extension, the way a broker would.
    Change { extension: u8, choice: u8 },
    /// A step forward within a change.
    Step { extension: u8 },
    /// The change ends: well, or not.
    End { extension: u8, well: bool },
    /// An object comes onto the ledger.
    Record { extension: u8, object: u8, kind: u8, keep: bool, by_extension: bool },
    /// An object is struck off.
    Strike { object: u8, kind: u8 },
    /// Decisions are replaced.
    Decide { extension: u8, grants: u8 },
    /// The broker is killed, and another takes up the store.
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    let extension = 0..3_u8;
    prop_oneof![
        6 => (extension.clone(), any::<u8>()).prop_map(|(extension, choice)| Act::Change { extension, choice }),
        4 => extension.clone().prop_map(|extension| Act::Step { extension }),
        5 => (extension.clone(), any::<bool>()).prop_map(|(extension, well)| Act::End { extension, well }),
        6 => (extension.clone(), 0..8_u8, 0..3_u8, any::<bool>(), any::<bool>()).prop_map(
            |(extension, object, kind, keep, by_extension)| Act::Record { extension, object, kind, keep, by_extension }
        ),
        2 => (0..8_u8, 0..3_u8).prop_map(|(object, kind)| Act::Strike { object, kind }),
        2 => (extension, 0..4_u8).prop_map(|(extension, grants)| Act::Decide { extension, grants }),
        1 => Just(Act::Reopen),
    ]
}

/// What the store shall say.
#[derive(Debug, Default)]
struct Model {
    extensions: BTreeMap<ExtensionId, Held>,
    last_generation: BTreeMap<ExtensionId, i64>,
    ledger: BTreeMap<(ResourceKind, String), LedgerEntry>,
    decisions: BTreeMap<ExtensionId, Decisions>,
}

#[derive(Debug, Clone)]
struct Held {
    enabled: bool,
    current: i64,
    generations: BTreeSet<i64>,
    step: Option<Step>,
    next: Option<i64>,
}

fn id(number: u8) -> ExtensionId {
    format!("org/e{number}").parse().unwrap()
}

fn record(generation: i64) -> Record {
    Record { nonce: format!("n{generation}"), version: generation.to_string(), ..Record::default() }
}

fn steps(kind: ChangeKind) -> Vec<Step> {
    // The way back is not on the way.
    Step::ALL.iter().copied().filter(|step| step.kind() == kind && *step != Step::UpdateReturn).collect()
}

impl Model {
    fn next_generation(&mut self, id: &ExtensionId) -> i64 {
        let last = self.last_generation.entry(id.clone()).or_default();
        *last += 1;
        *last
    }

    /// Forgets an extension and what goes with it.
    fn forget(&mut self, id: &ExtensionId) {
        self.extensions.remove(id);
        self.decisions.remove(id);
        self.ledger.retain(|_, entry| entry.extension != id.as_str() || entry.keep);
    }

    /// A generation goes, with what the broker made for it.
    fn drop_generation(&mut self, id: &ExtensionId, number: i64) {
        if let Some(held) = self.extensions.get_mut(id) {
            held.generations.remove(&number);
            (held.step, held.next) = (None, None);
        }
        self.ledger.retain(|_, entry| {
            entry.extension != id.as_str() || entry.generation != number || entry.keep || entry.maker != Maker::Broker
        });
    }
}

/// The store beside its model.
struct Beside {
    place: tempfile::TempDir,
    store: Store,
    model: Model,
}

impl Beside {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("longshore.db")).unwrap();
        Beside { place, store, model: Model::default() }
    }

    async fn installed(&self, id: &ExtensionId) -> Option<Installed> {
        self.store.extension(id).await.unwrap()
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Change { extension, choice } => self.change(&id(extension), choice).await,
            Act::Step { extension } => self.step(&id(extension)).await,
            Act::End { extension, well } => self.end(&id(extension), well).await,
            Act::Record { extension, object, kind, keep, by_extension } => {
                self.record(&id(extension), object, kind, keep, by_extension).await;
            }
            Act::Strike { object, kind } => {
                let key = (ResourceKind::OBJECTS[usize::from(kind)], format!("o{object}"));
                self.store.strike(vec![key.clone()]).await.unwrap();
                self.model.ledger.remove(&key);
            }
            Act::Decide { extension, grants } => {
                let id = id(extension);
                if self.model.extensions.contains_key(&id) {
                    let all = [Grant::EngineFull, Grant::HostExec("x".into())];
                    let chosen = all.into_iter().enumerate().filter(|(bit, _)| grants & (1 << bit) != 0);
                    let decisions = Decisions { allow: chosen.map(|(_, grant)| grant).collect(), deny: vec![] };
                    self.store.set_decisions(&id, decisions.clone()).await.unwrap();
                    self.model.decisions.insert(id, decisions);
                }
            }
            Act::Reopen => {
                let path = self.place.path().join("longshore.db");
                self.store = Store::open(&path).unwrap();
            }
        }
    }

    /// Begins what can be begun.
    async fn change(&mut self, id: &ExtensionId, choice: u8) {
        let Some(installed) = self.installed(id).await else {
            let generation = self.model.next_generation(id);
            let begun = self.store.begin_install(id.clone(), record(generation)).await.unwrap();
            assert_eq!(begun.generation, generation);
            let held = Held {
                enabled: true,
                current: generation,
                generations: [generation].into(),
                step: Some(Step::InstallFiles),
                next: None,
            };
            self.model.extensions.insert(id.clone(), held);
            return;
        };
        // An uninstall may begin whatever broke off; all else at rest only.
        if choice.is_multiple_of(4) {
            self.store.begin_uninstall(&installed, ChangeNotes::default()).await.unwrap();
            self.model.extensions.get_mut(id).unwrap().step = Some(Step::UninstallObjects);
        } else if installed.change.is_none() && choice % 4 == 1 {
            let generation = self.model.next_generation(id);
            let begun = self.store.begin_update(&installed, record(generation), ChangeNotes::default()).await.unwrap();
            assert_eq!((begun.generation, begun.change.unwrap().next), (generation, Some(generation)));
            let held = self.model.extensions.get_mut(id).unwrap();
            (held.step, held.next) = (Some(Step::UpdateFiles), Some(generation));
            held.generations.insert(generation);
        } else if installed.change.is_none() {
            let step = if choice % 4 == 2 { Step::EnableStart } else { Step::DisableStop };
            let enabled = step == Step::EnableStart && installed.enabled;
            self.store.begin_switch(&installed, step, enabled).await.unwrap();
            let held = self.model.extensions.get_mut(id).unwrap();
            (held.step, held.enabled) = (Some(step), enabled);
        }
    }

    async fn step(&mut self, id: &ExtensionId) {
        let Some(mut installed) = self.installed(id).await else { return };
        let Some(change) = installed.change.clone() else { return };
        let steps = steps(change.kind());
        let next = steps.iter().skip_while(|step| **step != change.step).nth(1).copied();
        // From the last but one, an update is committed; that is its end.
        if let Some(next) = next.filter(|next| *next != Step::UpdateRetire) {
            self.store.advance(&mut installed, next).await.unwrap();
            self.model.extensions.get_mut(id).unwrap().step = Some(next);
        }
    }

    async fn end(&mut self, id: &ExtensionId, well: bool) {
        let Some(mut installed) = self.installed(id).await else { return };
        let Some(change) = installed.change.clone() else { return };
        match (change.kind(), well) {
            (ChangeKind::Install, true) => {
                self.store.finish_install(&installed).await.unwrap();
                self.model.extensions.get_mut(id).unwrap().step = None;
            }
            (ChangeKind::Install, false) | (ChangeKind::Uninstall, _) => {
                self.store.forget(id).await.unwrap();
                self.model.forget(id);
            }
            (ChangeKind::Update, _) => self.end_update(&mut installed, change.step, change.next.unwrap(), well).await,
            (ChangeKind::Enable | ChangeKind::Disable, _) => {
                let enabled = change.kind() == ChangeKind::Enable && well;
                self.store.finish_switch(id, enabled).await.unwrap();
                let held = self.model.extensions.get_mut(id).unwrap();
                (held.step, held.enabled) = (None, enabled);
            }
        }
    }

    async fn end_update(&mut self, installed: &mut Installed, step: Step, next: i64, well: bool) {
        let id = installed.id.clone();
        let generations = self.store.generations(&id).await.unwrap();
        let of = |number: i64| generations.iter().find(|one| one.generation == number).cloned().unwrap();
        match (step, well) {
            // Committed: what is left of the old one goes.
            (Step::UpdateRetire, _) => {
                let old = generations.iter().find(|one| one.generation != installed.generation).unwrap();
                self.store.finish_update(old, None).await.unwrap();
                self.model.drop_generation(&id, old.generation);
            }
            (_, true) => {
                let mut new = of(next);
                let decisions = Decisions { allow: vec![Grant::EngineFull], deny: vec![] };
                self.store.commit_update(&mut new, decisions.clone()).await.unwrap();
                let held = self.model.extensions.get_mut(&id).unwrap();
                (held.current, held.step) = (next, Some(Step::UpdateRetire));
                self.model.decisions.insert(id, decisions);
            }
            (_, false) => {
                self.store.advance(installed, Step::UpdateReturn).await.unwrap();
                self.store.finish_update(&of(next), Some(installed)).await.unwrap();
                self.model.drop_generation(&id, next);
            }
        }
    }

    async fn record(&mut self, id: &ExtensionId, object: u8, kind: u8, keep: bool, by_extension: bool) {
        let Some(held) = self.model.extensions.get(id) else { return };
        let kind = ResourceKind::OBJECTS[usize::from(kind)];
        let entry = LedgerEntry {
            kind,
            id: format!("o{object}"),
            name: format!("name of {object}"),
            extension: id.to_string(),
            generation: held.next.unwrap_or(held.current),
            service: String::new(),
            keep: keep && kind == ResourceKind::Volume,
            source: OwnerSource::Created,
            maker: if by_extension { Maker::Extension } else { Maker::Broker },
            first_seen_ms: i64::from(object),
        };
        self.store.record(vec![entry.clone()]).await.unwrap();
        self.model.ledger.insert((kind, entry.id.clone()), entry);
    }

    async fn agrees(&self) {
        let all = self.store.extensions("", 100).await.unwrap();
        let ids: Vec<_> = all.iter().map(|one| one.id.clone()).collect();
        assert_eq!(ids, self.model.extensions.keys().cloned().collect::<Vec<_>>());
        for one in all {
            let held = &self.model.extensions[&one.id];
            assert_eq!((one.generation, one.enabled), (held.current, held.enabled), "{}", one.id);
            assert_eq!(one.change.as_ref().map(|change| change.step), held.step, "{}", one.id);
            assert_eq!(one.record, record(held.current), "each generation has its own record");
            let numbers: BTreeSet<i64> =
                self.store.generations(&one.id).await.unwrap().iter().map(|one| one.generation).collect();
            assert_eq!(numbers, held.generations, "{}", one.id);
            let is_updated = held.step.is_some_and(|step| step.kind() == ChangeKind::Update) || held.next.is_some();
            assert!(numbers.len() == 1 || is_updated, "two generations live in an update only");
            assert_eq!(self.installed(&one.id).await.unwrap(), one, "what is kept in memory is what is on the disk");
            let decisions = self.model.decisions.get(&one.id).cloned().unwrap_or_default();
            assert_eq!(self.store.decisions(&one.id).await.unwrap(), decisions, "{}", one.id);
        }
        let ledger = self.store.ledger(None).await.unwrap();
        let ledger: BTreeMap<_, _> = ledger.into_iter().map(|entry| ((entry.kind, entry.id.clone()), entry)).collect();
        assert_eq!(ledger, self.model.ledger);
        let is_owned =
            |entry: &LedgerEntry| entry.keep || self.model.extensions.keys().any(|id| id.as_str() == entry.extension);
        assert!(ledger.values().all(is_owned), "what stays behind an extension are volumes that are kept");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_store_says_what_was_done(acts in proptest::collection::vec(act(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut beside = Beside::new();
            for act in acts {
                beside.act(act).await;
                beside.agrees().await;
            }
        });
    }
}
