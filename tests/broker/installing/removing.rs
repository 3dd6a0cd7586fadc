//! Uninstall, whatever has become of the extension meanwhile.

use bollard::{
    models::{ContainerCreateBody, VolumeCreateRequest},
    query_parameters::{CreateContainerOptionsBuilder, RemoveImageOptionsBuilder, RemoveVolumeOptions},
};

use super::*;
use crate::support::{no_traces, traces, unique};

const VOLUMES: &str = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/hello-backend, serve, --socket, /run/guest-services/backend.sock, --data, /data]\n    volumes: ['data:/data']\nvolumes:\n  data: {}\n";

/// Removes a container; Podman has done so already where its image was removed by force.
async fn destroy(id: &str) {
    crate::support::docker(&["rm", "--force", id]);
}

#[tokio::test]
async fn it_needs_neither_image_nor_container_nor_compose_file() {
    for broker in both().await {
        let image = compose(VOLUMES).build().await;
        let extension = broker.install(trusting(&image.reference)).await.unwrap();
        let container = &extension.backend.as_ref().unwrap().containers[0].id;
        let options = RemoveImageOptionsBuilder::default().force(true).build();
        engine().remove_image(&image.reference, Some(options), None).await.unwrap();
        let files = broker.data_dir().join("extensions");
        for entry in walk(&files) {
            if entry.ends_with("compose.json") || entry.ends_with("docker-compose.yml") {
                std::fs::write(entry, "services: {evil: {image: x}}, [").unwrap();
            }
        }
        destroy(container).await;
        assert_eq!(get(&broker, &image.id).await.state_reason, "CONTAINERS_MISSING");
        broker.uninstall(&image.id, true).await.unwrap();
        no_traces(&broker, &image.id).await;
    }
}

fn walk(root: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = vec![];
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(walk(&path));
        } else {
            all.push(path);
        }
    }
    all
}

#[tokio::test]
async fn named_volumes_stay_and_are_used_again() {
    let image = compose(VOLUMES).build().await;
    let volume = format!("{}_data", project(&image.id));
    for broker in both().await {
        let count = async || {
            let body = broker.get(&image.id, "/count").await.unwrap().body;
            String::from_utf8(body.to_vec()).unwrap().trim().to_owned()
        };
        broker.install(trusting(&image.reference)).await.unwrap();
        let first = count().await;
        let removed = broker.uninstall(&image.id, false).await.unwrap();
        assert_eq!((removed.kept_volumes, removed.removed_volumes), (vec![volume.clone()], vec![]));
        assert_eq!(traces(&broker, &image.id).await, [format!("volume {volume}")]);
        let again = broker.install(trusting(&image.reference)).await.unwrap();
        assert_eq!(again.generation, 2);
        assert_ne!(count().await, first, "it counts on from where it was");
        let removed = broker.uninstall(&image.id, true).await.unwrap();
        assert_eq!((removed.kept_volumes, removed.removed_volumes), (vec![], vec![volume.clone()]));
        no_traces(&broker, &image.id).await;
    }
}

#[tokio::test]
async fn what_only_claims_to_be_ours_is_left_alone() {
    let image = compose(VOLUMES).build().await;
    let broker = Broker::start().await;
    let volume = format!("{}_data", project(&image.id));
    // A volume that some other broker may have made for the same extension: used, and never removed.
    let labels = [("dev.longshore.extension".to_owned(), image.id.clone())];
    let request =
        VolumeCreateRequest { name: Some(volume.clone()), labels: Some(labels.clone().into()), ..Default::default() };
    engine().create_volume(request).await.unwrap();
    let extension = broker.install(trusting(&image.reference)).await.unwrap();
    let ours = container_of(&extension, "web").await.config.unwrap().labels.unwrap();
    // All of ours, which anybody can read.
    let body = ContainerCreateBody { image: Some(image.reference.clone()), labels: Some(ours), ..Default::default() };
    let name = unique("longshore-test-forged");
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let id = engine().create_container(Some(options), body).await.unwrap().id;
    broker.uninstall(&image.id, true).await.unwrap();
    let mut left = traces(&broker, &image.id).await;
    left.sort();
    destroy(&id).await;
    engine().remove_volume(&volume, None::<RemoveVolumeOptions>).await.unwrap();
    assert_eq!(left, [format!("container /{name}"), format!("volume {volume}")]);
}

#[tokio::test]
async fn files_that_the_containers_root_left_go_too() {
    let script = "mkdir -p /run/guest-services/a/b; echo x > /run/guest-services/a/b/c; chmod 700 /run/guest-services/a; ln -s /etc /run/guest-services/a/etc; exec /hello-backend serve --socket /run/guest-services/backend.sock";
    let image = Image::hello().busybox().change(&format!("CMD [\"/bin/sh\", \"-c\", {script:?}]")).build().await;
    for broker in both().await {
        broker.install(trusting(&image.reference)).await.unwrap();
        assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
        broker.uninstall(&image.id, false).await.unwrap();
        no_traces(&broker, &image.id).await;
        assert!(std::path::Path::new("/etc/passwd").exists());
    }
}

#[tokio::test]
async fn another_version_or_an_unknown_extension_is_told() {
    let image = Image::hello().build().await;
    let broker = Broker::start().await;
    broker.install(trusting(&image.reference)).await.unwrap();
    let error = broker.uninstall(&format!("{}:2", image.id), false).await.unwrap_err();
    assert_eq!(crate::support::reason(&error), "EXTENSION_NOT_FOUND");
    broker.uninstall(&image.reference, false).await.unwrap();
    let error = broker.uninstall(&image.id, false).await.unwrap_err();
    assert_eq!(crate::support::reason(&error), "EXTENSION_NOT_FOUND");
    no_traces(&broker, &image.id).await;
}
