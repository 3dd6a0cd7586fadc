//! Engines, by their sockets.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// An engine that answers, or should: the machine's own unless said otherwise.
#[derive(Debug, Clone)]
pub(crate) struct EngineAt(PathBuf);

/// Whether the tests run on Podman, see tests/setup/on-engine.sh: what it has no word for, it cannot be asked.
pub(crate) fn on_podman() -> bool {
    std::env::var_os("LONGSHORE_TEST_ENGINE").is_some_and(|engine| engine == "podman")
}

impl Default for EngineAt {
    fn default() -> Self {
        EngineAt("/var/run/docker.sock".into())
    }
}

impl EngineAt {
    /// The engine that listens on this socket.
    pub(crate) fn socket(path: impl Into<PathBuf>) -> Self {
        EngineAt(path.into())
    }

    /// Its socket.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Its address, as DOCKER_HOST spells it.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.0.display())
    }

    /// A client, to look at what the broker did.
    pub(crate) fn client(&self) -> bollard::Docker {
        bollard::Docker::connect_with_unix(&self.url(), 60, bollard::API_DEFAULT_VERSION)
            .unwrap_or_else(|error| panic!("no engine at {}: {error}; `make test` starts one", self.url()))
    }

    /// The docker CLI, speaking to it.
    pub(crate) fn cli(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(args).env("DOCKER_HOST", self.url()).env_remove("DOCKER_CONTEXT");
        command
    }

    /// What a command of the docker CLI says, which must not fail.
    pub(crate) fn docker(&self, args: &[&str]) -> String {
        let output = self.cli(args).output().unwrap();
        assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}
