//! Install: everything, or nothing (design section 5).

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Broker, Progress, Report, Source,
        fetched::Fetched,
        grants::grants_required,
        package::{Files, Package},
        stage::{BackendDraft, Staged, icon_of},
        view::View,
        written,
    },
    claims::Claim,
    failpoint,
    work::Work,
};
use crate::{
    files::extension::GenerationDir,
    model::{
        error::{Error, Reason, Result},
        extension::{BackendRecord, BinaryRecord, Installed, NeedRecord, Record, UiRecord},
        grant::{Decisions, Grant},
        journal::Step,
        manifest::labels,
        problem::Severity,
        reference::ExtensionId,
    },
    random,
};

/// What to install, or to update to, and what is accepted.
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

/// What an install or update has taken so far, to be given back.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) package: Option<Package>,
    pub(super) fetched: Fetched,
    pub(super) claim: Option<Claim>,
    /// Whether the journal knows of it: then the journal says how it is undone.
    pub(super) begun: Option<ExtensionId>,
}

/// A generation that is on record and whose files are in place; its containers are still to be made.
pub(super) struct Laid {
    pub(super) files: GenerationDir,
    pub(super) draft: Option<BackendDraft>,
}

impl Broker {
    /// Begins an install; it goes on by itself and tells `tell` how far it is.
    pub fn start_install(
        self: Arc<Self>,
        request: InstallRequest,
        tell: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Work<View> {
        let broker = self.clone();
        Work::begin(&self, |cancel| async move { broker.install(&request, &Report::new(tell), &cancel).await })
    }

    async fn install(
        self: &Arc<Self>,
        request: &InstallRequest,
        report: &Report,
        cancel: &CancellationToken,
    ) -> Result<View> {
        let mut taken = Taken::default();
        let steps = self.until_called_off(cancel, self.install_steps(request, report, &mut taken)).await;
        // What comes now is not called off: the store would take it all the same.
        let result = match steps {
            Ok(existing) if existing.change.is_none() => Ok(self.end_same(existing, &mut taken).await),
            Ok(installed) => self.finish_install(installed).await,
            Err(error) => Err(error),
        };
        self.end_work(request, "install", &mut taken, result.as_ref().err()).await;
        drop(taken);
        let id = result?.id;
        self.reconciler.some([id.clone()]);
        self.view(&id).await
    }

    /// Last of all: whoever sees it installed may do with it what they want.
    async fn finish_install(&self, installed: Installed) -> Result<Installed> {
        failpoint::current_done(&installed);
        self.store.finish_install(&installed).await?;
        tracing::info!(extension = %installed.id, generation = installed.generation, "installed");
        Ok(installed)
    }

    /// Ends an install or update: what failed is undone. Others may change the extension when `taken` is dropped.
    pub(super) async fn end_work(
        self: &Arc<Self>,
        request: &InstallRequest,
        act: &'static str,
        taken: &mut Taken,
        failure: Option<&Error>,
    ) {
        let id = taken.begun.clone().or_else(|| taken.package.as_ref().map(|package| package.id().clone()));
        if let Some(package) = taken.package.take() {
            package.close().await;
        }
        if let (Some(id), Some(error)) = (&id, failure) {
            self.audit_change(request.uid, act, id, request.source.to_string(), Some(error)).await;
        }
        if let Some(error) = failure {
            tracing::info!(reason = error.reason().as_str(), error = error.message(), "a change failed; undoing it");
            if let Some(id) = taken.begun.take() {
                self.make_good(&id).await;
            }
            self.discard(std::mem::take(&mut taken.fetched)).await;
        }
    }

    /// All steps but the last. What is installed already is returned as it is.
    async fn install_steps(&self, request: &InstallRequest, report: &Report, taken: &mut Taken) -> Result<Installed> {
        let id = self.open_claimed(&request.source, report, taken).await?;
        let Some(package) = &taken.package else { return Err(Error::bug("a package was opened and is gone")) };
        if let Some(existing) = self.store.extension(&id).await? {
            if is_same(&existing, package) {
                return Ok(existing);
            }
            let message = format!("{id} {} is installed already; update it instead", existing.record.version);
            return Err(Error::new(Reason::ExtensionInstalled, id.as_str(), message));
        }
        let accepted = Decisions { allow: request.accept.clone(), deny: vec![] };
        let mut staged = self.stage(package, &accepted, report).await?;
        staged.check()?;
        let decisions = self.decide(request, Decisions::default(), &staged.needs)?;
        let missing = decisions.missing(&staged.needs);
        if !missing.is_empty() {
            return Err(grants_required(id.as_str(), missing));
        }
        let record = record(package, &staged, &taken.fetched, request.ready_timeout);
        close(&mut taken.package).await;
        taken.begun = Some(id.clone());
        let mut installed = self.store.begin_install(id.clone(), record).await?;
        failpoint::begun(Step::InstallFiles);
        self.store.set_decisions(&id, decisions.clone()).await?;
        let laid = self.lay(&mut installed, staged)?;
        let ready_timeout = self.ready_timeout(&installed);
        let blueprint = match &laid.draft {
            Some(draft) => {
                self.blueprint(&installed, draft, &decisions, &laid.files, &mut taken.fetched, report).await?
            }
            None => None,
        };
        installed.record.fetched_images = taken.fetched.images.clone();
        if let Some(blueprint) = blueprint {
            let prepared = self.prepare(&mut installed, blueprint).await?;
            self.step(&mut installed, Step::InstallMake).await?;
            self.make(&installed, &prepared, ready_timeout, vec![], report).await?;
            self.step(&mut installed, Step::InstallWait).await?;
            self.wait_ready(&installed, ready_timeout, report).await?;
        }
        self.audit_accepted(request, "install", &installed, &decisions).await;
        self.give_back_others(&mut taken.fetched, &installed.record.reference).await;
        written::write(&laid.files, &installed)?;
        Ok(installed)
    }

    /// Gives back what was taken for what turned out to be installed already.
    pub(super) async fn end_same(&self, mut existing: Installed, taken: &mut Taken) -> Installed {
        close(&mut taken.package).await;
        self.discard_others(std::mem::take(&mut taken.fetched), &mut existing).await;
        existing
    }

    /// Finds a source, opens it and takes the right to change the extension in it.
    pub(super) async fn open_claimed(
        &self,
        source: &Source,
        report: &Report,
        taken: &mut Taken,
    ) -> Result<ExtensionId> {
        // Before an image is pulled: of two installs, the second shall not take away what the first one brought.
        if let Source::Image { reference, .. } = source {
            taken.claim = Some(self.claims.take(&reference.id).await?);
        }
        let package = taken.package.insert(self.open_package(source, &mut taken.fetched, report).await?);
        let id = package.id().clone();
        if taken.claim.is_none() {
            taken.claim = Some(self.claims.take(&id).await?);
        }
        Ok(id)
    }

    /// Puts a generation's files in their place.
    pub(super) fn lay(&self, installed: &mut Installed, mut staged: Staged) -> Result<Laid> {
        let directory = self.layout.extension(&installed.id);
        directory.create()?;
        self.open_sockets(&installed.id)?;
        let draft = staged.backend.take();
        let files = staged.staging.promote(&directory, installed.generation.unsigned_abs())?;
        if let (Some(ui), Some(manifest)) = (&mut installed.record.ui, &staged.manifest) {
            ui.icon = icon_of(&files, manifest);
        }
        Ok(Laid { files, draft })
    }
}

/// Gives back what a package holds in the engine.
pub(super) async fn close(package: &mut Option<Package>) {
    if let Some(package) = package.take() {
        package.close().await;
    }
}

/// Whether the very same is installed, and at rest. A directory is never known to be: what lies in it may have changed.
pub(super) fn is_same(existing: &Installed, package: &Package) -> bool {
    let image = match package.files {
        Files::Image(_) => package.image.as_ref().map(|image| &image.id),
        Files::Directory(..) => None,
    };
    let reference = package.reference.to_string();
    let same = image.is_some() && existing.record.image_id.as_ref() == image && existing.record.reference == reference;
    same && existing.change.is_none()
}

/// What there is to remember of a generation.
pub(super) fn record(package: &Package, staged: &Staged, fetched: &Fetched, ready_timeout: Option<Duration>) -> Record {
    let as_ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let nonce = random::nonce();
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
        made_networks: vec![],
        ready_timeout_ms: ready_timeout.map(as_ms),
        network_nonce: nonce.clone(),
        nonce,
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
            image: None,
            built: false,
            lasting: vec![],
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
