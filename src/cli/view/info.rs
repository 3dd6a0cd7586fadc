//! The broker itself.

use serde::Serialize;

use crate::pb;

/// Versions, engine, capabilities and limits.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct InfoView {
    pub(in crate::cli) version: String,
    pub(in crate::cli) pid: i64,
    pub(in crate::cli) uid: i64,
    pub(in crate::cli) user_id: i64,
    pub(in crate::cli) is_for_several_users: bool,
    pub(in crate::cli) socket: String,
    pub(in crate::cli) data_dir: String,
    pub(in crate::cli) runtime_dir: String,
    pub(in crate::cli) extensions: i32,
    pub(in crate::cli) engine: EngineView,
    pub(in crate::cli) compose: ComposeView,
    pub(in crate::cli) capabilities: Vec<CapabilityView>,
    pub(in crate::cli) limits: LimitsView,
    pub(in crate::cli) host_containment: HostContainmentView,
    pub(in crate::cli) started_at: Option<String>,
    pub(in crate::cli) platform: String,
    pub(in crate::cli) api_versions: Vec<String>,
}

/// The container engine.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct EngineView {
    pub(in crate::cli) url: String,
    pub(in crate::cli) reachable: bool,
    pub(in crate::cli) error: String,
    pub(in crate::cli) name: String,
    pub(in crate::cli) version: String,
    pub(in crate::cli) api_version: String,
    pub(in crate::cli) platform: String,
}

/// Compose v2.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct ComposeView {
    pub(in crate::cli) path: String,
    pub(in crate::cli) version: String,
    pub(in crate::cli) error: String,
}

/// One thing that may or may not work on this machine.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct CapabilityView {
    pub(in crate::cli) name: String,
    pub(in crate::cli) available: bool,
    pub(in crate::cli) detail: String,
}

/// The bounds in force.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct LimitsView {
    pub(in crate::cli) max_body_bytes: i64,
    pub(in crate::cli) max_request_bytes: i64,
    pub(in crate::cli) max_descriptors: i64,
    pub(in crate::cli) max_held_bytes: i64,
    pub(in crate::cli) connect_timeout_ms: Option<i64>,
    pub(in crate::cli) head_timeout_ms: Option<i64>,
    pub(in crate::cli) idle_timeout_ms: Option<i64>,
    pub(in crate::cli) total_timeout_ms: Option<i64>,
    pub(in crate::cli) ready_timeout_ms: Option<i64>,
}

/// What holds a program on the host, and all that it started, together.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct HostContainmentView {
    pub(in crate::cli) containment: String,
    pub(in crate::cli) reason: String,
}

impl From<pb::GetInfoResponse> for InfoView {
    fn from(it: pb::GetInfoResponse) -> Self {
        InfoView {
            version: it.version,
            pid: it.pid,
            uid: it.uid,
            user_id: it.user_id,
            is_for_several_users: it.is_for_several_users,
            socket: it.socket,
            data_dir: it.data_dir,
            runtime_dir: it.runtime_dir,
            extensions: it.extensions,
            engine: it.engine.unwrap_or_default().into(),
            compose: it.compose.unwrap_or_default().into(),
            capabilities: it.capabilities.into_iter().map(CapabilityView::from).collect(),
            limits: it.limits.unwrap_or_default().into(),
            host_containment: it.host_containment.unwrap_or_default().into(),
            started_at: it.started_at.as_ref().map(ToString::to_string),
            platform: it.platform,
            api_versions: it.api_versions,
        }
    }
}

impl From<pb::EngineInfo> for EngineView {
    fn from(it: pb::EngineInfo) -> Self {
        EngineView {
            url: it.url,
            reachable: it.reachable,
            error: it.error,
            name: it.name,
            version: it.version,
            api_version: it.api_version,
            platform: it.platform,
        }
    }
}

impl From<pb::ComposeInfo> for ComposeView {
    fn from(it: pb::ComposeInfo) -> Self {
        ComposeView { path: it.path, version: it.version, error: it.error }
    }
}

impl From<pb::Capability> for CapabilityView {
    fn from(it: pb::Capability) -> Self {
        CapabilityView { name: it.name, available: it.available, detail: it.detail }
    }
}

impl From<pb::Limits> for LimitsView {
    fn from(it: pb::Limits) -> Self {
        LimitsView {
            max_body_bytes: it.max_body_bytes,
            max_request_bytes: it.max_request_bytes,
            max_descriptors: it.max_descriptors,
            max_held_bytes: it.max_held_bytes,
            connect_timeout_ms: it.connect_timeout.map(ms),
            head_timeout_ms: it.head_timeout.map(ms),
            idle_timeout_ms: it.idle_timeout.map(ms),
            total_timeout_ms: it.total_timeout.map(ms),
            ready_timeout_ms: it.ready_timeout.map(ms),
        }
    }
}

impl From<pb::HostContainment> for HostContainmentView {
    fn from(it: pb::HostContainment) -> Self {
        HostContainmentView { containment: it.containment, reason: it.reason }
    }
}

/// In milliseconds.
fn ms(span: prost_types::Duration) -> i64 {
    span.seconds.saturating_mul(1000).saturating_add(i64::from(span.nanos / 1_000_000))
}
