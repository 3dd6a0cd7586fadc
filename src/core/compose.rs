//! A compose file on its way from the package to what Compose may see (design section 5).

use std::{io::Read, path::Path, sync::PoisonError};

use super::{
    Broker, Places,
    blocking::blocking,
    package::Package,
    stage::{BackendDraft, Copied, Staged, absent, make_dir, take, title},
};
use crate::{
    engine::compose::{Compose, Environment, Search},
    files::unpack::{Limits, Placement},
    model::{
        compose::{self, Context, Plan, PluginImage, Prepass},
        error::{Error, Reason, Result},
        grant::{Decisions, Grant, Need},
        manifest::{ImagePath, Manifest},
        mounts::Mounts,
        problem::Problem,
        reference::ExtensionId,
    },
};

/// The most that is read of a compose file.
const MAX_TEXT_BYTES: u64 = compose::MAX_TEXT_BYTES as u64;
/// Most of what one name beside a compose file at the root of an image may bring.
const MAX_BESIDE_BYTES: u64 = 256 << 20;

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
    /// The nonce of its networks, which outlive an update; empty where it has none yet.
    pub(super) network_nonce: &'a str,
    /// Its image.
    pub(super) image: PluginImage,
    /// What it may do.
    pub(super) decisions: &'a Decisions,
}

impl Broker {
    /// Copies and understands the compose file.
    pub(super) async fn stage_compose(
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
        match take(package, path, placement, &directory, FIELD, staged).await? {
            Copied::File => {}
            Copied::Refused => return Ok(()),
            Copied::Absent | Copied::Directory => {
                staged.problems.push(absent(FIELD, path));
                return Ok(());
            }
        }
        let name = path.name().to_owned();
        let prepass = match self.prepass(package, &directory, &name, own_directory.is_none()).await {
            Ok(prepass) => prepass,
            Err(error) => {
                staged.problems.push(Problem::error(path.to_string(), error.subject(), error.message()));
                return Ok(());
            }
        };
        if !prepass.flaws.is_empty() {
            let file = path.to_string();
            staged.problems.extend(prepass.flaws.iter().map(|flaw| flaw.in_file(&file)));
            return Ok(());
        }
        let title = title(&staged.labels, Some(manifest), package.id());
        let image = PluginImage {
            reference: package.reference.to_string(),
            id: package.image.as_ref().map(|image| image.id.clone()),
        };
        let planned = Planned {
            id: package.id(),
            title: &title,
            generation: 0,
            nonce: "",
            network_nonce: "",
            image,
            decisions: accepted,
        };
        match self.plan(&planned, &prepass, &directory).await {
            Ok(plan) => {
                let warnings = prepass.warnings.iter().chain(&plan.warnings);
                staged.problems.extend(warnings.map(|text| Problem::warning(path.to_string(), "", text)));
                staged.needs.extend(plan.needs.clone());
                staged.needs.extend(self.host_variables(&prepass));
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
        let mounts = self.planned_mounts(planned).await?;
        let engine_socket = matches!(mounts, Mounts::Shared { .. }).then(|| self.engine.socket().to_owned());
        let Places { data_dir, runtime_dir, socket } = self.places.clone();
        let mut plan = compose::plan(
            config.value,
            &Context {
                extension: planned.id.to_string(),
                title: planned.title.to_owned(),
                project,
                generation: planned.generation,
                nonce: planned.nonce.to_owned(),
                network_nonce: planned.network_nonce.to_owned(),
                key: self.key.clone(),
                mounts,
                files_dir: directory.to_owned(),
                engine_socket,
                plugin_image: planned.image.clone(),
                plugin_services: prepass.plugin_services.clone(),
                author_order: prepass.services.clone(),
                forbidden_binds: vec![data_dir, runtime_dir, socket],
            },
        )?;
        plan.warnings.extend(config.warnings);
        Ok(plan)
    }

    /// What the services have of the broker. Before an install nobody has to answer for that.
    async fn planned_mounts(&self, planned: &Planned<'_>) -> Result<Mounts> {
        match self.mounts(planned.id).await {
            Err(_) if planned.generation == 0 => {
                let own = self.layout.extension(planned.id);
                Ok(Mounts::Shared { guest_dir: own.guest(), broker_dir: own.broker() })
            }
            mounts => mounts,
        }
    }

    /// Compose v2 on this machine.
    pub(super) async fn compose(&self) -> Result<Compose> {
        let search = Search::of_environment();
        let mut known = self.found_compose.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if known.is_none() {
            // A run before this one may have found it.
            known = self.store.found_compose().await?.and_then(|found| serde_json::from_str(&found).ok());
        }
        let found = Compose::find_again(&search, known.as_ref()).await?;
        *self.found_compose.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
        if known.as_ref() != Some(&found)
            && let Ok(text) = serde_json::to_string(&found)
            && let Err(error) = self.store.remember_compose(text).await
        {
            tracing::debug!(%error, "the next start has to ask Compose for its version again");
        }
        Ok(found)
    }

    /// All that Compose sees of the world.
    pub(super) fn compose_environment(&self, image: &str, prepass: &Prepass, decisions: &Decisions) -> Environment {
        let granted = prepass.variables.iter().filter(|variable| decisions.allows(&Grant::Env(variable.name.clone())));
        Environment {
            // Wherever it is: Compose has none of what the way there takes.
            docker_host: format!("unix://{}", self.engine.socket().display()),
            docker_config: self.layout.docker_config(),
            home: self.behalf.home(),
            plugin_image: image.to_owned(),
            granted: granted
                .filter_map(|variable| Some((variable.name.clone(), self.behalf.variable(&variable.name)?)))
                .collect(),
        }
    }

    /// A variable that the host has and the file has no default for is a need; any other is empty or its default.
    fn host_variables(&self, prepass: &Prepass) -> Vec<Need> {
        let wanted = prepass.variables.iter().filter(|variable| !variable.has_default);
        let set = wanted.filter(|variable| self.behalf.variable(&variable.name).is_some());
        set.map(|variable| Need { grant: Grant::Env(variable.name.clone()), origin: variable.field.clone() }).collect()
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
