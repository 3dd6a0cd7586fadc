//! Where Compose is.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{Compose, child};
use crate::{
    model::error::{Error, Reason, Result},
    user::docker_config,
};

/// How long a program may take to say its version.
const VERSION_LIMIT: Duration = Duration::from_secs(20);
/// The directories of the `docker` CLI's plugins for all users, in its order.
const PLUGIN_DIRS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];
/// The program's name, as a plugin and alone: the plugin runs alone too.
const NAME: &str = if cfg!(windows) { "docker-compose.exe" } else { "docker-compose" };

/// Where to look for Compose.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// The program itself; then nothing else is looked at.
    pub program: Option<PathBuf>,
    /// Where Docker's own tools keep the user's configuration.
    pub docker_config: Option<PathBuf>,
    /// The user's `PATH`.
    pub path: Option<OsString>,
}

impl Search {
    /// Where the user that this process runs as would find it.
    pub fn of_environment() -> Self {
        let variable = |name: &str| std::env::var_os(name);
        Search { program: None, docker_config: docker_config(variable), path: variable("PATH") }
    }

    /// The programs to try, in order.
    fn candidates(&self) -> Vec<PathBuf> {
        if let Some(program) = &self.program {
            return vec![program.clone()];
        }
        let of_user = self.docker_config.iter().map(|dir| dir.join("cli-plugins"));
        let plugins = of_user.chain(PLUGIN_DIRS.iter().map(PathBuf::from));
        let alone = self.path.iter().flat_map(|path| std::env::split_paths(path)).filter(|dir| dir.is_absolute());
        plugins.chain(alone).map(|dir| dir.join(NAME)).collect()
    }
}

/// What changes when another program is put in a program's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    /// Of a file; `None` for what is none.
    fn of(program: &Path) -> Option<Stamp> {
        let found = std::fs::metadata(program).ok().filter(std::fs::Metadata::is_file)?;
        Some(Stamp { length: found.len(), modified: found.modified().ok() })
    }
}

/// Takes the first candidate that is Compose v2 or later.
pub(super) async fn find(search: &Search, known: Option<&Compose>) -> Result<Compose> {
    let candidates = search.candidates();
    let mut rejected = Vec::new();
    for (program, stamp) in candidates.iter().filter_map(|program| Some((program, Stamp::of(program)?))) {
        if let Some(known) = known.filter(|known| known.program == *program && known.stamp == stamp) {
            return Ok(known.clone());
        }
        match version_of(program).await {
            Ok(version) if major(&version).is_some_and(|major| major >= 2) => {
                return Ok(Compose { program: program.clone(), version, stamp });
            }
            Ok(version) => rejected.push(format!("{} is version {version}", program.display())),
            Err(why) => rejected.push(format!("{}: {why}", program.display())),
        }
    }
    let found = if rejected.is_empty() {
        let dirs: Vec<String> = candidates.iter().map(|program| program.display().to_string()).collect();
        format!("there is none of {}", dirs.join(", "))
    } else {
        rejected.join("; ")
    };
    let why = format!("Docker Compose v2 is needed and was not found ({found}); install the docker-compose-v2 plugin");
    Err(Error::new(Reason::ComposeUnavailable, "", why))
}

async fn version_of(program: &Path) -> Result<String, String> {
    let arguments = ["version".into(), "--short".into()];
    let run = child::run(program, &arguments, None, &[], b"");
    let output = tokio::time::timeout(VERSION_LIMIT, run)
        .await
        .map_err(|_| format!("did not say its version in {} s", VERSION_LIMIT.as_secs()))?
        .map_err(|cause| format!("cannot be run: {cause}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.trim().trim_start_matches('v');
    if !output.success || major(version).is_none() {
        return Err("did not say its version".into());
    }
    Ok(version.chars().take(64).collect())
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    /// Written by another process: a descriptor that is open for writing here could leak into a program that another
    /// test starts at this moment, and the script would be busy.
    fn program(dir: &Path, script: &str) {
        let path = dir.join(NAME);
        let write = format!("printf '#!/bin/sh\\n{script}\\n' > {0} && chmod 755 {0}", path.display());
        assert!(std::process::Command::new("/bin/sh").args(["-c", &write]).status().unwrap().success());
    }

    #[tokio::test]
    async fn version_one_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        program(dir.path(), "echo 1.29.2");
        let search = Search { program: Some(dir.path().join(NAME)), ..Search::default() };
        let error = find(&search, None).await.unwrap_err();
        assert_eq!(error.reason(), Reason::ComposeUnavailable);
        assert!(error.message().contains("is version 1.29.2"), "{error}");
    }

    #[tokio::test]
    async fn the_users_own_plugin_comes_first() {
        let config = tempfile::tempdir().unwrap();
        let dir = config.path().join("cli-plugins");
        std::fs::create_dir(&dir).unwrap();
        program(&dir, "echo v99.1.0");
        let search = Search { docker_config: Some(config.path().into()), ..Search::default() };
        let found = find(&search, None).await.unwrap();
        assert_eq!((found.version(), found.program()), ("99.1.0", dir.join(NAME).as_path()));
    }

    #[tokio::test]
    async fn a_program_is_asked_once_and_another_in_its_place_anew() {
        let dir = tempfile::tempdir().unwrap();
        let asked = dir.path().join("asked");
        program(dir.path(), &format!("echo x >> {}; echo 2.1.0", asked.display()));
        let search = Search { program: Some(dir.path().join(NAME)), ..Search::default() };
        let first = find(&search, None).await.unwrap();
        assert_eq!(find(&search, Some(&first)).await.unwrap(), first);
        assert_eq!(std::fs::read_to_string(&asked).unwrap(), "x\n");
        program(dir.path(), "echo 2.33.0");
        assert_eq!(find(&search, Some(&first)).await.unwrap().version(), "2.33.0");
    }

    #[tokio::test]
    async fn nothing_found_says_where_it_was_looked_for() {
        let search = Search { program: Some("/nowhere/docker-compose".into()), ..Search::default() };
        assert!(find(&search, None).await.unwrap_err().message().contains("/nowhere/docker-compose"));
    }
}
