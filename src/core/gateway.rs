//! The judge of the engine gateways: who is let in, what their creates are marked with, and the ledger's side of them.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::{
    Behalf, Broker,
    catalogue::{Catalogue, Object, ObjectKey},
    grants::grants_required,
    ledger::{entry, is_anonymous},
    not_installed,
    ownership::own_container,
    program::check_runs,
};
use crate::{
    clock::now_ms,
    engine::{Engine, Volume},
    gateway::{Create, Intent, Made, Rules, Stamp},
    model::{
        error::{Error, Reason, Result},
        extension::{Installed, LedgerEntry, Maker, ResourceKind},
        grant::{Grant, Need},
        journal::ChangeKind,
        labels,
        mounts::GATEWAY_SOCKET,
        reference::ExtensionId,
        signature::{Key, Mark},
    },
    peer::socket::Caller,
    random,
    store::{Broken, OpenCreate, Store},
};

/// How long the engine may be at something that nobody waits for any more.
pub(super) const MAY_BE_LATE: Duration = Duration::from_secs(3600);

/// Judges what is asked of one gateway.
#[derive(Clone)]
struct Judge {
    id: ExtensionId,
    store: Store,
    engine: Engine,
    key: Key,
    catalogue: Arc<Catalogue>,
    behalf: Behalf,
}

/// What came of a create.
#[derive(Default)]
struct New {
    ledger: Vec<LedgerEntry>,
    /// As it is listed at once, before the engine's events tell of it.
    objects: Vec<(ObjectKey, Object)>,
}

impl Broker {
    /// Opens the gateway of an extension, whose directories are there.
    ///
    /// # Errors
    ///
    /// `FILE_FAILED`, `LIMIT_REACHED`.
    pub(super) fn open_gateway(&self, id: &ExtensionId) -> Result<()> {
        let (store, engine, key) = (self.store.clone(), self.engine.clone(), self.key.clone());
        let (catalogue, behalf) = (Arc::clone(&self.catalogue), self.behalf.clone());
        let judge = Judge { id: id.clone(), store, engine, key, catalogue, behalf };
        self.gateways.open(id.as_str(), &self.layout.extension(id).broker(), judge.rules())
    }

    /// Lays links to the gateway into new containers of a generation, where its compose file mounts the engine's socket.
    pub(super) async fn lay_links(&self, installed: &Installed) -> Result<()> {
        for container in
            self.engine.containers(&[labels::made_under(&installed.record.nonce), labels::LINKS.to_owned()]).await?
        {
            // One that ran before has them.
            if container.state != "created" {
                continue;
            }
            for path in container.labels.get(labels::LINKS).into_iter().flat_map(|links| links.lines()) {
                self.engine.lay_link(&container.id, path, GATEWAY_SOCKET).await?;
            }
        }
        Ok(())
    }

    /// Closes the gateway of an extension for good and puts on the ledger what came of all it asked for. What may come
    /// yet is removed when it comes.
    ///
    /// # Errors
    ///
    /// `ENGINE_UNAVAILABLE`.
    pub(super) async fn close_gateway(&self, id: &ExtensionId) -> Result<()> {
        if !self.gateways.close(id.as_str()).await {
            tracing::warn!(extension = %id, "the engine is still at something that it asked for");
        }
        self.settle_creates(Some(id)).await?;
        for open in self.store.open_creates(Some(id)).await? {
            let (nonce, extension) = (open.nonce.clone(), Some(id.clone()));
            self.store.note_broken(Broken { nonce, extension, volumes: open.volumes }).await?;
            self.store.settle_create(open.nonce, vec![]).await?;
        }
        Ok(())
    }

    /// Looks for what came of creates of which that is not known: the broker was killed, or the engine broke off.
    pub(super) async fn settle_creates(&self, id: Option<&ExtensionId>) -> Result<()> {
        for open in self.store.open_creates(id).await? {
            let made = look(&self.engine, &open).await?;
            let is_old =
                now_ms().saturating_sub(open.at_ms) > i64::try_from(MAY_BE_LATE.as_millis()).unwrap_or(i64::MAX);
            if !made.is_empty() || is_old {
                tracing::info!(extension = open.extension, found = made.len(), "found what came of a create");
                self.store.settle_create(open.nonce, made).await?;
            }
        }
        Ok(())
    }
}

impl Judge {
    fn rules(self) -> Rules {
        let (admit, intend) = (self.clone(), self.clone());
        Rules {
            admit: Box::new(move |caller| {
                let judge = admit.clone();
                Box::pin(async move { judge.admit(caller).await })
            }),
            intend: Box::new(move |create| {
                let judge = intend.clone();
                Box::pin(async move { judge.intend(create).await })
            }),
            made: Box::new(move |intent, made| {
                let judge = self.clone();
                Box::pin(async move { judge.made(intent, made).await })
            }),
        }
    }

    /// The extension, if it runs and may use the engine.
    ///
    /// # Errors
    ///
    /// `EXTENSION_NOT_FOUND`, `BACKEND_STOPPED`, `GRANTS_REQUIRED`.
    async fn allowed(&self) -> Result<Installed> {
        let id = &self.id;
        let installed = self.store.extension(id).await?.ok_or_else(|| not_installed(id))?;
        // Its containers may be starting.
        if !matches!(installed.changing(), Some(ChangeKind::Install | ChangeKind::Update | ChangeKind::Enable)) {
            check_runs(&installed)?;
        }
        let decisions = self.behalf.counted(self.store.decisions(id).await?);
        if !decisions.allows(&Grant::EngineFull) {
            let need = Need { grant: Grant::EngineFull, origin: "docker.sock".into() };
            return Err(grants_required(id.as_str(), vec![need]));
        }
        Ok(installed)
    }

    /// Lets in the broker's user, and processes in containers of this very extension.
    async fn admit(&self, caller: Caller) -> Result<()> {
        let installed = self.allowed().await?;
        let Caller::Container(container) = caller else { return Ok(()) };
        if own_container(&self.store, &self.engine, &self.key, &installed, &container).await?.is_some() {
            return Ok(());
        }
        tracing::warn!(extension = %self.id, container, "refused a container at an engine gateway");
        let message = format!("this is the engine gateway of {}, and the caller is in another's container", self.id);
        Err(Error::new(Reason::CallerRefused, self.id.as_str(), message))
    }

    async fn intend(&self, create: Create) -> Result<Intent> {
        let installed = self.allowed().await?;
        let matters = !create.volumes.is_empty() || create.borrows;
        let volumes_before: Vec<String> = match matters {
            true => self.engine.volumes().await?.into_iter().map(|volume| volume.name).collect(),
            false => vec![],
        };
        let nonce = random::nonce();
        let new = create.volumes.iter().filter(|name| !volumes_before.contains(name));
        self.store
            .open_create(OpenCreate {
                nonce: nonce.clone(),
                extension: self.id.to_string(),
                generation: installed.generation,
                kind: create.kind,
                volumes: new.cloned().collect(),
                borrows: create.borrows,
                at_ms: now_ms(),
            })
            .await?;
        let (extension, generation) = (installed.id.as_str(), installed.generation);
        let mark = Mark { kind: create.kind, extension, generation, name: "", nonce: &nonce };
        let mut own = labels::of_generation(&installed, &nonce).to_vec();
        own.push((labels::SIGNATURE.into(), self.key.sign(&mark)));
        let stamp = Stamp { own, defaults: default_labels(&installed, create.kind) };
        Ok(Intent { nonce, stamp, create, volumes_before })
    }

    async fn made(&self, intent: Intent, made: Made) {
        let Made::Answered { status, body } = made else {
            tracing::warn!(extension = %self.id, "it is not known what came of a create; it is looked for later");
            return;
        };
        let settled = async {
            let made = if (200..300).contains(&status) { self.outcome(&intent, &body).await? } else { New::default() };
            self.store.settle_create(intent.nonce.clone(), made.ledger).await?;
            self.catalogue.add(made.objects);
            Ok::<(), Error>(())
        };
        if let Err(error) = settled.await {
            // It stays open, and is looked for at the next start.
            tracing::error!(%error, extension = %self.id, "what an extension made is not on the ledger yet");
        }
    }

    /// What an answer says was made.
    async fn outcome(&self, intent: &Intent, answer: &[u8]) -> Result<New> {
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let of = generation(intent);
        let ledger_of = |kind, id: &str, name: &str| entry(&self.id, of, Maker::Extension, kind, id, name);
        let mut new = New::default();
        match intent.create.kind {
            ResourceKind::Container => {
                let Some(found) = self.engine.container(&text("Id")).await? else { return Ok(new) };
                let volumes = found.mounts.iter().map(|mount| mount.volume.clone());
                let made = volumes.filter(|volume| {
                    !intent.volumes_before.contains(volume)
                        && (is_anonymous(volume) || intent.create.volumes.contains(volume))
                });
                new.ledger.extend(made.map(|name| ledger_of(ResourceKind::Volume, &name, &name)));
                let listed = self.engine.containers_by_id(std::slice::from_ref(&found.id)).await?;
                new.objects.extend(listed.into_iter().map(Into::into));
                new.ledger.push(ledger_of(ResourceKind::Container, &found.id, &found.name));
            }
            ResourceKind::Network => {
                let id = text("Id");
                if let Some(found) = self.engine.networks().await?.into_iter().find(|network| network.id == id) {
                    new.ledger.push(ledger_of(ResourceKind::Network, &id, &found.name));
                    new.objects.push(found.into());
                }
            }
            // One that was there already is answered in the same way, and does not bear our mark.
            ResourceKind::Volume if answer["Labels"][labels::NONCE] == intent.nonce.as_str() => {
                let labels = serde_json::from_value(answer["Labels"].clone()).unwrap_or_default();
                new.ledger.push(ledger_of(ResourceKind::Volume, &text("Name"), &text("Name")));
                new.objects.push(Volume { name: text("Name"), labels }.into());
            }
            ResourceKind::Volume | ResourceKind::Exec => {}
        }
        Ok(new)
    }
}

/// What the engine has that bears the mark of a create.
async fn look(engine: &Engine, open: &OpenCreate) -> Result<Vec<LedgerEntry>> {
    let Ok(id) = open.extension.parse::<ExtensionId>() else { return Ok(vec![]) };
    let new = |kind, object: &str, name: &str| entry(&id, open.generation, Maker::Extension, kind, object, name);
    let bears = |labels: &std::collections::HashMap<String, String>| labels.get(labels::NONCE) == Some(&open.nonce);
    match open.kind {
        ResourceKind::Container => {
            let mut all = Vec::new();
            for found in engine.containers(&[labels::made_under(&open.nonce)]).await? {
                let details = engine.container(&found.id).await?;
                for mount in details.into_iter().flat_map(|details| details.mounts) {
                    // Of another container's volumes these cannot be told.
                    if open.volumes.contains(&mount.volume) || (is_anonymous(&mount.volume) && !open.borrows) {
                        all.push(new(ResourceKind::Volume, &mount.volume, &mount.volume));
                    }
                }
                all.push(new(ResourceKind::Container, &found.id, &found.name));
            }
            Ok(all)
        }
        ResourceKind::Network => {
            let found = engine.networks().await?.into_iter().filter(|network| bears(&network.labels));
            Ok(found.map(|network| new(ResourceKind::Network, &network.id, &network.name)).collect())
        }
        ResourceKind::Volume => {
            let found = engine.volumes().await?.into_iter().filter(|volume| bears(&volume.labels));
            Ok(found.map(|volume| new(ResourceKind::Volume, &volume.name, &volume.name)).collect())
        }
        // The engine makes none.
        ResourceKind::Exec => Ok(vec![]),
    }
}

/// The generation that a create was marked with.
fn generation(intent: &Intent) -> i64 {
    let label = intent.stamp.own.iter().find(|(name, _)| name == labels::GENERATION);
    label.and_then(|(_, generation)| generation.parse().ok()).unwrap_or(0)
}

/// What Docker Desktop puts on containers that an extension starts (F107).
fn default_labels(installed: &Installed, kind: ResourceKind) -> Vec<(String, String)> {
    if kind != ResourceKind::Container {
        return vec![];
    }
    let project = [(labels::PROJECT.into(), installed.id.project()), (labels::CONFIG_FILES.into(), String::new())];
    labels::of_desktop(&installed.record.title).into_iter().chain(project).collect()
}
