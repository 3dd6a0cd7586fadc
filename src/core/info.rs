//! What the broker tells about itself.

use std::time::SystemTime;

use super::Broker;
use crate::{engine::About, exec::Containment, model::error::Result};

/// The broker and its machine.
#[derive(Debug, Clone)]
pub struct Info {
    /// Control socket.
    pub socket: String,
    /// Data directory.
    pub data_dir: String,
    /// Runtime directory.
    pub runtime_dir: String,
    /// Address of the engine.
    pub engine_url: String,
    /// The engine, or why it does not answer.
    pub engine: std::result::Result<About, String>,
    /// Path and version of Compose, or why there is none.
    pub compose: std::result::Result<(String, String), String>,
    /// What works here: name, whether, how or why not. Ordered by name.
    pub capabilities: Vec<(&'static str, bool, String)>,
    /// What holds programs on the host together, and why it is no more than that.
    pub host_containment: (Containment, Option<String>),
    /// Number of installed extensions.
    pub extensions: usize,
    /// When the broker started.
    pub started_at: SystemTime,
}

impl Broker {
    /// Tells about the broker; an engine that is away is told, not an error.
    pub async fn info(&self) -> Result<Info> {
        let engine = self.engine.about().await.map_err(|error| error.to_string());
        let compose = self.compose().await.map_err(|error| error.to_string());
        let mut capabilities = self.shim_capabilities(engine.is_ok());
        capabilities.push(match &engine {
            Ok(about) => ("engine", true, format!("{} {}", about.name, about.version)),
            Err(why) => ("engine", false, why.clone()),
        });
        capabilities.push(match &compose {
            Ok(compose) => ("compose", true, format!("version {}", compose.version())),
            Err(why) => ("compose", false, why.clone()),
        });
        let (shares, detail) = self.file_capability().await;
        capabilities.push(("engine.files", shares, detail));
        capabilities.push((
            "grants.engine",
            false,
            "through a gateway per extension, which needs engine.full: nothing narrower than all or reading exists"
                .into(),
        ));
        capabilities.push((
            "host.isolation",
            false,
            match self.behalf.is_one_of_several() {
                false => "host programs run with the broker's rights; they are refused on the control socket by their ancestry",
                true => "host programs run with the user's rights; they are refused on the control socket by their ancestry",
            }
            .into(),
        ));
        capabilities.sort_by_key(|(name, ..)| *name);
        Ok(Info {
            socket: self.places.socket.display().to_string(),
            data_dir: self.layout.root().display().to_string(),
            runtime_dir: self.places.runtime_dir.display().to_string(),
            engine_url: self.engine.url().to_owned(),
            engine,
            compose: compose.map(|found| (found.program().display().to_string(), found.version().to_owned())),
            capabilities,
            host_containment: self.hub.host_containment(),
            extensions: self.store.extensions("", usize::MAX).await?.len(),
            started_at: self.started_at,
        })
    }

    /// Whether containers share directories with the broker, and what follows.
    async fn file_capability(&self) -> (bool, String) {
        let detail = match self.shares_files().await {
            Ok(true) => return (true, "containers and the broker share directories".to_owned()),
            Ok(false) if cfg!(windows) => "containers share none with Windows: extensions with a backend are refused",
            Ok(false) => {
                "none are shared with the broker: volumes and a tunnel into each container stand for them; what lies \
                 beside a compose file cannot be mounted"
            }
            Err(why) => return (false, why.to_string()),
        };
        (false, detail.to_owned())
    }

    /// What depends on the helper that runs in containers.
    fn shim_capabilities(&self, has_engine: bool) -> Vec<(&'static str, bool, String)> {
        let (available, detail) = match self.hub.runs_in_containers() {
            Ok(()) if has_engine => (true, "through the helper in the container".to_owned()),
            Ok(()) => (false, "without an engine only where a local process stands in for the backend".to_owned()),
            Err(why) => (false, why.to_string()),
        };
        let host = match self.host_programs {
            true => "one process tree per program",
            false => "this broker is set up to run no programs on its machine (host_programs)",
        };
        vec![("exec.backend", available, detail), ("exec.host", self.host_programs, host.to_owned())]
    }
}
