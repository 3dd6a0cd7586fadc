//! Every way an install can fail, and that nothing is left of it then.

use bollard::{
    models::{ContainerCreateBody, NetworkCreateRequest, VolumeCreateRequest},
    query_parameters::{
        CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, RemoveVolumeOptions,
    },
};
use longshore::pb::{self, ExtensionState};

use super::*;
use crate::support::{appears, has_image, no_traces, on_podman, reason, unique};

/// Installs what cannot be installed, as both users, and returns the failure's text.
async fn fails(image: &Image, expected: &str) -> String {
    let mut text = String::new();
    for broker in both().await {
        let error = broker.install(within(trusting(&image.reference), 10)).await.unwrap_err();
        assert_eq!(reason(&error), expected, "{}", error.message());
        no_traces(&broker, &image.id).await;
        assert_eq!(list(&broker).await, Vec::<String>::new());
        assert!(has_image(&image.reference).await, "it was there before");
        text = error.message().to_owned();
    }
    text
}

#[tokio::test]
async fn a_manifest_that_is_wrong_or_missing() {
    let image = Image::hello().file("metadata.json", r#"{"vm": {"image": 7}}"#, 0o644).build().await;
    fails(&image, "MANIFEST_INVALID").await;
    let image = Image::builder().file("x", "", 0o644).build().await;
    assert!(fails(&image, "MANIFEST_INVALID").await.contains("metadata.json"));
    let image = Image::hello().file("metadata.json", "{\"vm\": {,}", 0o644).build().await;
    fails(&image, "MANIFEST_INVALID").await;
}

#[tokio::test]
async fn a_file_that_may_not_be_taken() {
    let large = Image::hello().file("metadata.json", " ".repeat(2 << 20), 0o644).build().await;
    fails(&large, "UNSAFE_FILE").await;
    let subject = Some(pb::validate_request::Subject::Source(image_source(&large.reference)));
    let request = pb::ValidateRequest { subject };
    let found = Broker::start().await.extensions().await.validate(request).await.unwrap().into_inner();
    let errors = found.problems.iter().filter(|problem| problem.severity() == pb::Severity::Error);
    let files: Vec<&str> = errors.map(|problem| problem.file.as_str()).collect();
    assert_eq!(files, ["metadata.json"], "told once: {:?}", found.problems);
}

#[tokio::test]
async fn a_ui_that_is_not_in_the_image() {
    let manifest = r#"{"ui": {"dashboard-tab": {"title": "T", "root": "/nowhere", "src": "index.html"}}}"#;
    let image = Image::hello().file("metadata.json", manifest, 0o644).build().await;
    assert!(fails(&image, "MANIFEST_INVALID").await.contains("/nowhere"));
}

#[tokio::test]
async fn a_compose_file_that_is_wrong() {
    for (file, word) in [
        ("services: [", "docker-compose.yml"),
        ("services: {}\n", "services"),
        ("services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    prots: ['80:80']\n", "prots"),
        ("services:\n  web:\n    build: .\n", "build"),
        ("include: [other.yml]\nservices:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n", "include"),
    ] {
        let image = compose(file).build().await;
        let text = fails(&image, "COMPOSE_INVALID").await;
        assert!(text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let image =
        compose(&format!("services:\n  web:\n    image: ${{DESKTOP_PLUGIN_IMAGE}}\n    ports: ['{port}:80']\n"))
            .build()
            .await;
    let text = fails(&image, "COMPOSE_FAILED").await;
    assert!(text.contains(&port.to_string()), "{text}");
}

#[tokio::test]
async fn another_image_that_no_registry_has() {
    let file = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n  db:\n    image: 127.0.0.1:1/no/such:1\n";
    let image = compose(file).build().await;
    for broker in both().await {
        let error = broker.install(trusting(&image.reference)).await.unwrap_err();
        assert!(["PULL_FAILED", "IMAGE_NOT_FOUND"].contains(&reason(&error).as_str()), "{error:?}");
        assert!(error.message().contains("127.0.0.1:1/no/such:1"), "{}", error.message());
        no_traces(&broker, &image.id).await;
    }
}

#[tokio::test]
async fn an_image_without_a_command() {
    let manifest = r#"{"vm": {"image": "${DESKTOP_PLUGIN_IMAGE}"}}"#;
    let image = Image::builder().file("metadata.json", manifest, 0o644).build().await;
    let text = fails(&image, "ENGINE_REFUSED").await;
    assert!(text.to_lowercase().contains("command"), "{text}");
    // The UI of such an image works all the same.
    let ui = r#"{"ui": {"dashboard-tab": {"title": "T", "root": "/ui", "src": "index.html"}}}"#;
    let image = Image::builder().file("metadata.json", ui, 0o644).file("ui/index.html", "", 0o644).build().await;
    let broker = Broker::start().await;
    assert_eq!(broker.install(trusting(&image.reference)).await.unwrap().state(), ExtensionState::Ready);
    broker.uninstall(&image.id, false).await.unwrap();
    no_traces(&broker, &image.id).await;
}

#[tokio::test]
async fn a_backend_that_ends_says_why() {
    let script = r#"CMD ["/bin/sh", "-c", "echo the reason is here; exit 3"]"#;
    let single = Image::hello().busybox().change(script).build().await;
    let text = fails(&single, "BACKEND_EXITED").await;
    assert!(text.contains("the reason is here"), "{text}");
    let file = "services:\n  job:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/bin/true]\n    restart: 'no'\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    restart: 'no'\n";
    let file = file.replace("  job:", "  web:").replacen("  web:", "  job:", 1);
    let several = compose(&file).busybox().link("bin/true", "busybox").change(script).build().await;
    let text = fails(&several, "BACKEND_EXITED").await;
    assert!(text.contains("exited with code"), "{text}");
}

#[tokio::test]
async fn a_backend_that_cannot_be_run_at_all() {
    let image = Image::hello().change(r#"CMD ["/no/such/program"]"#).build().await;
    let text = fails(&image, "ENGINE_REFUSED").await;
    assert!(text.contains("/no/such/program"), "{text}");
}

#[tokio::test]
async fn a_socket_that_never_comes_is_no_failure() {
    let image =
        Image::hello().busybox().change(r#"CMD ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]"#);
    let image = image.build().await;
    for broker in both().await {
        let extension = broker.install(within(trusting(&image.reference), 2)).await.unwrap();
        assert_eq!((extension.state(), &*extension.state_reason), (ExtensionState::Degraded, "NO_SOCKET"));
        broker.uninstall(&image.id, false).await.unwrap();
        no_traces(&broker, &image.id).await;
    }
}

#[tokio::test]
async fn names_that_belong_to_strangers() {
    let file = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    volumes: ['data:/data', 'shared:/shared']\nvolumes:\n  data: {}\n  shared: {name: SHARED}\n";
    let shared = unique("longshore-test-shared");
    let image = compose(&file.replace("SHARED", &shared)).build().await;
    let project = project(&image.id);
    let labels = || Some([("com.docker.compose.project".to_owned(), project.clone())].into());
    let create = async |name: &str, labels| {
        let body = ContainerCreateBody { image: Some(image.reference.clone()), labels, ..Default::default() };
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        engine().create_container(Some(options), body).await.unwrap().id
    };
    let remove_container = async |id: &str| {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        engine().remove_container(id, Some(options)).await.unwrap();
    };
    let taken = async |broker: &Broker, what: &str| {
        let error = broker.install(trusting(&image.reference)).await.unwrap_err();
        assert_eq!(reason(&error), "PROJECT_NAME_TAKEN", "{error:?}");
        assert!(error.message().contains(what), "{}", error.message());
        assert_eq!(std::fs::read_dir(broker.data_dir().join("extensions")).unwrap().count(), 0);
    };
    for broker in both().await {
        for (name, labels) in [(unique("longshore-test-x"), labels()), (format!("{project}-service"), None)] {
            let id = create(&name, labels).await;
            taken(&broker, &name).await;
            remove_container(&id).await;
        }
        for name in [unique("longshore-test-net"), format!("{project}_default")] {
            let labels = if name.starts_with(&project) { None } else { labels() };
            let request = NetworkCreateRequest { name: name.clone(), labels, ..Default::default() };
            let id = engine().create_network(request).await.unwrap().id;
            taken(&broker, &name).await;
            engine().remove_network(&id).await.unwrap();
        }
        for name in [unique("longshore-test-vol"), format!("{project}_data"), shared.clone()] {
            let labels = if name.starts_with("longshore-test-vol") { labels() } else { None };
            let request = VolumeCreateRequest { name: Some(name.clone()), labels, ..Default::default() };
            engine().create_volume(request).await.unwrap();
            taken(&broker, &name).await;
            engine().remove_volume(&name, None::<RemoveVolumeOptions>).await.unwrap();
        }
        broker.install(trusting(&image.reference)).await.unwrap();
        let removed = broker.uninstall(&image.id, true).await.unwrap();
        let mut expected = [format!("{project}_data"), shared.clone()];
        expected.sort();
        assert_eq!(removed.removed_volumes, expected);
        no_traces(&broker, &image.id).await;
    }
}

#[tokio::test]
async fn a_failed_install_takes_only_the_volumes_it_made() {
    let file = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    restart: 'no'\n    command: COMMAND\n    volumes: ['old:/old'MORE]\nvolumes:\n  old: {}\nNEW";
    let good = file.replace("COMMAND", "[/hello-backend, serve, --socket, /run/guest-services/backend.sock]");
    let good = compose(&good.replace("MORE", "").replace("NEW", "")).build().await;
    let bad = file.replace("COMMAND", "[/hello-backend]").replace("MORE", ", 'new:/new'").replace("NEW", "  new: {}\n");
    let broker = Broker::start_plain().await;
    broker.install(trusting(&good.reference)).await.unwrap();
    let project = project(&good.id);
    let old = format!("{project}_old");
    assert_eq!(broker.uninstall(&good.id, false).await.unwrap().kept_volumes, std::slice::from_ref(&old));
    let bad = compose(&bad).build_as(&good.id).await;
    let error = broker.install(trusting(&bad.reference)).await.unwrap_err();
    assert_eq!(reason(&error), "BACKEND_EXITED", "{error:?}");
    assert_eq!(crate::support::traces(&broker, &good.id).await, [format!("volume {old}")]);
    // Still known as ours: a later uninstall can take it.
    broker.install(within(trusting(&good.reference), 1)).await.unwrap_err();
    let again = compose(
        &file
            .replace("COMMAND", "[/hello-backend, serve, --socket, /run/guest-services/backend.sock]")
            .replace("MORE", "")
            .replace("NEW", ""),
    );
    let again = again.build_as(&good.id).await;
    broker.install(trusting(&again.reference)).await.unwrap();
    assert_eq!(broker.uninstall(&good.id, true).await.unwrap().removed_volumes, [old]);
    no_traces(&broker, &good.id).await;
}

#[tokio::test]
async fn a_caller_who_goes_away_has_changed_nothing() {
    let silent = Image::hello().busybox().change(r#"CMD ["/bin/sleep", "1000"]"#).build().await;
    let file =
        "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    volumes: ['data:/data']\nvolumes:\n  data: {}\n";
    let composed = compose(file).busybox().change(r#"CMD ["/bin/sleep", "1000"]"#).build().await;
    for broker in both().await {
        for image in [&silent, &composed] {
            // At the very beginning, while files are read, while containers are made, while it is waited for.
            for phase in [
                None,
                Some(pb::InstallPhase::Reading),
                Some(pb::InstallPhase::Starting),
                Some(pb::InstallPhase::Waiting),
            ] {
                let mut events =
                    broker.extensions().await.install(trusting(&image.reference)).await.unwrap().into_inner();
                while let Some(phase) = phase {
                    let event = events.message().await.unwrap().unwrap().event.unwrap();
                    if matches!(event, pb::install_response::Event::Progress(progress) if progress.phase() == phase) {
                        break;
                    }
                }
                drop(events);
                no_traces(&broker, &image.id).await;
                // Not while the undoing goes on.
                for _ in 0..200 {
                    if list(&broker).await.is_empty() {
                        break;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                assert_eq!(list(&broker).await, Vec::<String>::new());
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                no_traces(&broker, &image.id).await;
            }
        }
    }
}

#[tokio::test]
async fn a_detached_install_goes_on_without_its_caller() {
    let image = Image::hello().build().await;
    let broker = Broker::start().await;
    let request = pb::InstallRequest { detach: true, ..trusting(&image.reference) };
    let mut events = broker.extensions().await.install(request).await.unwrap().into_inner();
    events.message().await.unwrap().unwrap();
    drop(events);
    appears(&format!("{}-service", project(&image.id))).await;
    for _ in 0..600 {
        if list(&broker).await == [image.id.clone()] && get(&broker, &image.id).await.state() == ExtensionState::Ready {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
    broker.uninstall(&image.id, false).await.unwrap();
    no_traces(&broker, &image.id).await;
}

/// Whenever that happens: it is installed and works, or nothing of it is there.
#[tokio::test]
async fn an_image_that_is_removed_meanwhile() {
    use pb::InstallPhase::{Reading, Staging, Starting, Waiting};
    let file =
        "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    volumes: ['data:/data']\nvolumes:\n  data: {}\n";
    for is_composed in [false, true] {
        for phase in [Reading, Staging, Starting, Waiting] {
            let image = if is_composed { compose(file) } else { Image::hello() };
            let image = image.file("ui/more", vec![0; 8 << 20], 0o644).build().await;
            let broker = Broker::start().await;
            let events = broker.extensions().await.install(trusting(&image.reference)).await;
            let mut events = events.unwrap().into_inner();
            loop {
                let event = events.message().await.unwrap().unwrap().event.unwrap();
                if matches!(event, pb::install_response::Event::Progress(progress) if progress.phase() == phase) {
                    break;
                }
            }
            let options = RemoveImageOptionsBuilder::default().force(true).build();
            engine().remove_image(&image.reference, Some(options), None).await.unwrap();
            let ended = loop {
                match events.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            match ended {
                Ok(()) => {
                    match broker.get(&image.id, "/hello").await {
                        Ok(answer) => assert_eq!(answer.status, 200),
                        // It was ready when its container went with the image.
                        Err(error) => {
                            assert!(on_podman() && reason(&error) == "BACKEND_STOPPED", "{phase:?} {error:?}")
                        }
                    }
                    broker.uninstall(&image.id, true).await.unwrap();
                }
                Err(error) => {
                    let expected = ["IMAGE_NOT_FOUND", "COMPOSE_FAILED"];
                    // Podman removes the containers of an image with it.
                    let is_expected = expected.contains(&&*reason(&error))
                        || on_podman() && matches!(phase, Starting | Waiting) && reason(&error) == "BACKEND_EXITED";
                    assert!(is_expected, "{phase:?} {error:?}");
                    assert_eq!(list(&broker).await, Vec::<String>::new());
                }
            }
            no_traces(&broker, &image.id).await;
        }
    }
}
