//! Install and uninstall.

mod failures;
mod forms;
mod grants;
mod removing;
mod sources;

use longshore::pb;

use crate::support::{Broker, Image, ImageBuilder, engine, image_source, project, trusting};

const COMPOSE: &str = r#"{"icon": "icon.svg", "ui": {"dashboard-tab": {"title": "Test", "root": "ui", "src": "index.html"}},
    "vm": {"composefile": "docker-compose.yml", "exposes": {"socket": "backend.sock"}}}"#;

/// Every kind of user a broker may run as.
async fn both() -> [Broker; 2] {
    [Broker::start().await, Broker::start_plain().await]
}

/// The hello extension with this compose file.
fn compose(file: &str) -> ImageBuilder {
    Image::hello().file("metadata.json", COMPOSE, 0o644).file("docker-compose.yml", file, 0o644)
}

/// An install that accepts exactly these grants.
fn accepting(reference: &str, grants: &[&str]) -> pb::InstallRequest {
    let accept_grants = grants.iter().map(|grant| (*grant).to_owned()).collect();
    pb::InstallRequest { source: Some(image_source(reference)), accept_grants, ..Default::default() }
}

/// Waits no longer than this for a backend.
fn within(request: pb::InstallRequest, seconds: i64) -> pb::InstallRequest {
    pb::InstallRequest { ready_timeout: Some(prost_types::Duration { seconds, nanos: 0 }), ..request }
}

async fn container(name: &str) -> bollard::models::ContainerInspectResponse {
    let options = None::<bollard::query_parameters::InspectContainerOptions>;
    engine().inspect_container(name, options).await.unwrap()
}

/// The container of one service.
async fn container_of(extension: &pb::Extension, service: &str) -> bollard::models::ContainerInspectResponse {
    let all = &extension.backend.as_ref().unwrap().containers;
    container(&all.iter().find(|container| container.service == service).unwrap().id).await
}

async fn get(broker: &Broker, id: &str) -> pb::Extension {
    let request = pb::ExtensionServiceGetRequest { extension: id.to_owned() };
    broker.extensions().await.get(request).await.unwrap().into_inner().extension.unwrap()
}

async fn list(broker: &Broker) -> Vec<String> {
    let request = pb::ExtensionServiceListRequest::default();
    let listed = broker.extensions().await.list(request).await.unwrap().into_inner().extensions;
    listed.into_iter().map(|extension| extension.id).collect()
}
