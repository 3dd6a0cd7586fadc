//! Reads an extension and copies what it needs out of it into a private directory, without changing anything else.
//!
//! Inspect, Validate and Install all do this; only Install goes on. Problems are gathered, not thrown: Validate wants all
//! of them at once.

use std::{collections::BTreeMap, io::Read, path::Path};

use super::{
    Broker, InstallPhase, Report,
    package::{Package, blocking},
};
use crate::{
    engine::compose::{Compose, Environment, Search},
    files::{
        extension::{GenerationDir, Staging},
        unpack::{Limits, Placement},
    },
    model::{
        compose::{self, Context, Plan, PluginImage, Prepass},
        error::{Error, Reason, Result},
        grant::{Decisions, Grant, Need},
        manifest::{self, HostOs, ImagePath, Manifest, labels},
        problem::{Problem, first_error},
        reference::ExtensionId,
    },
};

/// Largest manifest and compose file that is read.
const MAX_TEXT_BYTES: u64 = 1 << 20;
/// Most of what one name beside a compose file at the root of an image may bring.
const MAX_BESIDE_BYTES: u64 = 256 << 20;
/// The manifest's name, in the image and in messages.
pub(super) const MANIFEST: &str = "metadata.json";

/// An extension as read, its files in a private directory.
pub(super) struct Staged {
    /// The directory; it goes with the value unless it is promoted.
    pub(super) staging: Staging,
    /// The manifest's text.
    pub(super) manifest_json: String,
    /// The manifest, where it is sound.
    pub(super) manifest: Option<Manifest>,
    /// Labels of the image.
    pub(super) labels: BTreeMap<String, String>,
    /// What is wrong or worth knowing.
    pub(super) problems: Vec<Problem>,
    /// Its backend, where it has one that can be understood.
    pub(super) backend: Option<BackendDraft>,
    /// What it cannot work without.
    pub(super) needs: Vec<Need>,
    /// The first failure that is no problem of a file: no Compose, a wrong platform.
    pub(super) failure: Option<Error>,
}

/// A backend that is not running yet.
pub(super) enum BackendDraft {
    /// One container of one image.
    Image(String),
    /// A compose file, as the author wrote it.
    Compose(Box<Prepass>),
}

/// Who a compose file is planned for.
pub(super) struct Planned<'a> {
    /// The extension.
    pub(super) id: &'a ExtensionId,
    /// Its title.
    pub(super) title: &'a str,
    /// Its generation; 0 where it has none yet.
    pub(super) generation: i64,
    /// Its nonce; empty where it has none yet.
    pub(super) nonce: &'a str,
    /// Its image.
    pub(super) image: PluginImage,
    /// What it may do.
    pub(super) decisions: &'a Decisions,
}

impl Staged {
    /// Whether it can be installed. Errors: the first failure.
    pub(super) fn check(&mut self) -> Result<()> {
        // An image for another machine may be sound; its author cannot mend what its user chose.
        match first_error(&self.problems) {
            Some(error) if self.failure.as_ref().is_none_or(|f| f.reason() != Reason::PlatformMismatch) => Err(error),
            _ => self.failure.take().map_or(Ok(()), Err),
        }
    }

    /// Everything that is wrong with it, the failure included.
    pub(super) fn all_problems(mut self) -> Vec<Problem> {
        if let Some(failure) = self.failure.take() {
            self.problems.push(Problem::error("", failure.subject(), failure.message()));
        }
        self.problems
    }

    /// Its title: the label, else the tab's.
    pub(super) fn title(&self, id: &ExtensionId) -> String {
        title(&self.labels, self.manifest.as_ref(), id)
    }
}

fn title(labels: &BTreeMap<String, String>, manifest: Option<&Manifest>, id: &ExtensionId) -> String {
    let tab = || manifest.and_then(|manifest| manifest.ui.as_ref()).map(|ui| ui.title.as_str());
    labels::title(labels).or_else(tab).filter(|title| !title.is_empty()).unwrap_or(id.as_str()).to_owned()
}

impl Broker {
    /// Reads a package into a private directory.
    ///
    /// Errors: only those of the broker's own: ENGINE_UNAVAILABLE, FILE_FAILED. The rest is in the result.
    pub(super) async fn stage(&self, package: &Package, accepted: &Decisions, report: &Report) -> Result<Staged> {
        let _turn = self.readers.acquire().await.map_err(|e| Error::bug("nobody may read").caused_by(e))?;
        report.phase(InstallPhase::Reading, MANIFEST);
        let labels = package.labels();
        let mut staged = Staged {
            staging: self.layout.stage()?,
            manifest_json: String::new(),
            manifest: None,
            problems: Vec::new(),
            labels,
            backend: None,
            needs: Vec::new(),
            failure: self.platform_failure(package).await?,
        };
        let scratch = staged.staging.files().path().to_owned();
        let Some(text) = package.read("/metadata.json", &scratch, MAX_TEXT_BYTES).await? else {
            let message = "is missing: an extension has a metadata.json at the root of its image";
            staged.problems.push(Problem::error(MANIFEST, "", message));
            return Ok(staged);
        };
        staged.staging.files().write_private(MANIFEST, &text)?;
        let parsed = manifest::parse(&text, HostOs::CURRENT);
        staged.manifest_json = String::from_utf8_lossy(&text).into_owned();
        staged.problems.extend(parsed.problems);
        if package.image.is_some() {
            staged.problems.extend(labels::check(&staged.labels));
        }
        let Some(manifest) = parsed.manifest else { return Ok(staged) };
        report.phase(InstallPhase::Staging, "");
        self.stage_files(package, &manifest, &mut staged).await?;
        staged.needs.extend(manifest.needs());
        match manifest.vm.as_ref().map(|vm| &vm.source) {
            None => {}
            Some(manifest::Source::Image(image)) => staged.backend = Some(BackendDraft::Image(image.clone())),
            Some(manifest::Source::Compose(path)) => {
                self.stage_compose(package, path, &manifest, accepted, &mut staged).await?;
            }
        }
        manifest::place_findings(&mut staged.problems, &text);
        staged.manifest = Some(manifest);
        Ok(staged)
    }

    /// An image for another machine is told before anything of it is used (F05).
    async fn platform_failure(&self, package: &Package) -> Result<Option<Error>> {
        let Some(image) = &package.image else { return Ok(None) };
        let about = self.engine.about().await?;
        let fits = |of_image: &str, of_engine: &str| of_image.is_empty() || of_image == of_engine;
        if fits(&image.os, &about.os) && fits(&image.arch, &about.arch) {
            return Ok(None);
        }
        let message = format!(
            "{} is built for {}/{} and the engine runs {}/{}; its publisher must add that platform",
            package.reference, image.os, image.arch, about.os, about.arch
        );
        Ok(Some(Error::new(Reason::PlatformMismatch, package.reference.to_string(), message)))
    }

    /// Copies UI, icon and host programs.
    async fn stage_files(&self, package: &Package, manifest: &Manifest, staged: &mut Staged) -> Result<()> {
        let files = staged.staging.files().clone();
        if let Some(ui) = &manifest.ui {
            let field = "/ui/dashboard-tab/root";
            match take(package, &ui.root, Placement::Into("ui".into()), files.path(), field, staged).await? {
                Some(true) if !files.ui().join(ui.entry_file()).is_file() => staged.problems.push(Problem::warning(
                    MANIFEST,
                    "/ui/dashboard-tab/src",
                    format!("{} is not in {}: the tab will be empty", ui.entry_file(), ui.root),
                )),
                Some(true) => {}
                Some(false) => {
                    staged.problems.push(Problem::error(MANIFEST, field, "names a file; it must be a directory"))
                }
                None => staged.problems.push(absent(field, &ui.root)),
            }
        }
        if let Some(icon) = &manifest.icon {
            make_dir(&files.icon())?;
            let placement = Placement::Into(icon.name().to_owned());
            if take(package, icon, placement, &files.icon(), "/icon", staged).await? != Some(false) {
                let message = format!("the image has no file {icon}; the extension has no icon");
                staged.problems.push(Problem::warning(MANIFEST, "/icon", message));
            }
        }
        if !manifest.binaries.is_empty() {
            make_dir(&files.host())?;
        }
        for binary in &manifest.binaries {
            let placement = Placement::Into(binary.name.clone());
            if take(package, &binary.path, placement, &files.host(), &binary.origin, staged).await?.is_none() {
                staged.problems.push(absent(&binary.origin, &binary.path));
            }
        }
        Ok(())
    }

    /// Copies and understands the compose file.
    async fn stage_compose(
        &self,
        package: &Package,
        path: &ImagePath,
        manifest: &Manifest,
        accepted: &Decisions,
        staged: &mut Staged,
    ) -> Result<()> {
        const FIELD: &str = "/vm/composefile";
        let files = staged.staging.files().clone();
        let directory = files.compose();
        make_dir(&directory)?;
        // Beside a compose file in a directory of its own may lie what it refers to; beside one at the root lies the
        // whole image, of which only what it names is taken.
        let own_directory = path.parent();
        if let Some(parent) = &own_directory {
            take(package, parent, Placement::Into("compose".into()), files.path(), FIELD, staged).await?;
        }
        let placement = Placement::Into(path.name().to_owned());
        if take(package, path, placement, &directory, FIELD, staged).await? != Some(false) {
            staged.problems.push(absent(FIELD, path));
            return Ok(());
        }
        let name = path.name().to_owned();
        let prepass = match self.prepass(package, &directory, &name, own_directory.is_none()).await {
            Ok(prepass) => prepass,
            Err(error) => {
                staged.problems.push(Problem::error(path.to_string(), error.subject(), error.message()));
                return Ok(());
            }
        };
        if !prepass.problems.is_empty() {
            staged.problems.extend(prepass.problems.iter().map(|found| {
                let place = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
                Problem::error(path.to_string(), &found.field, &found.message)
                    .at(place(found.line), place(found.column))
            }));
            return Ok(());
        }
        let title = title(&staged.labels, Some(manifest), package.id());
        let image = PluginImage {
            reference: package.reference.to_string(),
            id: package.image.as_ref().map(|image| image.id.clone()),
        };
        let planned = Planned { id: package.id(), title: &title, generation: 0, nonce: "", image, decisions: accepted };
        match self.plan(&planned, &prepass, &directory).await {
            Ok(plan) => {
                let warnings = prepass.warnings.iter().chain(&plan.warnings);
                staged.problems.extend(warnings.map(|text| Problem::warning(path.to_string(), "", text)));
                staged.needs.extend(plan.needs.clone());
                staged.needs.extend(host_variables(&prepass));
                staged.backend = Some(BackendDraft::Compose(Box::new(prepass)));
            }
            Err(error) if error.reason() == Reason::ComposeInvalid => {
                staged.problems.push(Problem::error(path.to_string(), error.subject(), error.message()));
            }
            Err(error) => staged.failure = staged.failure.take().or(Some(error)),
        }
        Ok(())
    }

    /// Looks at the compose file and what it extends, and puts the checked texts in place of the author's.
    async fn prepass(&self, package: &Package, directory: &Path, name: &str, at_root: bool) -> Result<Prepass> {
        let mut taken = Vec::new();
        loop {
            let (prepass, checked) = read_compose(directory, name).await?;
            let wanted = prepass.files.iter().filter(|_| at_root).cloned().chain([".env".to_owned()]);
            let missing: Vec<String> = wanted.filter(|file| !taken.contains(file)).collect();
            if !at_root || missing.is_empty() {
                return finish(directory, prepass, checked);
            }
            for file in missing {
                take_beside(package, directory, &file).await?;
                taken.push(file);
            }
        }
    }

    /// What a compose file amounts to for an extension, its files lying in `directory`.
    pub(super) async fn plan(&self, planned: &Planned<'_>, prepass: &Prepass, directory: &Path) -> Result<Plan> {
        let compose = self.compose().await?;
        let project = planned.id.project();
        let environment = self.compose_environment(&planned.image.reference, prepass, planned.decisions);
        let config = compose.config(&prepass.canonical, directory, &project, &environment).await?;
        let own = self.layout.extension(planned.id);
        let mut plan = compose::plan(
            config.value,
            &Context {
                extension: planned.id.to_string(),
                title: planned.title.to_owned(),
                project,
                generation: planned.generation,
                nonce: planned.nonce.to_owned(),
                guest_dir: own.guest(),
                broker_dir: own.broker(),
                files_dir: directory.to_owned(),
                engine_socket: Some(self.engine.socket().to_owned()),
                plugin_image: planned.image.clone(),
                plugin_services: prepass.plugin_services.clone(),
                author_order: prepass.services.clone(),
                forbidden_binds: vec![self.layout.root().to_owned(), self.places.runtime_dir.clone()],
            },
        )?;
        plan.warnings.extend(config.warnings);
        Ok(plan)
    }

    /// Compose v2 on this machine.
    pub(super) async fn compose(&self) -> Result<Compose> {
        let variable = |name: &str| std::env::var_os(name);
        let search = Search {
            program: None,
            docker_config: variable("DOCKER_CONFIG").map(Into::into),
            home: variable("HOME").map(Into::into),
            path: variable("PATH"),
        };
        Compose::find(&search).await
    }

    /// All that Compose sees of the world.
    pub(super) fn compose_environment(&self, image: &str, prepass: &Prepass, decisions: &Decisions) -> Environment {
        let granted = prepass.variables.iter().filter(|variable| decisions.allows(&Grant::Env(variable.name.clone())));
        Environment {
            docker_host: self.engine.url(),
            docker_config: self.layout.docker_config(),
            home: std::env::var_os("HOME").map(Into::into).unwrap_or_else(|| "/".into()),
            plugin_image: image.to_owned(),
            granted: granted
                .filter_map(|variable| Some((variable.name.clone(), std::env::var(&variable.name).ok()?)))
                .collect(),
        }
    }
}

/// Takes one file or directory that a compose file at the root of an image names. One that is not there is Compose's to
/// complain of.
async fn take_beside(package: &Package, directory: &Path, file: &str) -> Result<()> {
    let target = directory.join(file);
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else { return Ok(()) };
    make_dir(parent)?;
    let limits = Limits { max_bytes: MAX_BESIDE_BYTES, ..Limits::default() };
    package.extract(file, Placement::Into(name.to_string_lossy().into_owned()), parent, limits).await.map(|_| ())
}

/// A variable that the host has and the file has no default for is a need; any other is empty or its default.
fn host_variables(prepass: &Prepass) -> Vec<Need> {
    let wanted = prepass.variables.iter().filter(|variable| !variable.has_default);
    let set = wanted.filter(|variable| std::env::var_os(&variable.name).is_some());
    set.map(|variable| Need { grant: Grant::Env(variable.name.clone()), origin: variable.field.clone() }).collect()
}

async fn read_compose(directory: &Path, name: &str) -> Result<(Prepass, Vec<compose::CheckedFile>)> {
    let (directory, name) = (directory.to_owned(), name.to_owned());
    blocking(move || {
        let dir = cap_std::fs::Dir::open_ambient_dir(&directory, cap_std::ambient_authority());
        let dir = dir.map_err(|e| Error::bug("the directory of the compose file is gone").caused_by(e))?;
        compose::prepass_all(&name, |file| {
            let read = || {
                let mut text = Vec::new();
                // One byte more tells that it is too large.
                dir.open(file)?.take(MAX_TEXT_BYTES + 1).read_to_end(&mut text)?;
                Ok(text)
            };
            read().map_err(|e: std::io::Error| Error::new(Reason::ComposeInvalid, file, format!("{file}: {e}")))
        })
    })
    .await
}

fn finish(directory: &Path, prepass: Prepass, checked: Vec<compose::CheckedFile>) -> Result<Prepass> {
    // Compose reads them whole, and takes many times their size to do so.
    let texts = prepass.texts.iter().map(String::as_str).chain([".env"]);
    let is_large =
        |file: &&str| std::fs::metadata(directory.join(file)).is_ok_and(|found| found.len() > MAX_TEXT_BYTES);
    if let Some(large) = texts.into_iter().find(is_large) {
        let message = format!("{large} is larger than {MAX_TEXT_BYTES} bytes");
        return Err(Error::new(Reason::ComposeInvalid, large, message));
    }
    for file in checked {
        let path = directory.join(&file.path);
        std::fs::write(&path, &file.canonical).map_err(|e| {
            let shown = path.display().to_string();
            Error::new(Reason::FileFailed, &shown, format!("{shown}: {e}")).caused_by(e)
        })?;
    }
    Ok(prepass)
}

/// Takes one path of the package and tells whether it is a directory; what was left out becomes a warning.
async fn take(
    package: &Package,
    path: &ImagePath,
    placement: Placement,
    destination: &Path,
    field: &str,
    staged: &mut Staged,
) -> Result<Option<bool>> {
    let taken = match package.extract(&path.to_string(), placement, destination, Limits::default()).await {
        Err(error) if matches!(error.reason(), Reason::UnsafeFile | Reason::SourceUnreadable) => {
            staged.problems.push(Problem::error(MANIFEST, field, error.message()));
            staged.failure = staged.failure.take().or(Some(error));
            return Ok(Some(true));
        }
        other => other?,
    };
    Ok(taken.map(|extracted| {
        let warnings = extracted.warnings.iter().map(|text| Problem::warning(MANIFEST, field, text));
        staged.problems.extend(warnings);
        extracted.is_dir
    }))
}

fn absent(field: &str, path: &ImagePath) -> Problem {
    Problem::error(MANIFEST, field, format!("names {path}, which is not in the image"))
}

fn make_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| {
        let shown = path.display().to_string();
        Error::new(Reason::FileFailed, &shown, format!("{shown}: {e}")).caused_by(e)
    })
}

/// Where a generation keeps what was staged for it.
pub(super) fn icon_of(files: &GenerationDir, manifest: &Manifest) -> Option<String> {
    let name = manifest.icon.as_ref()?.name().to_owned();
    files.icon().join(&name).is_file().then_some(name)
}
