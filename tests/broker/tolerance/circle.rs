//! The whole life of one extension, with a look at the machine before and after.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use longshore::pb;

use crate::support::{Broker, Image, docker, engine, image_source, list_images, program, reason};

/// What an extension should do once it is installed.
pub(super) struct Expected<'a> {
    /// Its state after the install.
    pub(super) state: pb::ExtensionState,
    /// Paths, each with a part of the body that GET gives.
    pub(super) answers: &'a [(&'a str, &'a str)],
    /// A command in the backend and its output.
    pub(super) run: Option<(&'a [&'a str], &'a str)>,
    /// How many named volumes it leaves.
    pub(super) volumes: usize,
}

impl Expected<'_> {
    /// Ready, and nothing more is known of it.
    pub(super) fn ready() -> Expected<'static> {
        Expected { state: pb::ExtensionState::Ready, answers: &[], run: None, volumes: 0 }
    }
}

/// Takes an extension through its life as root and as a plain user: refused without grants, installed with exactly those
/// that were named, seen, called, stopped, started, called again, removed; once more with everything trusted.
pub(super) async fn go(image: &Image, expected: &Expected<'_>) {
    for broker in [Broker::start().await, Broker::start_plain().await] {
        let before = machine(&broker, &image.id).await;
        let grants = needed(&broker, image).await;
        if !grants.is_empty() {
            let refused = broker.install(request(image, &[], false)).await.unwrap_err();
            assert_eq!(reason(&refused), "GRANTS_REQUIRED");
            assert_eq!(machine(&broker, &image.id).await, before, "a refused install leaves nothing");
        }
        let installed = broker.install(request(image, &grants, false)).await.unwrap();
        assert_eq!(installed.state(), expected.state, "{} {}", installed.state_reason, installed.state_message);
        look(&broker, image, expected).await;
        restart(&broker, image, expected).await;
        end(&broker, image, expected).await;
        assert_eq!(machine(&broker, &image.id).await, before, "uninstall leaves nothing");

        broker.install(request(image, &[], true)).await.unwrap();
        look(&broker, image, expected).await;
        end(&broker, image, expected).await;
        assert_eq!(machine(&broker, &image.id).await, before, "uninstall leaves nothing");
    }
}

/// The grants that an install asks for.
async fn needed(broker: &Broker, image: &Image) -> Vec<String> {
    names(super::inspect(broker, image_source(&image.reference)).await)
}

/// The names of the grants that are asked for: broad before narrow, each once.
pub(super) fn names(inspected: pb::InspectResponse) -> Vec<String> {
    let grants: BTreeSet<String> = inspected.needed_grants.into_iter().map(|needed| needed.name).collect();
    let (mut broad, narrow): (Vec<_>, Vec<_>) = grants.into_iter().partition(|grant| !grant.contains(':'));
    broad.extend(narrow);
    broad
}

pub(super) fn request(image: &Image, grants: &[String], trust: bool) -> pb::InstallRequest {
    let source = Some(image_source(&image.reference));
    pb::InstallRequest { source, accept_grants: grants.to_vec(), trust, ..Default::default() }
}

/// Get, List, calls, a command, what it owns, its logs.
async fn look(broker: &Broker, image: &Image, expected: &Expected<'_>) {
    let id = image.id.clone();
    let mut extensions = broker.extensions().await;
    let got = extensions.get(pb::ExtensionServiceGetRequest { extension: id.clone() }).await.unwrap().into_inner();
    let listed = extensions.list(pb::ExtensionServiceListRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.extensions.iter().map(|e| &e.id).collect::<Vec<_>>(), [&id]);
    let extension = got.extension.unwrap();
    if let Some(ui) = &extension.ui {
        let page = ui.entry.split(['?', '#']).next().unwrap();
        assert!(Path::new(&ui.root_dir).join(page).is_file(), "{ui:?}");
    }
    call(broker, image, expected).await;
    if let Some((argv, output)) = expected.run {
        let ran = broker.run(program(&id, pb::ExecTarget::Backend, argv)).await;
        assert_eq!((ran.code(), &*ran.text()), (0, output));
    }
    let owned = pb::ListResourcesRequest { extension: id.clone(), owned_only: true, ..Default::default() };
    let owned = broker.ownership().await.list_resources(owned).await.unwrap().into_inner().resources;
    let containers = extension.backend.map(|backend| backend.containers).unwrap_or_default();
    for container in &containers {
        assert!(owned.iter().any(|resource| resource.id == container.id), "{container:?} is not in {owned:#?}");
    }
    let project = format!("{}-desktop-extension", id.replace('/', "_"));
    for container in &containers {
        // What extensions' code filters by.
        let found = docker(&["inspect", "-f", "{{json .Config.Labels}}", &container.id]);
        let found: HashMap<String, String> = serde_json::from_str(&found).unwrap();
        assert_eq!(found.get("com.docker.compose.project"), Some(&project));
        assert_eq!(found.get("com.docker.desktop.extension").map(String::as_str), Some("true"));
        assert_eq!(found.get("com.docker.desktop.extension.name").map(String::as_str), Some("Test"));
    }
    if !containers.is_empty() {
        let request = pb::LogsRequest { extension: id, ..Default::default() };
        let mut logs = broker.backends().await.logs(request).await.unwrap().into_inner();
        while logs.message().await.unwrap().is_some() {}
    }
}

async fn call(broker: &Broker, image: &Image, expected: &Expected<'_>) {
    for (path, part) in expected.answers {
        let response = broker.get(&image.id, path).await.unwrap();
        let body = String::from_utf8_lossy(&response.body);
        assert!(response.status == 200 && body.contains(part), "{path}: {} {body}", response.status);
    }
}

/// A stopped backend leaves its socket behind; one that does not unlink it must come up all the same.
async fn restart(broker: &Broker, image: &Image, expected: &Expected<'_>) {
    let mut extensions = broker.extensions().await;
    let extension = image.id.clone();
    let stopped = extensions.disable(pb::DisableRequest { extension: extension.clone() }).await.unwrap().into_inner();
    assert_eq!(stopped.extension.unwrap().state(), pb::ExtensionState::Stopped);
    extensions.enable(pb::EnableRequest { extension }).await.unwrap();
    call(broker, image, expected).await;
}

async fn end(broker: &Broker, image: &Image, expected: &Expected<'_>) {
    let removed = broker.uninstall(&image.id, true).await.unwrap();
    assert_eq!(removed.removed_volumes.len(), expected.volumes, "{removed:?}");
    assert!(removed.kept_volumes.is_empty() && !removed.image_removed, "{removed:?}");
}

/// Everything in the engine that bears the extension's name, and every file of the broker's but its store.
async fn machine(broker: &Broker, id: &str) -> BTreeSet<String> {
    let name = id.rsplit('/').next().unwrap();
    let engine = engine();
    let mut found: Vec<String> = Vec::new();
    // By the CLI: Podman has states that the client library does not know, and these are everybody's containers.
    found.extend(docker(&["ps", "-a", "--no-trunc", "--format", "container {{json .}}"]).lines().map(String::from));
    for network in engine.list_networks(None).await.unwrap() {
        found.push(format!("network {network:?}"));
    }
    for volume in engine
        .list_volumes(None::<bollard::query_parameters::ListVolumesOptions>)
        .await
        .unwrap()
        .volumes
        .unwrap_or_default()
    {
        found.push(format!("volume {volume:?}"));
    }
    let all = bollard::query_parameters::ListImagesOptionsBuilder::default().all(true).build();
    for image in list_images(all).await {
        found.push(format!("image {} {:?}", image.id, image.repo_tags));
    }
    found.retain(|text| text.contains(name));
    files(&broker.data_dir(), &mut found);
    found.into_iter().collect()
}

fn files(directory: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with("longshore.db") {
            continue;
        }
        found.push(path.display().to_string());
        if entry.file_type().unwrap().is_dir() {
            files(&path, found);
        }
    }
}
