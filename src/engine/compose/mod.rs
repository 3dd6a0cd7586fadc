//! Docker Compose v2, the program: found once, then run with nothing of the broker's environment.
//!
//! It is run for two things only: `config`, which normalises a file, and `up -d`. What it created is removed through the
//! engine's API, never by `down` or `rm`: Compose selects by label and would take strangers' containers too.

mod child;
mod find;
mod message;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{
    compose::PLUGIN_VARIABLE,
    error::{Error, Reason, Result},
    platform::DEFAULT_PATH,
};

pub use find::Search;

/// How long `config` may take. It opens a few small files and asks nobody.
const CONFIG_LIMIT: Duration = Duration::from_secs(60);
/// No environment file, by a name Compose accepts.
const NO_FILE: &str = if cfg!(windows) { "NUL" } else { "/dev/null" };

/// A usable Compose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compose {
    program: PathBuf,
    version: String,
    stamp: find::Stamp,
}

/// Everything Compose sees of the world. Nothing of the broker's own environment reaches it.
#[derive(Clone)]
pub struct Environment {
    /// The engine, as `DOCKER_HOST`.
    pub docker_host: String,
    /// An empty directory of the broker's, as `DOCKER_CONFIG`: no contexts, no credentials, no plugins.
    pub docker_config: PathBuf,
    /// What `~` and `${HOME}` are.
    pub home: PathBuf,
    /// What `${DESKTOP_PLUGIN_IMAGE}` is.
    pub plugin_image: String,
    /// Variables of the host that were granted. Names that steer Docker or Compose are left out.
    pub granted: Vec<(String, String)>,
}

/// What `compose config` made of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The normalised file.
    pub value: Value,
    /// What Compose warned of.
    pub warnings: Vec<String>,
}

impl std::fmt::Debug for Environment {
    /// Without the values, which are the host's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let granted: Vec<&str> = self.granted.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Environment")
            .field("docker_host", &self.docker_host)
            .field("plugin_image", &self.plugin_image)
            .field("granted", &granted)
            .finish_non_exhaustive()
    }
}

impl Environment {
    fn variables(&self) -> Vec<(OsString, OsString)> {
        let steers = |name: &str| {
            let name = name.to_ascii_uppercase();
            ["DOCKER_", "COMPOSE_", "LD_", "DESKTOP_PLUGIN_"].iter().any(|begin| name.starts_with(begin))
                || matches!(name.as_str(), "PATH" | "HOME")
        };
        let granted = self.granted.iter().filter(|(name, _)| !name.is_empty() && !name.contains('=') && !steers(name));
        let mut all: Vec<(OsString, OsString)> =
            granted.map(|(name, value)| (name.clone().into(), value.clone().into())).collect();
        all.extend([
            // It needs no program for what it is run for.
            ("PATH".into(), DEFAULT_PATH.into()),
            ("HOME".into(), self.home.clone().into()),
            ("DOCKER_HOST".into(), self.docker_host.clone().into()),
            ("DOCKER_CONFIG".into(), self.docker_config.clone().into()),
            (PLUGIN_VARIABLE.into(), self.plugin_image.clone().into()),
        ]);
        all
    }
}

impl Compose {
    /// Finds Compose v2.
    ///
    /// # Errors
    /// `COMPOSE_UNAVAILABLE`, saying where it was looked for, and when only Compose v1 is there.
    pub async fn find(search: &Search) -> Result<Self> {
        find::find(search, None).await
    }

    /// The same; one that was found before is not run again to say its version while its file is the same.
    ///
    /// # Errors
    /// As [`Compose::find`].
    pub async fn find_again(search: &Search, known: Option<&Compose>) -> Result<Self> {
        find::find(search, known).await
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its version, such as `2.26.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Normalises a compose file: `canonical` is what the prepass wrote, `dir` the directory of extracted files that its
    /// paths are relative to. A `.env` file there is read. The engine is not asked. Dropping the future kills Compose.
    ///
    /// # Errors
    /// `COMPOSE_INVALID` with Compose's own words.
    pub async fn config(
        &self,
        canonical: &str,
        dir: &Path,
        project: &str,
        environment: &Environment,
    ) -> Result<Config> {
        let arguments = ["--ansi", "never", "-p", project, "-f", "-", "config", "--format", "json"];
        let run = self.run(dir, &arguments, environment, canonical.as_bytes());
        let output = tokio::time::timeout(CONFIG_LIMIT, run).await.map_err(|_| {
            let limit = CONFIG_LIMIT.as_secs();
            Error::new(Reason::ComposeInvalid, project, format!("compose config took more than {limit} s"))
        })??;
        if !output.success {
            let why = message::of_failure(&output.stderr, dir);
            return Err(Error::new(Reason::ComposeInvalid, project, format!("compose file: {why}")));
        }
        let value = serde_json::from_slice(&output.stdout).map_err(|cause| {
            Error::new(Reason::ComposeInvalid, project, "compose config gave no JSON that can be read").caused_by(cause)
        })?;
        Ok(Config { value, warnings: message::warnings(&output.stderr, dir) })
    }

    /// Creates what `file` says, a file that `model::compose::plan` made, and with `start` starts it. `dir` is the directory
    /// of extracted files. Nothing is pulled, built or asked, and no `.env` file is read. The caller has made sure that nothing of
    /// somebody else carries the project's name. Returns when everything is started, services that wait for another's
    /// health included: the caller bounds the time. Dropping the future kills Compose; what it created stays.
    ///
    /// # Errors
    /// `COMPOSE_FAILED` with Compose's own words, `ENGINE_UNAVAILABLE` where the engine does not answer.
    pub async fn up(
        &self,
        file: &Path,
        dir: &Path,
        project: &str,
        environment: &Environment,
        start: bool,
    ) -> Result<()> {
        let Some(file) = file.to_str() else {
            return Err(Error::new(Reason::ComposeFailed, project, "the path of the compose file is not UTF-8"));
        };
        let mut arguments = vec!["--ansi", "never", "--env-file", NO_FILE, "-p", project, "-f", file];
        arguments.extend(["up", "--pull", "never", "--no-build", "--quiet-pull"]);
        arguments.push(if start { "-d" } else { "--no-start" });
        let output = self.run(dir, &arguments, environment, b"").await?;
        if output.success {
            return Ok(());
        }
        let reason =
            if message::is_engine_away(&output.stderr) { Reason::EngineUnavailable } else { Reason::ComposeFailed };
        Err(Error::new(reason, project, format!("compose up: {}", message::of_failure(&output.stderr, dir))))
    }

    async fn run(
        &self,
        dir: &Path,
        arguments: &[&str],
        environment: &Environment,
        input: &[u8],
    ) -> Result<child::Output> {
        let mut all: Vec<OsString> = vec!["--project-directory".into(), dir.into()];
        all.extend(arguments.iter().map(OsString::from));
        child::run(&self.program, &all, Some(dir), &environment.variables(), input).await.map_err(|cause| {
            let program = self.program.display();
            Error::new(Reason::ComposeUnavailable, "", format!("{program} cannot be run: {cause}")).caused_by(cause)
        })
    }
}
