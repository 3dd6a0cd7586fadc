//! `SystemService`.

use std::{sync::Arc, time::Duration};

use tonic::{Request, Response, Status};

use super::{descriptors, status::status};
use crate::{
    core::Broker,
    pb::{self, system_service_server::SystemService},
    user,
};

/// What this program was built for, in the words of images.
fn platform() -> String {
    let os = if cfg!(target_os = "macos") { "darwin" } else { std::env::consts::OS };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{os}/{arch}")
}

/// Serves `SystemService`.
pub(super) struct System(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl SystemService for System {
    async fn get_info(&self, _: Request<pb::GetInfoRequest>) -> Result<Response<pb::GetInfoResponse>, Status> {
        let info = self.0.info().await.map_err(status)?;
        let (about, error) = match info.engine {
            Ok(about) => (Some(about), String::new()),
            Err(error) => (None, error),
        };
        let reachable = about.is_some();
        let engine = about.map_or_else(pb::EngineInfo::default, |about| pb::EngineInfo {
            name: about.name,
            version: about.version,
            api_version: about.api_version,
            platform: format!("{}/{}", about.os, about.arch),
            ..Default::default()
        });
        let compose = match info.compose {
            Ok((path, version)) => pb::ComposeInfo { path, version, error: String::new() },
            Err(error) => pb::ComposeInfo { error, ..Default::default() },
        };
        let capability = |(name, available, detail): (&str, bool, String)| pb::Capability {
            name: name.to_owned(),
            available,
            detail,
        };
        let (containment, reason) = info.host_containment;
        let limits = self.0.limits();
        let told = |limit: Duration| prost_types::Duration::try_from(limit).ok();
        Ok(Response::new(pb::GetInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: i64::from(std::process::id()),
            uid: i64::from(user::own_uid()),
            is_for_several_users: self.0.behalf().is_one_of_several(),
            user_id: i64::from(self.0.behalf().uid()),
            socket: info.socket,
            data_dir: info.data_dir,
            runtime_dir: info.runtime_dir,
            engine: Some(pb::EngineInfo { url: info.engine_url, reachable, error, ..engine }),
            compose: Some(compose),
            capabilities: info.capabilities.into_iter().map(capability).collect(),
            extensions: i32::try_from(info.extensions).unwrap_or(i32::MAX),
            limits: Some(pb::Limits {
                max_body_bytes: i64::try_from(limits.exchange.max_body_bytes).unwrap_or(i64::MAX),
                max_request_bytes: super::MAX_REQUEST_BYTES as i64,
                max_descriptors: i64::try_from(descriptors::most()).unwrap_or(i64::MAX),
                max_held_bytes: i64::try_from(limits.exchange.memory.most()).unwrap_or(i64::MAX),
                connect_timeout: told(limits.exchange.connect),
                head_timeout: limits.exchange.head.and_then(told),
                idle_timeout: limits.exchange.idle.and_then(told),
                total_timeout: limits.exchange.total.and_then(told),
                ready_timeout: told(limits.ready_timeout),
            }),
            started_at: Some(info.started_at.into()),
            platform: platform(),
            api_versions: vec!["longshore.v1".to_owned()],
            host_containment: Some(pb::HostContainment {
                containment: containment.as_str().to_owned(),
                reason: reason.unwrap_or_default(),
            }),
        }))
    }
}
