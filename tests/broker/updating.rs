//! Update: the new one in the place of the old one, or the old one back.

use std::time::{Duration, Instant};

use longshore::pb::{self, ExtensionState};

use crate::support::{
    Broker, BrokerOptions, Image, ImageBuilder, PrivateEngine, engine, engine_names, has_image, image_source, local,
    no_traces, project, reason, trusting, trusting_update, unique,
};

const COMPOSE: &str = r#"{"vm": {"composefile": "docker-compose.yml", "exposes": {"socket": "backend.sock"}}}"#;
const FILE: &str = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/hello-backend, serve, --socket, /run/guest-services/backend.sock, --data, /data]\n    volumes: ['data:/data']\nvolumes:\n  data: {}\n";

fn composed(file: &str) -> ImageBuilder {
    Image::hello().file("metadata.json", COMPOSE, 0o644).file("docker-compose.yml", file, 0o644)
}

fn own_id() -> String {
    format!("longshore-test/{}", unique("update"))
}

fn within(request: pb::UpdateRequest, seconds: i64) -> pb::UpdateRequest {
    pb::UpdateRequest { ready_timeout: Some(prost_types::Duration { seconds, nanos: 0 }), ..request }
}

async fn containers(broker: &Broker, id: &str) -> Vec<(String, String)> {
    let backend = broker.extension(id).await.unwrap().backend.unwrap();
    backend.containers.into_iter().map(|container| (container.id, container.name)).collect()
}

async fn count(broker: &Broker, id: &str) -> String {
    String::from_utf8_lossy(&broker.get(id, "/count").await.unwrap().body).into_owned()
}

#[tokio::test]
async fn the_new_one_takes_the_place_of_the_old_one() {
    let id = own_id();
    let first = composed(FILE).build_version(&id, "1").await;
    let second = composed(FILE).file("more", "", 0o644).build_version(&id, "2").await;
    let volume = format!("{}_data", project(&id));
    for broker in [Broker::start().await, Broker::start_plain().await] {
        broker.install(trusting(&first.reference)).await.unwrap();
        let before = count(&broker, &id).await;
        let old = containers(&broker, &id).await;
        let updated = broker.update(trusting_update(&second.reference)).await.unwrap();
        let extension = updated.extension.unwrap();
        assert_eq!((extension.version.as_str(), extension.generation), ("2", 2));
        assert_eq!(extension.state(), ExtensionState::Ready, "{extension:#?}");
        assert_eq!((updated.previous_version.as_str(), updated.changed), ("1", true));
        assert_eq!(updated.kept_volumes, std::slice::from_ref(&volume));
        let new = containers(&broker, &id).await;
        assert_ne!(new[0].0, old[0].0);
        assert_eq!(new[0].1, old[0].1, "names stay");
        assert_eq!(engine_names(&id).await, [new[0].1.clone()]);
        assert_ne!(count(&broker, &id).await, before, "it goes on with the data of the old one");
        let again = broker.update(trusting_update(&second.reference)).await.unwrap();
        assert!(!again.changed, "the very same is no update");
        assert_eq!(containers(&broker, &id).await, new);
        let removed = broker.uninstall(&id, true).await.unwrap();
        assert_eq!(removed.removed_volumes, std::slice::from_ref(&volume));
        no_traces(&broker, &id).await;
    }
}

#[tokio::test]
async fn one_that_fails_leaves_the_old_one_as_it_was() {
    let ends = |image: ImageBuilder| image.change(r#"CMD ["/hello-backend", "no-such-word"]"#);
    let never = |image: ImageBuilder| image.busybox().change(r#"CMD ["/bin/sleep", "1000"]"#);
    let plain_file = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    volumes: ['other:/other']\n    networks: [mine]\nvolumes:\n  other: {}\nnetworks:\n  mine: {}\n";
    for is_composed in [false, true] {
        for (make, expected) in
            [(&ends as &dyn Fn(ImageBuilder) -> ImageBuilder, "BACKEND_EXITED"), (&never, "BACKEND_TOO_SLOW")]
        {
            let id = own_id();
            let base = || if is_composed { composed(FILE) } else { Image::hello() };
            let first = base().build_version(&id, "1").await;
            let second = if is_composed { composed(plain_file) } else { base() };
            let second = make(second).build_version(&id, "2").await;
            let broker = Broker::start().await;
            broker.install(trusting(&first.reference)).await.unwrap();
            let (old, before) = (containers(&broker, &id).await, broker.extension(&id).await.unwrap());
            let error = broker.update(within(trusting_update(&second.reference), 3)).await.unwrap_err();
            assert_eq!(reason(&error), expected, "{error:?}");
            assert_eq!(broker.get(&id, "/hello").await.unwrap().status, 200);
            assert_eq!(containers(&broker, &id).await, old, "the very containers");
            assert_eq!(broker.extension(&id).await.unwrap(), before);
            assert_eq!(engine_names(&id).await, [old[0].1.clone()], "{}", broker.log());
            let volumes = broker.uninstall(&id, true).await.unwrap().removed_volumes;
            let data = format!("{}_data", project(&id));
            assert_eq!(volumes, if is_composed { vec![data] } else { vec![] });
            no_traces(&broker, &id).await;
        }
    }
}

#[tokio::test]
async fn one_that_never_was_ready_may_be_replaced_by_one_that_is_not() {
    let never = || Image::plain().busybox().change(r#"CMD ["/bin/sleep", "1000"]"#);
    let id = own_id();
    let first = never().build_version(&id, "1").await;
    let second = never().file("more", "", 0o644).build_version(&id, "2").await;
    let broker = Broker::start().await;
    let request = trusting(&first.reference);
    let ready_timeout = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    broker.install(pb::InstallRequest { ready_timeout, ..request }).await.unwrap();
    let extension = broker.update(within(trusting_update(&second.reference), 1)).await.unwrap().extension.unwrap();
    assert_eq!((extension.version.as_str(), extension.state_reason.as_str()), ("2", "NO_SOCKET"));
    broker.uninstall(&id, true).await.unwrap();
    no_traces(&broker, &id).await;
}

#[tokio::test]
async fn the_same_tag_may_stand_for_another_image() {
    let id = own_id();
    let first = Image::hello().build_version(&id, "1").await;
    let broker = Broker::start().await;
    let installed = broker.install(trusting(&first.reference)).await.unwrap();
    let failing = Image::hello().file("x", "", 0o644).change(r#"CMD ["/nothing"]"#).build_version(&id, "1").await;
    broker.update(trusting_update(&failing.reference)).await.unwrap_err();
    let back = broker.extension(&id).await.unwrap();
    assert_eq!((back.image_id.as_str(), back.generation), (installed.image_id.as_str(), 1));
    assert_eq!(broker.get(&id, "/hello").await.unwrap().status, 200);
    let second = Image::hello().file("y", "", 0o644).build_version(&id, "1").await;
    let updated = broker.update(trusting_update(&second.reference)).await.unwrap();
    let extension = updated.extension.unwrap();
    assert_ne!(extension.image_id, installed.image_id);
    assert!(updated.changed);
    assert!(!has_image(&installed.image_id).await, "it had lost its own name, and ours kept it no longer than needed");
    broker.uninstall(&id, true).await.unwrap();
    no_traces(&broker, &id).await;
}

#[tokio::test]
async fn calls_meanwhile_are_answered_by_one_or_the_other() {
    let id = own_id();
    let first = Image::hello().build_version(&id, "1").await;
    let second = Image::hello().file("more", "", 0o644).build_version(&id, "2").await;
    let broker = Broker::start().await;
    broker.install(trusting(&first.reference)).await.unwrap();
    let mut backends = broker.backends().await;
    let extension = id.clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let calls = tokio::spawn(async move {
        let (mut answered, mut refused, mut longest) = (0, vec![], Duration::ZERO);
        while stopped.try_recv().is_err() {
            let start_wait = Some(prost_types::Duration { seconds: 30, nanos: 0 });
            let request = pb::FetchRequest {
                extension: extension.clone(),
                path: "/hello".into(),
                start_wait,
                ..Default::default()
            };
            let begun = Instant::now();
            match backends.fetch(request).await {
                Ok(response) => answered += i32::from(response.into_inner().status == 200),
                Err(error) => refused.push(reason(&error)),
            }
            longest = longest.max(begun.elapsed());
        }
        (answered, refused, longest)
    });
    broker.update(trusting_update(&second.reference)).await.unwrap();
    stop.send(()).unwrap();
    let (answered, refused, longest) = calls.await.unwrap();
    assert!(answered > 0 && longest < Duration::from_secs(30), "{answered} {longest:?}");
    // What was on its way to the old one when that stopped may have been lost with it.
    assert!(refused.len() <= 2 && refused.iter().all(|reason| reason.starts_with("BACKEND_BROKE")), "{refused:?}");
    assert_eq!(broker.get(&id, "/hello").await.unwrap().status, 200);
    broker.uninstall(&id, true).await.unwrap();
}

#[tokio::test]
async fn nothing_stops_where_a_grant_is_missing_or_a_stranger_is_in_the_way() {
    let id = own_id();
    let first = composed(FILE).build_version(&id, "1").await;
    let privileged = FILE.replace("volumes: [", "privileged: true\n    volumes: [");
    let second = composed(&privileged).build_version(&id, "2").await;
    let named = FILE.replace("volumes: [", "container_name: CNAME\n    volumes: [");
    let strangers = unique("longshore-test-stranger");
    let third = composed(&named.replace("CNAME", &strangers)).build_version(&id, "3").await;
    let broker = Broker::start().await;
    broker.install(trusting(&first.reference)).await.unwrap();
    let old = containers(&broker, &id).await;
    let mut grants = broker.grants().await;
    let clear = pb::GrantServiceSetRequest { extension: id.clone(), ..Default::default() };
    grants.set(clear).await.unwrap();
    let request = pb::UpdateRequest { source: Some(image_source(&second.reference)), ..Default::default() };
    assert_eq!(reason(&broker.update(request).await.unwrap_err()), "GRANTS_REQUIRED");
    let body = bollard::models::ContainerCreateBody { image: Some(first.reference.clone()), ..Default::default() };
    let options = bollard::query_parameters::CreateContainerOptionsBuilder::default().name(&strangers).build();
    let stranger = engine().create_container(Some(options), body).await.unwrap().id;
    let error = broker.update(trusting_update(&third.reference)).await.unwrap_err();
    assert_eq!(reason(&error), "PROJECT_NAME_TAKEN");
    assert_eq!(containers(&broker, &id).await, old);
    assert_eq!(broker.get(&id, "/hello").await.unwrap().status, 200);
    let options = bollard::query_parameters::RemoveContainerOptionsBuilder::default().force(true).build();
    engine().remove_container(&stranger, Some(options)).await.unwrap();
    broker.uninstall(&id, true).await.unwrap();
    no_traces(&broker, &id).await;
}

#[tokio::test]
async fn a_port_that_is_taken_brings_the_old_one_back() {
    let id = own_id();
    let first = composed(FILE).build_version(&id, "1").await;
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let file = FILE.replace("volumes: [", &format!("ports: ['{port}:80']\n    volumes: ["));
    let second = composed(&file).build_version(&id, "2").await;
    let broker = Broker::start().await;
    broker.install(trusting(&first.reference)).await.unwrap();
    let old = containers(&broker, &id).await;
    let error = broker.update(trusting_update(&second.reference)).await.unwrap_err();
    assert_eq!(reason(&error), "COMPOSE_FAILED", "{error:?}");
    assert_eq!(containers(&broker, &id).await, old);
    assert_eq!(broker.get(&id, "/hello").await.unwrap().status, 200);
    broker.uninstall(&id, true).await.unwrap();
    no_traces(&broker, &id).await;
}

#[tokio::test]
async fn one_that_is_disabled_stays_so() {
    for is_composed in [false, true] {
        let id = own_id();
        let base = || if is_composed { composed(FILE) } else { Image::hello() };
        let first = base().build_version(&id, "1").await;
        let second = base().file("more", "", 0o644).build_version(&id, "2").await;
        let broker = Broker::start().await;
        broker.install(trusting(&first.reference)).await.unwrap();
        broker.extensions().await.disable(pb::DisableRequest { extension: id.clone() }).await.unwrap();
        let extension = broker.update(trusting_update(&second.reference)).await.unwrap().extension.unwrap();
        assert_eq!((extension.version.as_str(), extension.state()), ("2", ExtensionState::Stopped));
        assert_eq!(extension.backend.unwrap().containers[0].state, "created");
        let enabled = broker.extensions().await.enable(pb::EnableRequest { extension: id.clone() }).await.unwrap();
        assert!(enabled.into_inner().extension.unwrap().enabled);
        assert_eq!(broker.get(&id, "/hello").await.unwrap().status, 200);
        broker.uninstall(&id, true).await.unwrap();
        no_traces(&broker, &id).await;
    }
}

#[tokio::test]
async fn what_is_not_installed_cannot_be_updated() {
    let image = Image::hello().build().await;
    let broker = Broker::start().await;
    let error = broker.update(trusting_update(&image.reference)).await.unwrap_err();
    assert_eq!(reason(&error), "EXTENSION_NOT_FOUND");
    let id = local(&broker).await;
    let root = broker.scratch().join(id.rsplit('/').next().unwrap());
    std::fs::write(root.join("ui/index.html"), "<h1>new</h1>").unwrap();
    let source = pb::DirectorySource { path: root.display().to_string(), reference: format!("{id}:1") };
    let source = Some(pb::Source { source: Some(pb::source::Source::Directory(source)) });
    let updated = broker.update(pb::UpdateRequest { source, trust: true, ..Default::default() }).await.unwrap();
    let ui = updated.extension.unwrap().ui.unwrap();
    assert_eq!(std::fs::read_to_string(format!("{}/{}", ui.root_dir, ui.entry)).unwrap(), "<h1>new</h1>");
    no_traces_but_files(&broker, &id).await;
}

/// It is still installed: only the files of one generation are there.
async fn no_traces_but_files(broker: &Broker, id: &str) {
    let generations = broker.data_dir().join("extensions").join(id.replace('/', "_")).join("generations");
    assert_eq!(std::fs::read_dir(generations).unwrap().count(), 1);
    broker.uninstall(id, true).await.unwrap();
    no_traces(broker, id).await;
}

#[tokio::test]
async fn one_that_needs_more_gets_it_with_the_update() {
    let id = own_id();
    let first = composed(FILE).build_version(&id, "1").await;
    let second = composed(&FILE.replace("volumes: [", "pid: host\n    volumes: [")).build_version(&id, "2").await;
    let broker = Broker::start().await;
    let install = pb::InstallRequest { source: Some(image_source(&first.reference)), ..Default::default() };
    broker.install(install).await.unwrap();
    let (source, accept_grants) = (Some(image_source(&second.reference)), vec!["backend.privileged".to_owned()]);
    let request = pb::UpdateRequest { source, accept_grants, ..Default::default() };
    let extension = broker.update(within(request, 20)).await.unwrap().extension.unwrap();
    assert_eq!((extension.version.as_str(), extension.state()), ("2", ExtensionState::Ready), "{extension:#?}");
    assert_eq!(broker.get(&id, "/hello").await.unwrap().status, 200);
    broker.uninstall(&id, true).await.unwrap();
    no_traces(&broker, &id).await;
}

/// Goes on with an update until it is at this phase.
async fn reaches(events: &mut tonic::Streaming<pb::UpdateResponse>, phase: pb::InstallPhase) {
    while let Some(event) = events.message().await.unwrap() {
        if matches!(event.event, Some(pb::update_response::Event::Progress(progress)) if progress.phase() == phase) {
            return;
        }
    }
    panic!("it never comes to {phase:?}");
}

/// The end of an update.
async fn outcome(events: &mut tonic::Streaming<pb::UpdateResponse>) -> Result<(), tonic::Status> {
    while events.message().await?.is_some() {}
    Ok(())
}

async fn lose_image(name: &str) {
    let options = bollard::query_parameters::RemoveImageOptionsBuilder::default().force(true).build();
    engine().remove_image(name, Some(options), None).await.unwrap();
}

#[tokio::test]
async fn images_that_are_removed_meanwhile_leave_the_old_one_or_the_new_one() {
    use pb::InstallPhase::{Reading, Staging, Starting, Waiting};
    for is_composed in [false, true] {
        for phase in [Reading, Staging, Starting, Waiting] {
            let id = own_id();
            let base = || if is_composed { composed(FILE) } else { Image::hello() };
            let first = base().build_version(&id, "1").await;
            let second = base().file("ui/more", vec![0; 8 << 20], 0o644).build_version(&id, "2").await;
            let broker = Broker::start().await;
            broker.install(trusting(&first.reference)).await.unwrap();
            let mut events = broker.extensions().await.update(trusting_update(&second.reference)).await;
            let events = events.as_mut().unwrap().get_mut();
            reaches(events, phase).await;
            // Both names: the old one is held by ours.
            lose_image(&second.reference).await;
            lose_image(&first.reference).await;
            let ended = outcome(events).await;
            if let Err(error) = &ended {
                let expected = ["IMAGE_NOT_FOUND", "COMPOSE_FAILED"];
                assert!(expected.contains(&reason(error).as_str()), "{phase:?} {error:?}");
            }
            let extension = broker.extension(&id).await.unwrap();
            let version = if ended.is_ok() { "2" } else { "1" };
            assert_eq!((extension.version.as_str(), extension.state()), (version, ExtensionState::Ready), "{ended:?}");
            assert_eq!(broker.get(&id, "/hello").await.unwrap().status, 200);
            assert_eq!(engine_names(&id).await.len(), 1);
            broker.uninstall(&id, true).await.unwrap();
            no_traces(&broker, &id).await;
        }
    }
}

#[tokio::test]
async fn our_name_alone_holds_the_old_image_until_the_new_one_is_ready() {
    use pb::InstallPhase::Waiting;
    let private = PrivateEngine::start().await;
    let (at, id) = (private.at(), own_id());
    let broker = Broker::start_with(private.broker(BrokerOptions::default())).await;
    let first = Image::hello().build_version_in(&at, &id, "1").await;
    let installed = broker.install(trusting(&first.reference)).await.unwrap();
    let old = installed.image_id;
    let names = async || Some(at.client().inspect_image(&old).await.ok()?.repo_tags.unwrap_or_default());
    // Built again under the same name: the old image has none of its own any more.
    let silent = Image::plain().busybox().change(r#"CMD ["/bin/sleep", "1000"]"#).build_version_in(&at, &id, "1").await;
    let request = within(trusting_update(&silent.reference), 4);
    let mut events = broker.extensions().await.update(request).await.unwrap().into_inner();
    reaches(&mut events, Waiting).await;
    let held = names().await.unwrap();
    assert!(held.len() == 1 && held[0].starts_with("longshore/kept:"), "{held:?}");
    // Neither who cleans up takes it, nor is it needed that its container is there still.
    at.docker(&["image", "prune", "--force"]);
    at.docker(&["rm", "--force", &installed.backend.unwrap().containers[0].id]);
    assert_eq!(reason(&outcome(&mut events).await.unwrap_err()), "BACKEND_TOO_SLOW");
    let begun = Instant::now();
    let back = loop {
        let back = broker.extension(&id).await.unwrap();
        if back.state() == ExtensionState::Ready {
            break back;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{back:#?}\n{}", broker.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let container = &back.backend.unwrap().containers[0].id;
    assert_eq!(at.client().inspect_container(container, None).await.unwrap().image, Some(old.clone()));
    assert_eq!(broker.get(&id, "/hello").await.unwrap().status, 200);
    at.docker(&["image", "prune", "--force"]);
    // One that takes a moment to be ready: the old image is there until then, and no longer.
    let script = "sleep 2; exec /hello-backend serve --socket /run/guest-services/backend.sock";
    let slow = Image::hello().busybox().change(&format!("CMD [\"/bin/sh\", \"-c\", {script:?}]"));
    let slow = slow.build_version_in(&at, &id, "1").await;
    let mut events = broker.extensions().await.update(trusting_update(&slow.reference)).await.unwrap().into_inner();
    reaches(&mut events, Waiting).await;
    assert_eq!(names().await.map(|names| names.len()), Some(1));
    outcome(&mut events).await.unwrap();
    assert_eq!(names().await, None);
    assert_eq!(broker.get(&id, "/hello").await.unwrap().status, 200);
    broker.uninstall(&id, true).await.unwrap();
    no_traces(&broker, &id).await;
}
