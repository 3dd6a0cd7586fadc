//! What an extension has left, wherever that may be.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use bollard::{
    models::{ContainerSummary, ImageSummary},
    query_parameters::{
        InspectContainerOptions, ListContainersOptionsBuilder, ListImagesOptions, ListImagesOptionsBuilder,
        ListNetworksOptions, ListVolumesOptions,
    },
};

use super::{Broker, EngineAt, engine};

/// The compose project of an extension.
pub(crate) fn project(id: &str) -> String {
    format!("{}-desktop-extension", id.replace('/', "_"))
}

/// Everything in the engine and the data directory that belongs to an extension, or that the broker made for itself.
pub(crate) async fn traces(broker: &Broker, id: &str) -> Vec<String> {
    let mut found = traces_in(&broker.engine(), id).await;
    let own = format!("dev.longshore.broker={}", broker_id(broker));
    let filters = HashMap::from([("label", vec![own.as_str()])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    for container in broker.engine().client().list_containers(Some(options)).await.unwrap() {
        found.push(format!("temporary container {:?} {:?}", container.names, container.labels));
    }
    let entries = fs::read_dir(broker.data_dir().join("staging")).into_iter().flatten();
    found.extend(entries.map(|entry| format!("staging/{}", entry.unwrap().file_name().display())));
    let directory = broker.data_dir().join("extensions").join(id.replace('/', "_"));
    found.extend(directory.exists().then(|| directory.display().to_string()));
    found
}

/// The same, waiting a while for nothing to be left.
pub(crate) async fn no_traces(broker: &Broker, id: &str) {
    let mut left = vec![];
    for _ in 0..200 {
        left = traces(broker, id).await;
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{id} left {left:#?}");
}

/// Containers, networks and volumes that are named or labelled for an extension.
pub(crate) async fn engine_traces(id: &str) -> Vec<String> {
    traces_in(&EngineAt::default(), id).await
}

async fn traces_in(engine: &EngineAt, id: &str) -> Vec<String> {
    let engine = engine.client();
    let project = project(id);
    let belongs = |name: &str, labels: Option<HashMap<String, String>>| {
        let labels = labels.unwrap_or_default();
        name.trim_start_matches('/').starts_with(&project)
            || labels.get("dev.longshore.extension").is_some_and(|owner| owner == id)
            || labels.get("com.docker.compose.project") == Some(&project)
    };
    let mut found = vec![];
    for container in listed(&engine, HashMap::new()).await {
        let name = container.names.unwrap_or_default().join(",");
        if belongs(&name, container.labels) {
            found.push(format!("container {name}"));
        }
    }
    for network in engine.list_networks(None::<ListNetworksOptions>).await.unwrap() {
        let name = network.name.unwrap_or_default();
        if belongs(&name, network.labels) {
            found.push(format!("network {name}"));
        }
    }
    for volume in engine.list_volumes(None::<ListVolumesOptions>).await.unwrap().volumes.unwrap_or_default() {
        if belongs(&volume.name, Some(volume.labels)) {
            found.push(format!("volume {}", volume.name));
        }
    }
    found
}

/// Containers, running or not.
async fn listed(engine: &bollard::Docker, filters: HashMap<&str, Vec<&str>>) -> Vec<ContainerSummary> {
    // Podman calls one that ended `stopped` for a moment, which the client library does not know.
    super::eventually(|| async {
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        match engine.list_containers(Some(options)).await {
            Ok(listed) => Some(listed),
            Err(bollard::errors::Error::JsonDataError { .. }) => None,
            Err(error) => panic!("the engine does not list its containers: {error}"),
        }
    })
    .await
}

/// Names of an extension's containers, running or not, whatever they are called.
pub(crate) async fn engine_names(id: &str) -> Vec<String> {
    let label = format!("dev.longshore.extension={id}");
    let filters = HashMap::from([("label", vec![label.as_str()])]);
    let listed = listed(&engine(), filters).await;
    let names = listed.into_iter().flat_map(|container| container.names.unwrap_or_default());
    let mut names: Vec<String> = names.map(|name| name.trim_start_matches('/').to_owned()).collect();
    names.sort();
    names
}

/// Waits until a container by this name is there.
pub(crate) async fn appears(name: &str) {
    for _ in 0..600 {
        if engine().inspect_container(name, None::<InspectContainerOptions>).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no container {name} appears");
}

/// Whether the engine has an image of that name or id.
pub(crate) async fn has_image(name: &str) -> bool {
    engine().inspect_image(name).await.is_ok()
}

/// Ids of images that have a name in this repository.
pub(crate) async fn images_of(repository: &str) -> Vec<String> {
    let filters = HashMap::from([("reference", vec![repository])]);
    let options = ListImagesOptionsBuilder::default().filters(&filters).build();
    let mut names: Vec<String> = list_images(options).await.into_iter().flat_map(|image| image.repo_tags).collect();
    names.sort();
    names
}

/// The machine's images. Podman cannot list them while another test removes one: asked until it can.
pub(crate) async fn list_images(options: ListImagesOptions) -> Vec<ImageSummary> {
    let mut tries = 0;
    loop {
        match engine().list_images(Some(options.clone())).await {
            Err(error) if tries < 20 && error.to_string().contains("image not known") => tries += 1,
            listed => return listed.unwrap(),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn broker_id(broker: &Broker) -> String {
    read_store(&broker.data_dir(), "SELECT id FROM broker")
}

/// One text out of a broker's database.
pub(crate) fn read_store(data_dir: &Path, query: &str) -> String {
    let database = rusqlite::Connection::open(data_dir.join("longshore.db")).unwrap();
    database.busy_timeout(Duration::from_secs(5)).unwrap();
    database.query_row(query, [], |row| row.get(0)).unwrap()
}
