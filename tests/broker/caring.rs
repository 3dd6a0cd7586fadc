//! What is wanted comes back, whatever happens to containers, engine and broker; and what the ledger says stays right.

use std::time::{Duration, Instant};

use bollard::{
    models::ContainerCreateBody,
    query_parameters::{
        CreateContainerOptionsBuilder, KillContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
        StopContainerOptions,
    },
};
use longshore::pb::{self, ExtensionState, ownership_service_watch_response::Event};

use crate::support::{
    Broker, BrokerOptions, Image, ImageBuilder, PrivateEngine, engine, engine_names, no_traces, project, read_store,
    trusting, unique,
};

const COMPOSE: &str = r#"{"vm": {"composefile": "docker-compose.yml", "exposes": {"socket": "backend.sock"}}}"#;
const FILE: &str = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n  init:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/bin/sh, -c, 'echo done']\n";

fn composed() -> ImageBuilder {
    Image::hello().busybox().file("metadata.json", COMPOSE, 0o644).file("docker-compose.yml", FILE, 0o644)
}

/// Waits until an extension is as it should be.
async fn becomes(broker: &Broker, id: &str, what: impl Fn(&pb::Extension) -> bool) -> pb::Extension {
    let begun = Instant::now();
    loop {
        let extension = broker.extension(id).await.unwrap();
        if what(&extension) {
            return extension;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{extension:#?}\n{}", broker.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn is_ready(extension: &pb::Extension) -> bool {
    extension.state() == ExtensionState::Ready
}

fn container(extension: &pb::Extension, service: &str) -> String {
    let all = &extension.backend.as_ref().unwrap().containers;
    all.iter().find(|container| container.service == service).unwrap().id.clone()
}

async fn remove(id: &str) {
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    engine().remove_container(id, Some(options)).await.unwrap();
}

#[tokio::test]
async fn containers_that_are_killed_or_removed_come_back_once() {
    for (image, service) in [(Image::hello(), "service"), (composed(), "web")] {
        let image = image.build().await;
        let mut broker = Broker::start().await;
        let installed = broker.install(trusting(&image.reference)).await.unwrap();
        let names = engine_names(&image.id).await;
        engine().kill_container(&container(&installed, service), None::<KillContainerOptions>).await.unwrap();
        becomes(&broker, &image.id, is_ready).await;
        assert_eq!(container(&broker.extension(&image.id).await.unwrap(), service), container(&installed, service));
        remove(&container(&installed, service)).await;
        let other = |extension: &pb::Extension| {
            is_ready(extension) && container(extension, service) != container(&installed, service)
        };
        let again = becomes(&broker, &image.id, other).await;
        assert_eq!(again.backend.as_ref().unwrap().containers.len(), names.len());
        assert_eq!(engine_names(&image.id).await, names, "no doubles");
        // While nobody looks.
        broker.kill();
        remove(&container(&again, service)).await;
        broker.restart().await;
        let other = |extension: &pb::Extension| {
            is_ready(extension) && container(extension, service) != container(&again, service)
        };
        becomes(&broker, &image.id, other).await;
        assert_eq!(engine_names(&image.id).await, names, "no doubles");
        assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
        broker.uninstall(&image.id, true).await.unwrap();
        no_traces(&broker, &image.id).await;
    }
}

#[tokio::test]
async fn a_job_that_is_done_is_left_alone_and_what_is_disabled_stays_down() {
    let image = composed().build().await;
    let broker = Broker::start().await;
    let installed = broker.install(trusting(&image.reference)).await.unwrap();
    let init = container(&installed, "init");
    let begun = engine().inspect_container(&init, None).await.unwrap().state.unwrap().started_at;
    engine().kill_container(&container(&installed, "web"), None::<KillContainerOptions>).await.unwrap();
    becomes(&broker, &image.id, is_ready).await;
    let after = engine().inspect_container(&init, None).await.unwrap().state.unwrap();
    assert_eq!((after.started_at, after.running), (begun, Some(false)));
    broker.extensions().await.disable(pb::DisableRequest { extension: image.id.clone() }).await.unwrap();
    engine().start_container(&container(&installed, "web"), None::<StartContainerOptions>).await.unwrap();
    let stopped = |extension: &pb::Extension| {
        extension.backend.as_ref().unwrap().containers.iter().all(|container| container.state == "exited")
    };
    becomes(&broker, &image.id, stopped).await;
    broker.uninstall(&image.id, true).await.unwrap();
    no_traces(&broker, &image.id).await;
}

/// What comes next of an object of this name.
async fn next_of(stream: &mut tonic::Streaming<pb::OwnershipServiceWatchResponse>, name: &str) -> (bool, pb::Resource) {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(30), stream.message()).await.expect("it is told");
        let (gone, resource) = match message.unwrap().unwrap().event {
            Some(Event::Changed(resource)) => (false, resource),
            Some(Event::Removed(resource)) => (true, resource),
            _ => continue,
        };
        if resource.name == name {
            return (gone, resource);
        }
    }
}

#[tokio::test]
async fn whoever_watches_sees_what_comes_and_goes_and_whose_it_is() {
    let image = Image::hello().build().await;
    let broker = Broker::start().await;
    let list = broker.ownership().await.list_resources(pb::ListResourcesRequest::default()).await.unwrap();
    let resume_token = list.into_inner().watch_token;
    let request = pb::OwnershipServiceWatchRequest { resume_token, ..Default::default() };
    let mut stream = broker.ownership().await.watch(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let name = unique("longshore-test-by-hand");
    let body = ContainerCreateBody { image: Some(image.reference.clone()), ..Default::default() };
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let id = engine().create_container(Some(options), body).await.unwrap().id;
    let begun = Instant::now();
    let (gone, stranger) = next_of(&mut stream, &name).await;
    assert_eq!((gone, stranger.id.as_str(), stranger.owner), (false, id.as_str(), None));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    remove(&id).await;
    assert!(next_of(&mut stream, &name).await.0);
    broker.install(trusting(&image.reference)).await.unwrap();
    let own = format!("{}-service", project(&image.id));
    loop {
        let (gone, resource) = next_of(&mut stream, &own).await;
        assert!(!gone);
        let owner = resource.owner.unwrap();
        assert_eq!(owner.extension, image.id);
        if owner.source() == pb::OwnershipSource::Created {
            break;
        }
    }
    broker.uninstall(&image.id, true).await.unwrap();
    while !next_of(&mut stream, &own).await.0 {}
    let other = pb::OwnershipServiceWatchRequest { resume_token: "other.1".into(), ..Default::default() };
    assert_eq!(broker.ownership().await.watch(other).await.unwrap_err().code(), tonic::Code::OutOfRange);
}

#[tokio::test]
async fn an_engine_that_comes_back_is_taken_up_where_it_was_left() {
    let mut private = PrivateEngine::start().await;
    let (kept, gone) = (composed().build_in(&private.at()).await, Image::hello().build_in(&private.at()).await);
    let broker = Broker::start_with(private.broker(BrokerOptions::default())).await;
    for image in [&kept, &gone] {
        broker.install(trusting(&image.reference)).await.unwrap();
    }
    private.kill();
    let away = |extension: &pb::Extension| extension.state_reason == "ENGINE_UNAVAILABLE";
    becomes(&broker, &kept.id, away).await;
    let removed = broker.uninstall(&gone.id, true).await.unwrap();
    assert!(removed.pending, "{removed:?}");
    assert_eq!(broker.extension(&gone.id).await.unwrap().state(), ExtensionState::Uninstalling);
    private.launch().await;
    becomes(&broker, &kept.id, is_ready).await;
    assert_eq!(broker.get(&kept.id, "/hello").await.unwrap().status, 200);
    let begun = Instant::now();
    while broker.extension(&gone.id).await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", broker.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // In order: then its containers were stopped by it, and come back with it or by us.
    private.stop();
    private.launch().await;
    becomes(&broker, &kept.id, is_ready).await;
    let extension = broker.extension(&kept.id).await.unwrap();
    let options = None::<StopContainerOptions>;
    private.at().client().stop_container(&container(&extension, "web"), options).await.unwrap();
    becomes(&broker, &kept.id, is_ready).await;
    broker.uninstall(&kept.id, true).await.unwrap();
}

#[tokio::test]
async fn what_was_removed_of_a_disabled_one_is_made_when_it_is_enabled() {
    for (image, service) in [(Image::hello(), "service"), (composed(), "web")] {
        let image = image.build().await;
        let broker = Broker::start().await;
        let installed = broker.install(trusting(&image.reference)).await.unwrap();
        let names = engine_names(&image.id).await;
        broker.extensions().await.disable(pb::DisableRequest { extension: image.id.clone() }).await.unwrap();
        remove(&container(&installed, service)).await;
        let enabled = broker.extensions().await.enable(pb::EnableRequest { extension: image.id.clone() }).await;
        let enabled = enabled.unwrap().into_inner().extension.unwrap();
        let backend = enabled.backend.as_ref().unwrap();
        assert_eq!(backend.containers.len(), names.len(), "{enabled:#?}");
        assert!(backend.containers.iter().all(|container| container.state != "missing"), "{enabled:#?}");
        becomes(&broker, &image.id, is_ready).await;
        assert_eq!(engine_names(&image.id).await, names);
        broker.uninstall(&image.id, true).await.unwrap();
        no_traces(&broker, &image.id).await;
    }
}

/// A container in the place of another, as a start that broke off leaves it: of the same name and labels, and not on the
/// ledger.
async fn made_again(of: &str) -> String {
    let found = engine().inspect_container(of, None).await.unwrap();
    let (config, name) = (found.config.unwrap(), found.name.unwrap());
    remove(of).await;
    let body = ContainerCreateBody {
        image: config.image,
        cmd: config.cmd,
        labels: config.labels,
        host_config: found.host_config,
        ..Default::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(name.trim_start_matches('/')).build();
    engine().create_container(Some(options), body).await.unwrap().id
}

#[tokio::test]
async fn what_a_start_that_broke_off_made_is_no_strangers() {
    for (image, service) in [(Image::hello(), "service"), (composed(), "web")] {
        let image = image.build().await;
        let mut broker = Broker::start().await;
        let installed = broker.install(trusting(&image.reference)).await.unwrap();
        let names = engine_names(&image.id).await;
        broker.kill();
        let made = made_again(&container(&installed, service)).await;
        broker.restart().await;
        let is_taken_up = |extension: &pb::Extension| {
            let all = &extension.backend.as_ref().unwrap().containers;
            is_ready(extension) && all.len() == names.len() && container(extension, service) == made
        };
        becomes(&broker, &image.id, is_taken_up).await;
        assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
        // Who stops the extension stops that as well.
        broker.kill();
        let made = made_again(&made).await;
        engine().start_container(&made, None::<StartContainerOptions>).await.unwrap();
        broker.restart().await;
        broker.extensions().await.disable(pb::DisableRequest { extension: image.id.clone() }).await.unwrap();
        let state = engine().inspect_container(&made, None).await.unwrap().state.unwrap();
        assert_eq!(state.running, Some(false));
        broker.uninstall(&image.id, true).await.unwrap();
        no_traces(&broker, &image.id).await;
    }
}

#[tokio::test]
async fn what_ran_runs_again_when_its_engine_comes_back_and_a_job_does_not() {
    let file = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n  side:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/hello-backend, serve, --socket, /run/guest-services/side.sock]\n  init:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/hello-backend, whoami]\n";
    let mut private = PrivateEngine::start().await;
    let image = Image::hello().file("metadata.json", COMPOSE, 0o644).file("docker-compose.yml", file, 0o644);
    let image = image.build_in(&private.at()).await;
    let mut broker = Broker::start_with(private.broker(BrokerOptions::default())).await;
    let installed = broker.install(trusting(&image.reference)).await.unwrap();
    let init = container(&installed, "init");
    let begun = async |private: &PrivateEngine| {
        private.at().client().inspect_container(&init, None).await.unwrap().state.unwrap().started_at
    };
    let first = begun(&private).await;
    let lasting = "SELECT coalesce(record ->> '$.backend.lasting', '') FROM generation";
    let waited = Instant::now();
    while !read_store(&broker.data_dir(), lasting).contains("side") {
        assert!(waited.elapsed() < Duration::from_secs(30), "{}", broker.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for is_broker_away in [false, true] {
        if is_broker_away {
            broker.kill();
        }
        // In order: each ends with 0, as a job does.
        private.stop();
        private.launch().await;
        if is_broker_away {
            broker.restart().await;
        }
        let all_run = |extension: &pb::Extension| {
            let side = extension.backend.as_ref().unwrap().containers.iter().find(|one| one.service == "side");
            is_ready(extension) && side.unwrap().state == "running"
        };
        becomes(&broker, &image.id, all_run).await;
        assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
        assert_eq!(begun(&private).await, first, "the job is done");
    }
    // One that ends by itself stays as its author left it, and that is told.
    let side = container(&broker.extension(&image.id).await.unwrap(), "side");
    private.at().client().kill_container(&side, None::<KillContainerOptions>).await.unwrap();
    let told = |extension: &pb::Extension| extension.state() == ExtensionState::Degraded;
    becomes(&broker, &image.id, told).await;
    broker.uninstall(&image.id, true).await.unwrap();
}
