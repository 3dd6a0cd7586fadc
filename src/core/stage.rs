//! Reads an extension and copies what it needs out of it into a private directory, without changing anything else.
//!
//! Inspect, Validate and Install all do this; only Install goes on. Problems are gathered, not thrown: Validate wants all
//! of them at once.

use std::{collections::BTreeMap, path::Path};

use super::{Broker, InstallPhase, Report, package::Package};
use crate::{
    files::{
        extension::{GenerationDir, Staging},
        unpack::{Limits, Placement},
    },
    model::{
        compose::Prepass,
        error::{Error, Reason, Result},
        grant::{Decisions, Need},
        manifest::{self, FILE as MANIFEST, HostOs, ImagePath, Manifest, labels},
        problem::{Problem, first_error},
        reference::ExtensionId,
    },
};

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
    /// The first file that may not be taken, or cannot be read. It is among the problems.
    pub(super) refused: Option<Error>,
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

impl Staged {
    /// Whether it can be installed.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub(super) fn check(&mut self) -> Result<()> {
        // An image for another machine or engine may be sound; its author cannot mend what its user chose.
        let of_machine = self.failure.take_if(|f| matches!(f.reason(), Reason::PlatformMismatch | Reason::EngineApart));
        let first = of_machine.or_else(|| self.refused.take()).or_else(|| first_error(&self.problems));
        first.or_else(|| self.failure.take()).map_or(Ok(()), Err)
    }

    /// Everything that is wrong with it, the failure included.
    pub(super) fn all_problems(mut self) -> Vec<Problem> {
        if let Some(failure) = self.failure.take() {
            self.problems.push(Problem::error("", failure.subject(), failure.message()));
        }
        self.problems
    }

    /// Notes that a file which a field names may not be taken, or cannot be read.
    fn refuse(&mut self, field: &str, error: Error) {
        self.problems.push(Problem::error(MANIFEST, field, error.message()));
        self.refused.get_or_insert(error);
    }

    /// Its title: the label, else the tab's.
    pub(super) fn title(&self, id: &ExtensionId) -> String {
        title(&self.labels, self.manifest.as_ref(), id)
    }
}

pub(super) fn title(labels: &BTreeMap<String, String>, manifest: Option<&Manifest>, id: &ExtensionId) -> String {
    let tab = || manifest.and_then(|manifest| manifest.ui.as_ref()).map(|ui| ui.title.as_str());
    labels::title(labels).or_else(tab).filter(|title| !title.is_empty()).unwrap_or(id.as_str()).to_owned()
}

impl Broker {
    /// Reads a package into a private directory.
    ///
    /// # Errors
    ///
    /// Only those of the broker's own: `ENGINE_UNAVAILABLE`, `FILE_FAILED`. The rest is in the result.
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
            refused: None,
            failure: self.platform_failure(package).await?,
        };
        let scratch = staged.staging.files().path().to_owned();
        let text = match package.read(&format!("/{MANIFEST}"), &scratch, manifest::MAX_BYTES as u64).await {
            Err(error) if is_of_a_file(&error) => {
                staged.refuse("", error);
                return Ok(staged);
            }
            read => read?,
        };
        let Some(text) = text else {
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
        // What is wrong with one part keeps no other from being looked at.
        let is_sound = parsed.manifest.is_some();
        let Some(manifest) = parsed.manifest.or(parsed.remains) else { return Ok(staged) };
        report.phase(InstallPhase::Staging, "");
        self.stage_files(package, &manifest, &mut staged).await?;
        staged.needs.extend(manifest.needs());
        if cfg!(windows) && manifest.vm.is_some() && package.image.is_some() {
            let message = "its backend runs in containers, which share no directory with a broker on Windows";
            staged.failure.get_or_insert_with(|| Error::new(Reason::EngineApart, "vm", message));
        }
        match manifest.vm.as_ref().map(|vm| &vm.source) {
            None => {}
            Some(manifest::VmSource::Image(image)) => staged.backend = Some(BackendDraft::Image(image.clone())),
            Some(manifest::VmSource::Compose(path)) => {
                self.stage_compose(package, path, &manifest, accepted, &mut staged).await?;
            }
        }
        manifest::place_findings(&mut staged.problems, &text);
        staged.manifest = is_sound.then_some(manifest);
        Ok(staged)
    }

    /// An image for another machine is told before anything of it is used (F05).
    async fn platform_failure(&self, package: &Package) -> Result<Option<Error>> {
        let Some(image) = &package.image else { return Ok(None) };
        let engine = self.engine.platform().await?;
        let fits = |of_image: &str, of_engine: &str| of_image.is_empty() || of_image == of_engine;
        if fits(&image.os, &engine.os) && fits(&image.arch, &engine.arch) {
            return Ok(None);
        }
        let message = format!(
            "{} is built for {}/{} and the engine runs {}/{}; its publisher must add that platform",
            package.reference, image.os, image.arch, engine.os, engine.arch
        );
        Ok(Some(Error::new(Reason::PlatformMismatch, package.reference.to_string(), message)))
    }

    /// Copies UI, icon and host programs.
    async fn stage_files(&self, package: &Package, manifest: &Manifest, staged: &mut Staged) -> Result<()> {
        let files = staged.staging.files().clone();
        if let Some(ui) = &manifest.ui {
            let field = "/ui/dashboard-tab/root";
            match take(package, &ui.root, Placement::Into("ui".into()), files.path(), field, staged).await? {
                Copied::Directory if !files.ui().join(ui.entry_file()).is_file() => {
                    staged.problems.push(Problem::warning(
                        MANIFEST,
                        "/ui/dashboard-tab/src",
                        format!("{} is not in {}: the tab will be empty", ui.entry_file(), ui.root),
                    ))
                }
                Copied::Directory | Copied::Refused => {}
                Copied::File => {
                    staged.problems.push(Problem::error(MANIFEST, field, "names a file; it must be a directory"))
                }
                Copied::Absent => staged.problems.push(absent(field, &ui.root)),
            }
        }
        if let Some(icon) = &manifest.icon {
            make_dir(&files.icon())?;
            let placement = Placement::Into(icon.name().to_owned());
            let taken = take(package, icon, placement, &files.icon(), "/icon", staged).await?;
            if matches!(taken, Copied::Absent | Copied::Directory) {
                let message = format!("the image has no file {icon}; the extension has no icon");
                staged.problems.push(Problem::warning(MANIFEST, "/icon", message));
            }
        }
        if !manifest.binaries.is_empty() {
            make_dir(&files.host())?;
        }
        for binary in &manifest.binaries {
            let placement = Placement::Into(binary.name.clone());
            let taken = take(package, &binary.path, placement, &files.host(), &binary.origin, staged).await?;
            if taken == Copied::Absent {
                staged.problems.push(absent(&binary.origin, &binary.path));
            }
        }
        Ok(())
    }
}

/// What there is at a path of a package, and was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    Directory,
    File,
    Absent,
    /// Nothing was, and why is among the problems.
    Refused,
}

/// Whether it is a failure of a file in the package.
fn is_of_a_file(error: &Error) -> bool {
    matches!(error.reason(), Reason::UnsafeFile | Reason::SourceUnreadable)
}

/// Takes one path of the package; what was left out becomes a warning.
pub(super) async fn take(
    package: &Package,
    path: &ImagePath,
    placement: Placement,
    destination: &Path,
    field: &str,
    staged: &mut Staged,
) -> Result<Copied> {
    let taken = match package.extract(&path.to_string(), placement, destination, Limits::default()).await {
        Err(error) if is_of_a_file(&error) => {
            staged.refuse(field, error);
            return Ok(Copied::Refused);
        }
        taken => taken?,
    };
    let Some(extracted) = taken else { return Ok(Copied::Absent) };
    staged.problems.extend(extracted.warnings.iter().map(|text| Problem::warning(MANIFEST, field, text)));
    Ok(if extracted.is_dir { Copied::Directory } else { Copied::File })
}

pub(super) fn absent(field: &str, path: &ImagePath) -> Problem {
    Problem::error(MANIFEST, field, format!("names {path}, which is not in the image"))
}

pub(super) fn make_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| {
        let shown = path.display().to_string();
        Error::new(Reason::FileFailed, &shown, format!("{shown}: {e}")).caused_by(e)
    })
}

/// The file name of the icon that was staged, if it was.
pub(super) fn icon_of(files: &GenerationDir, manifest: &Manifest) -> Option<String> {
    let name = manifest.icon.as_ref()?.name().to_owned();
    files.icon().join(&name).is_file().then_some(name)
}
