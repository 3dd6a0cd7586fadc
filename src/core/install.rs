//! Install: everything, or nothing (design section 5).

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::Shared};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Broker, Progress, Report, Source,
    claims::Claim,
    fetched::Fetched,
    package::Package,
    stage::{Staged, icon_of},
    view::View,
};
use crate::{
    model::{
        error::{Detail, Error, Reason, Result},
        extension::{BackendRecord, BinaryRecord, Installed, NeedRecord, Phase, Record, UiRecord},
        grant::{Decisions, Grant, Need},
        manifest::labels,
        problem::Severity,
    },
    random,
    store::AuditEntry,
};

/// What to install and what is accepted.
#[derive(Debug, Clone)]
pub struct InstallRequest {
    /// Where it comes from.
    pub source: Source,
    /// Grants that the user accepts.
    pub accept: Vec<Grant>,
    /// Accept everything it needs, and all that Docker Desktop gives.
    pub trust: bool,
    /// How long the backend may take to become ready.
    pub ready_timeout: Option<Duration>,
    /// Who asks.
    pub uid: Option<u32>,
}

/// An install under way.
#[derive(Clone)]
pub struct InstallHandle {
    finished: Shared<oneshot::Receiver<Arc<std::result::Result<View, Failure>>>>,
    cancel: CancellationToken,
}

/// A failure that more than one may look at.
#[derive(Debug)]
struct Failure(std::sync::Mutex<Option<Error>>);

impl InstallHandle {
    /// How it ended. The failure goes to the first who asks.
    pub async fn finished(self) -> Result<View> {
        let gone = || Error::new(Reason::ShuttingDown, "", "the broker stopped and the install was undone");
        match &*self.finished.await.map_err(|_| gone())? {
            Ok(view) => Ok(view.clone()),
            Err(failure) => {
                let taken = failure.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                Err(taken.unwrap_or_else(|| Error::bug("an install's failure was asked for twice")))
            }
        }
    }

    /// Undoes it, unless it is done, when the guard is dropped.
    pub fn cancel_on_drop(&self) -> DropGuard {
        self.cancel.clone().drop_guard()
    }
}

/// What an install has made so far.
#[derive(Default)]
struct Made {
    package: Option<Package>,
    fetched: Fetched,
    claim: Option<Claim>,
    begun: Option<Installed>,
}

impl Broker {
    /// Begins an install; it goes on by itself and tells `tell` how far it is.
    pub fn start_install(
        self: Arc<Self>,
        request: InstallRequest,
        tell: impl Fn(Progress) + Send + Sync + 'static,
    ) -> InstallHandle {
        let cancel = CancellationToken::new();
        let (done, finished) = oneshot::channel();
        let token = cancel.clone();
        let broker = self.clone();
        self.tasks.spawn(async move {
            let result = broker.install(&request, &Report::new(tell), token).await;
            let _ = done.send(Arc::new(result.map_err(|error| Failure(std::sync::Mutex::new(Some(error))))));
        });
        InstallHandle { finished: finished.shared(), cancel }
    }

    async fn install(
        self: &Arc<Self>,
        request: &InstallRequest,
        report: &Report,
        cancel: CancellationToken,
    ) -> Result<View> {
        let mut made = Made::default();
        let result = tokio::select! {
            result = self.install_steps(request, report, &mut made) => result,
            () = cancel.cancelled() => Err(Error::new(Reason::ShuttingDown, "", "the caller went away; the install was undone")),
            () = self.stopping.cancelled() => Err(Error::new(Reason::ShuttingDown, "", "the broker stops; the install was undone")),
        };
        if let Some(package) = made.package.take() {
            package.close().await;
        }
        if let Err(error) = &result {
            tracing::info!(reason = error.reason().as_str(), error = error.message(), "an install failed; undoing it");
            if let Some(begun) = made.begun.take() {
                self.undo(&begun).await;
                self.spawn_late_sweeps();
            }
            self.discard(made.fetched).await;
        }
        drop(made.claim);
        match result? {
            Done::Installed(id) | Done::Already(id) => self.view(&id).await,
        }
    }

    async fn install_steps(&self, request: &InstallRequest, report: &Report, made: &mut Made) -> Result<Done> {
        // Before an image is pulled: of two installs, the second shall not take away what the first one brought.
        if let Source::Image { reference, .. } = &request.source {
            made.claim = Some(self.claims.take(&reference.id)?);
        }
        let package = self.open_package(&request.source, &mut made.fetched, report).await?;
        let package = made.package.insert(package);
        let id = package.id().clone();
        if made.claim.is_none() {
            made.claim = Some(self.claims.take(&id)?);
        }
        if let Some(existing) = self.store.extension(&id).await? {
            return already(&existing, package).map(Done::Already);
        }
        let accepted = Decisions { allow: request.accept.clone(), deny: vec![] };
        let mut staged = self.stage(package, &accepted, report).await?;
        staged.check()?;
        let decisions = decide(request, &staged.needs);
        let missing = decisions.missing(&staged.needs);
        if !missing.is_empty() {
            return Err(grants_required(id.as_str(), missing));
        }
        let mut record = record(package, &staged, &made.fetched);
        if let Some(package) = made.package.take() {
            package.close().await;
        }
        let as_ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        record.ready_timeout_ms = request.ready_timeout.map(as_ms);
        let installed = made.begun.insert(self.store.begin_install(id.clone(), record).await?);
        self.store.set_decisions(&id, decisions.clone()).await?;
        let directory = self.layout.extension(&id);
        directory.create()?;
        self.open_gateway(&id)?;
        let draft = staged.backend.take();
        let files = staged.staging.promote(&directory, installed.generation.unsigned_abs())?;
        if let (Some(ui), Some(manifest)) = (&mut installed.record.ui, &staged.manifest) {
            ui.icon = icon_of(&files, manifest);
        }
        let ready_timeout = self.ready_timeout(installed);
        if let Some(draft) = &draft {
            let fetched = &mut made.fetched;
            if let Some(blueprint) = self.blueprint(installed, draft, &decisions, &files, fetched, report).await? {
                installed.record.fetched_images = fetched.images.clone();
                self.build(installed, blueprint, ready_timeout, report).await?;
                self.wait_ready(installed, ready_timeout, report).await?;
            }
        }
        installed.record.fetched_images = made.fetched.images.clone();
        self.audit(request, installed, &decisions).await;
        self.give_back_others(&mut made.fetched, &installed.record.reference).await;
        let mut finished = installed.clone();
        finished.phase = Phase::Installed;
        // Last of all: whoever sees it installed may do with it what they want.
        self.store.finish_install(&finished).await?;
        tracing::info!(extension = %id, generation = installed.generation, "installed");
        Ok(Done::Installed(id))
    }

    /// Takes away what an install that failed has made. What cannot be taken away now is told in the log and taken away
    /// at the next start.
    pub(super) async fn undo(&self, begun: &Installed) {
        if let Err(error) = self.remove_all(begun).await {
            tracing::warn!(%error, extension = %begun.id, "an install could not be undone; the next start tries again");
        }
    }

    async fn audit(&self, request: &InstallRequest, installed: &Installed, decisions: &Decisions) {
        let grants: Vec<String> = decisions.allow.iter().map(ToString::to_string).collect();
        let entry = AuditEntry {
            extension: installed.id.to_string(),
            uid: request.uid,
            act: "install",
            subject: format!("{} with {}", installed.record.reference, grants.join(" ")),
            decision: "allowed".into(),
        };
        if let Err(error) = self.store.audit(entry).await {
            tracing::warn!(%error, "the audit could not be written");
        }
    }
}

enum Done {
    Installed(crate::model::reference::ExtensionId),
    Already(crate::model::reference::ExtensionId),
}

/// The same image again is no change; another one would be an update.
fn already(existing: &Installed, package: &Package) -> Result<crate::model::reference::ExtensionId> {
    let image = package.image.as_ref().map(|image| &image.id);
    let reference = package.reference.to_string();
    let same = image.is_some() && existing.record.image_id.as_ref() == image && existing.record.reference == reference;
    if same && existing.phase == Phase::Installed {
        return Ok(existing.id.clone());
    }
    let id = &existing.id;
    let message = format!("{id} {} is installed already; uninstall it first", existing.record.version);
    Err(Error::new(Reason::ExtensionInstalled, id.as_str(), message))
}

/// What the user's words amount to.
fn decide(request: &InstallRequest, needs: &[Need]) -> Decisions {
    let mut allow = request.accept.clone();
    if request.trust {
        allow.extend([Grant::EngineFull, Grant::HostExecAny, Grant::BackendPrivileged]);
        let covered: Vec<Grant> = needs.iter().map(|need| need.grant.clone()).collect();
        allow.extend(covered.into_iter().filter(|needed| matches!(needed, Grant::Env(_))));
    }
    allow.sort();
    allow.dedup();
    Decisions { allow, deny: vec![] }
}

/// The refusal that lists exactly what is missing.
pub(super) fn grants_required(subject: &str, mut missing: Vec<Need>) -> Error {
    let mut seen = std::collections::HashSet::new();
    missing.retain(|need| seen.insert(need.grant.clone()));
    let names: Vec<String> = missing.iter().map(|need| need.grant.to_string()).collect();
    let message = format!("{subject} needs grants that were not accepted: {}", names.join(", "));
    Error::new(Reason::GrantsRequired, subject, message).with_detail(Detail::GrantsRequired(missing))
}

fn record(package: &Package, staged: &Staged, fetched: &Fetched) -> Record {
    let manifest = staged.manifest.as_ref();
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let vm = manifest.and_then(|manifest| manifest.vm.as_ref());
    let warnings = staged.problems.iter().filter(|problem| problem.severity == Severity::Warning);
    Record {
        reference: package.reference.to_string(),
        version: package.reference.version().to_owned(),
        image_id: package.image.as_ref().map(|image| image.id.clone()),
        fetched_images: fetched.images.clone(),
        made_volumes: vec![],
        ready_timeout_ms: None,
        remove_volumes: false,
        nonce: random::nonce(),
        title: staged.title(package.id()),
        description: text(labels::description(&staged.labels)),
        vendor: text(labels::vendor(&staged.labels)),
        ui: manifest.and_then(|manifest| manifest.ui.as_ref()).map(|ui| UiRecord {
            title: ui.title.clone(),
            entry: ui.entry.clone(),
            icon: None,
        }),
        backend: vm.filter(|_| staged.backend.is_some()).map(|vm| BackendRecord {
            project: package.id().project(),
            service: String::new(),
            socket: vm.socket.as_ref().map(|socket| socket.as_str().to_owned()),
            services: vec![],
            built: false,
        }),
        binaries: manifest
            .map(|manifest| manifest.binaries.iter())
            .into_iter()
            .flatten()
            .map(|binary| BinaryRecord { name: binary.name.clone(), directory: binary.directory })
            .collect(),
        needs: staged.needs.iter().map(NeedRecord::from).collect(),
        warnings: warnings.map(ToString::to_string).collect(),
    }
}
