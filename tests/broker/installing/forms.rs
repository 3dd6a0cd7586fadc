//! The forms that an extension can have, and what is made of each.

use longshore::pb::{self, ExtensionState};

use super::*;
use crate::support::{no_traces, on_podman};

#[tokio::test]
async fn an_image_from_scratch_comes_and_goes_without_a_trace() {
    let image = Image::hello().build().await;
    for broker in both().await {
        let extension = broker.install(trusting(&image.reference)).await.unwrap();
        assert_eq!((&extension.id, &extension.version, extension.generation), (&image.id, &"1".to_owned(), 1));
        assert_eq!(extension.state(), ExtensionState::Ready, "{}", extension.state_message);
        let response = broker.get(&image.id, "/hello?name=x").await.unwrap();
        assert_eq!((response.status, &response.body[..]), (200, &b"Hello, x!\n"[..]));
        let ui = extension.ui.clone().unwrap();
        assert_eq!(std::fs::read(format!("{}/{}", ui.root_dir, ui.entry)).unwrap(), b"<h1>hello</h1>");
        assert!(std::path::Path::new(&ui.icon_path).is_file());
        looks_like_docker_desktops(&image, &container(&format!("{}-service", project(&image.id))).await);
        let removed = broker.uninstall(&image.id, false).await.unwrap();
        assert_eq!(removed, Default::default());
        assert!(crate::support::has_image(&image.reference).await, "it was there before");
        no_traces(&broker, &image.id).await;
    }
}

/// F52 to F60 and F67 for the container of a `vm.image`, or of a compose file with one service.
fn looks_like_docker_desktops(image: &Image, container: &bollard::models::ContainerInspectResponse) {
    let project = project(&image.id);
    let config = container.config.as_ref().unwrap();
    let labels = config.labels.as_ref().unwrap();
    for (label, expected) in [
        ("com.docker.desktop.extension", "true"),
        ("com.docker.desktop.extension.name", "Test"),
        ("com.docker.compose.project", &project),
        ("com.docker.compose.service", "service"),
        ("com.docker.compose.container-number", "1"),
        ("com.docker.compose.oneoff", "False"),
        ("org.opencontainers.image.title", "Test"),
        ("dev.longshore.extension", &image.id),
    ] {
        assert_eq!(labels.get(label).map(String::as_str), Some(expected), "{label}");
    }
    let host = container.host_config.as_ref().unwrap();
    let policy = host.restart_policy.as_ref().unwrap().name.unwrap();
    assert_eq!(policy, bollard::models::RestartPolicyNameEnum::UNLESS_STOPPED);
    let networks = container.network_settings.as_ref().unwrap().networks.as_ref().unwrap();
    assert_eq!(networks.keys().collect::<Vec<_>>(), [&format!("{project}_default")]);
    assert_eq!(container.image.as_ref(), Some(&image.content));
    // Podman finds a name for every image, however it was asked for.
    let named = config.image.as_ref().unwrap();
    assert!(named.starts_with("sha256:") || on_podman(), "it runs the image by id");
    assert_eq!(mounts(container), ["/run/guest-services rw", "/run/longshore ro"]);
}

fn mounts(container: &bollard::models::ContainerInspectResponse) -> Vec<String> {
    let show = |mount: &bollard::models::MountPoint| {
        format!("{} {}", mount.destination.as_ref().unwrap(), if mount.rw == Some(true) { "rw" } else { "ro" })
    };
    let mut all: Vec<String> = container.mounts.iter().flatten().map(show).collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_compose_file_with_one_service_is_named_as_docker_desktop_names_it() {
    let image = compose("services:\n  service:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n").build().await;
    for broker in both().await {
        let extension = broker.install(trusting(&image.reference)).await.unwrap();
        assert_eq!(extension.state(), ExtensionState::Ready, "{}", extension.state_message);
        looks_like_docker_desktops(&image, &container(&format!("{}-service", project(&image.id))).await);
        assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
        broker.uninstall(&image.id, false).await.unwrap();
        no_traces(&broker, &image.id).await;
    }
}

const SEVERAL: &str = r#"
services:
  zebra:
    image: OTHER
    command: ["/bin/sleep", "1000"]
    stop_signal: SIGKILL
    restart: on-failure
    depends_on: {init: {condition: service_completed_successfully}}
    volumes: ["named:/named", "/anonymous", "./settings:/settings:ro"]
    networks: [back]
  init:
    image: OTHER
    command: ["/bin/true"]
  api:
    image: ${DESKTOP_PLUGIN_IMAGE}
    networks: [back, default]
    labels: {mine: "yes", dev.longshore.extension: a/lie}
networks:
  back: {}
volumes:
  named: {}
"#;

#[tokio::test]
async fn a_compose_file_with_several_services_keeps_its_order_and_rules() {
    let other = Image::builder().busybox().link("bin/true", "busybox").build().await;
    let file = SEVERAL.replace("OTHER", &other.reference);
    let builder = Image::hello().file("metadata.json", COMPOSE.replace("docker-c", "vm/docker-c"), 0o644);
    let image = builder.file("vm/docker-compose.yml", file, 0o644).file("vm/settings", "set", 0o644).build().await;
    let project = project(&image.id);
    for broker in both().await {
        let extension = broker.install(trusting(&image.reference)).await.unwrap();
        assert_eq!(extension.state(), ExtensionState::Ready, "{}", extension.state_message);
        let backend = extension.backend.clone().unwrap();
        let services: Vec<&str> = backend.containers.iter().map(|container| container.service.as_str()).collect();
        assert_eq!((services, backend.service.as_str()), (vec!["zebra", "init", "api"], "api"));
        let names: Vec<&str> = backend.containers.iter().map(|container| container.name.as_str()).collect();
        assert_eq!(names, [format!("{project}-zebra-1"), format!("{project}-init-1"), format!("{project}-api-1")]);
        assert_eq!(backend.containers[1].state, "exited");
        let (zebra, init, api) = (
            container_of(&extension, "zebra").await,
            container_of(&extension, "init").await,
            container_of(&extension, "api").await,
        );
        let policy = |c: &bollard::models::ContainerInspectResponse| {
            // Engines spell none in two ways.
            c.host_config.clone().unwrap().restart_policy.unwrap().name.unwrap().to_string().replace("no", "")
        };
        assert_eq!([policy(&zebra), policy(&init), policy(&api)], ["on-failure", "", "unless-stopped"]);
        assert_eq!(mounts(&init), ["/run/guest-services rw", "/run/longshore ro"]);
        let expected = ["/anonymous rw", "/named rw", "/run/guest-services rw", "/run/longshore ro", "/settings ro"];
        assert_eq!(mounts(&zebra), expected);
        let labels = api.config.unwrap().labels.unwrap();
        assert_eq!((&*labels["mine"], &*labels["dev.longshore.extension"]), ("yes", &*image.id));
        assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
        let removed = broker.uninstall(&image.id, true).await.unwrap();
        assert_eq!(removed.removed_volumes, [format!("{project}_named")]);
        no_traces(&broker, &image.id).await;
        let anonymous = zebra.mounts.unwrap().into_iter().find(|m| m.destination.as_deref() == Some("/anonymous"));
        assert!(engine().inspect_volume(&anonymous.unwrap().name.unwrap()).await.is_err(), "it went too");
    }
}

#[tokio::test]
async fn without_the_own_image_the_first_service_is_the_backend() {
    let other = Image::builder().busybox().build().await;
    let service = |name: &str| {
        format!(
            "  {name}:\n    image: {}\n    command: [/bin/sleep, '99']\n    stop_signal: SIGKILL\n",
            other.reference
        )
    };
    let file = format!("services:\n{}{}", service("zoo"), service("ape"));
    let manifest = COMPOSE.replace(r#", "exposes": {"socket": "backend.sock"}"#, "");
    let image = compose(&file).file("metadata.json", manifest, 0o644).build().await;
    let broker = Broker::start().await;
    let extension = broker.install(trusting(&image.reference)).await.unwrap();
    assert_eq!(extension.state(), ExtensionState::Ready, "{}", extension.state_message);
    assert_eq!(extension.backend.unwrap().service, "zoo");
    broker.uninstall(&image.id, false).await.unwrap();
    no_traces(&broker, &image.id).await;
}

#[tokio::test]
async fn a_ui_alone_and_programs_alone_need_no_container() {
    let ui = r#"{"icon": "icon.svg", "ui": {"dashboard-tab": {"title": "Test", "root": "ui", "src": "index.html"}}}"#;
    let host = r#"{"host": {"binaries": [{"linux": [{"path": "/tool.sh"}]}]}}"#;
    let ui = Image::hello().file("metadata.json", ui, 0o644).build().await;
    let host = Image::hello().file("metadata.json", host, 0o644).file("tool.sh", "#!/bin/sh\n", 0o755).build().await;
    for broker in both().await {
        for image in [&ui, &host] {
            let extension = broker.install(trusting(&image.reference)).await.unwrap();
            assert_eq!(extension.state(), ExtensionState::Ready);
            assert_eq!(extension.backend, None);
            assert_eq!(
                (extension.ui.is_some(), extension.host_binaries.len()),
                if image.id == ui.id { (true, 0) } else { (false, 1) }
            );
            assert_eq!(crate::support::engine_traces(&image.id).await, Vec::<String>::new());
            let error = broker.get(&image.id, "/").await.unwrap_err();
            assert_eq!(crate::support::reason(&error), "NO_BACKEND");
            broker.uninstall(&image.id, false).await.unwrap();
            no_traces(&broker, &image.id).await;
        }
    }
}

#[tokio::test]
async fn a_backend_without_a_socket_is_ready_when_it_runs() {
    let manifest = r#"{"vm": {"image": "${DESKTOP_PLUGIN_IMAGE}"}}"#;
    let image = Image::builder().busybox().file("metadata.json", manifest, 0o644);
    let image =
        image.change(r#"CMD ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]"#).build().await;
    let broker = Broker::start().await;
    let extension = broker.install(trusting(&image.reference)).await.unwrap();
    assert_eq!(extension.state(), ExtensionState::Ready, "{}", extension.state_message);
    let error = broker.get(&image.id, "/").await.unwrap_err();
    assert_eq!(crate::support::reason(&error), "NO_SOCKET");
    broker.uninstall(&image.id, false).await.unwrap();
    no_traces(&broker, &image.id).await;
}

#[tokio::test]
async fn the_same_image_again_changes_nothing_and_another_is_refused() {
    let image = Image::hello().build().await;
    let broker = Broker::start().await;
    let first = broker.install(trusting(&image.reference)).await.unwrap();
    assert_eq!(broker.install(trusting(&image.reference)).await.unwrap(), first);
    let other = Image::hello().file("more", "", 0o644).build_as(&image.id).await;
    let error = broker.install(trusting(&other.reference)).await.unwrap_err();
    assert_eq!(crate::support::reason(&error), "EXTENSION_INSTALLED");
    assert_eq!(get(&broker, &image.id).await, first);
    broker.uninstall(&image.id, false).await.unwrap();
    no_traces(&broker, &image.id).await;
}

#[tokio::test]
async fn one_install_at_a_time_and_every_caller_is_answered() {
    let image = Image::hello().build().await;
    let broker = Broker::start().await;
    let installs = (0..4).map(|_| broker.install(trusting(&image.reference)));
    let results = futures_util::future::join_all(installs).await;
    let busy = results.iter().filter_map(|result| result.as_ref().err()).map(crate::support::reason);
    assert!(busy.clone().all(|reason| reason == "EXTENSION_BUSY"), "{:?}", busy.collect::<Vec<_>>());
    assert!(results.iter().any(Result::is_ok));
    assert_eq!(list(&broker).await, std::slice::from_ref(&image.id));
    assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
    broker.uninstall(&image.id, false).await.unwrap();
    no_traces(&broker, &image.id).await;
}

#[tokio::test]
async fn disabled_stays_disabled_until_enabled() {
    let image = compose("services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n").build().await;
    for mut broker in both().await {
        broker.install(trusting(&image.reference)).await.unwrap();
        let disable = pb::DisableRequest { extension: image.id.clone() };
        let disabled =
            broker.extensions().await.disable(disable.clone()).await.unwrap().into_inner().extension.unwrap();
        assert_eq!((disabled.state(), &*disabled.state_reason), (ExtensionState::Stopped, "DISABLED"));
        assert_eq!(disabled.backend.as_ref().unwrap().containers[0].state, "exited");
        broker.extensions().await.disable(disable).await.unwrap();
        broker.stop().await;
        broker.restart().await;
        assert_eq!(get(&broker, &image.id).await, disabled);
        let error = broker.get(&image.id, "/hello").await.unwrap_err();
        assert_eq!(crate::support::reason(&error), "BACKEND_STOPPED");
        for _ in 0..2 {
            let enable = pb::EnableRequest { extension: image.id.clone() };
            broker.extensions().await.enable(enable).await.unwrap();
            assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
        }
        assert_eq!(get(&broker, &image.id).await.state(), ExtensionState::Ready);
        broker.uninstall(&image.id, false).await.unwrap();
        no_traces(&broker, &image.id).await;
    }
}

#[tokio::test]
async fn disabling_ends_programs() {
    let host = r#"{"host": {"binaries": [{"linux": [{"path": "/tool.sh"}]}]}}"#;
    let image = Image::hello().file("metadata.json", host, 0o644);
    let image = image.file("tool.sh", "#!/bin/sh\necho up\nexec sleep 1000\n", 0o755).build().await;
    let broker = Broker::start().await;
    broker.install(trusting(&image.reference)).await.unwrap();
    let mut run = super::grants::running(&broker, &image.id).await;
    broker.extensions().await.disable(pb::DisableRequest { extension: image.id.clone() }).await.unwrap();
    super::grants::killed(&mut run).await;
    broker.uninstall(&image.id, false).await.unwrap();
    no_traces(&broker, &image.id).await;
}
