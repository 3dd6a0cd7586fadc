//! Where programs in containers run.

use std::path::Path;

use crate::dockerd::Dockerd;

/// A container to run programs in.
#[derive(Debug, Clone, Copy)]
pub struct InContainer<'a> {
    /// Its engine.
    pub dockerd: &'a Dockerd,
    /// Its full id.
    pub container: &'a str,
    /// As whom, as the engine takes it; `None` is the container's own user.
    pub user: Option<&'a str>,
    /// How it is reached.
    pub reach: Reach<'a>,
}

/// How a shim in a container is reached.
#[derive(Debug, Clone, Copy)]
pub enum Reach<'a> {
    /// By a directory that it shares with the broker: what is mounted at [`crate::model::mounts::CONTAINER_DIR`] there;
    /// 0755.
    Shared(&'a Path),
    /// By a tunnel; the shim is at [`crate::model::mounts::SHIM_APART`] there.
    Apart,
}
