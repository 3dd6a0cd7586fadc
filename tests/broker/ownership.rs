//! Who owns what.

use std::time::Duration;

use bollard::{
    models::{ContainerCreateBody, VolumeCreateRequest},
    query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions},
};
use longshore::pb::{self, OwnershipSource, ResourceKind};

use crate::support::{Broker, Image, engine, eventually, no_traces, project, reason, shell, started, trusting, unique};

const COMPOSE: &str = r#"{"vm": {"composefile": "docker-compose.yml", "exposes": {"socket": "backend.sock"}}}"#;
const FILE: &str = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    volumes: ['data:/data', '/anonymous']\n  side:\n    image: ${DESKTOP_PLUGIN_IMAGE}\nvolumes:\n  data: {}\n";

async fn resources(broker: &Broker, request: pb::ListResourcesRequest) -> Vec<pb::Resource> {
    let (mut all, mut page_token) = (vec![], String::new());
    loop {
        let request = pb::ListResourcesRequest { page_token, ..request.clone() };
        let page = broker.ownership().await.list_resources(request).await.unwrap().into_inner();
        all.extend(page.resources);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

async fn owner(broker: &Broker, kind: ResourceKind, id: &str) -> Result<pb::Resource, tonic::Status> {
    let request = pb::GetOwnerRequest { kind: kind.into(), id: id.to_owned() };
    Ok(broker.ownership().await.get_owner(request).await?.into_inner().resource.unwrap())
}

#[tokio::test]
async fn everything_an_extension_has_is_listed_as_its_own() {
    let image =
        Image::hello().file("metadata.json", COMPOSE, 0o644).file("docker-compose.yml", FILE, 0o644).build().await;
    let project = project(&image.id);
    for plain in [false, true] {
        let broker = if plain { Broker::start_plain().await } else { Broker::start().await };
        broker.install(trusting(&image.reference)).await.unwrap();
        let mine = pb::ListResourcesRequest { extension: image.id.clone(), ..Default::default() };
        let all = resources(&broker, mine.clone()).await;
        let shown: Vec<(ResourceKind, &str)> = all.iter().map(|r| (r.kind(), r.name.as_str())).collect();
        let anonymous = all.iter().find(|r| r.kind() == ResourceKind::Volume && r.name.len() == 64).unwrap();
        let mut volumes = [anonymous.name.clone(), format!("{project}_data")];
        volumes.sort();
        assert_eq!(
            shown,
            [
                (ResourceKind::Container, &*format!("{project}-side-1")),
                (ResourceKind::Container, &*format!("{project}-web-1")),
                (ResourceKind::Network, &*format!("{project}_default")),
                (ResourceKind::Volume, &volumes[0]),
                (ResourceKind::Volume, &volumes[1]),
            ]
        );
        for resource in &all {
            let owner = resource.owner.as_ref().unwrap();
            assert_eq!((&owner.extension, owner.source()), (&image.id, OwnershipSource::Created));
            assert_eq!(owner.generation, 1);
            assert!(owner.first_seen.is_some());
        }
        assert_eq!((&*all[0].owner.as_ref().unwrap().service, &*all[0].state), ("side", "running"));
        // By kind, in pages of one, and as part of the whole.
        let kinds = vec![ResourceKind::Network.into(), ResourceKind::Volume.into()];
        assert_eq!(resources(&broker, pb::ListResourcesRequest { kinds, ..mine.clone() }).await, all[2..]);
        assert_eq!(resources(&broker, pb::ListResourcesRequest { page_size: 1, ..mine.clone() }).await, all);
        let owned = pb::ListResourcesRequest { owned_only: true, ..Default::default() };
        let owned = resources(&broker, owned).await;
        assert!(owned.iter().all(|resource| resource.owner.is_some()));
        assert!(all.iter().all(|resource| owned.contains(resource)));
        let rubbish = pb::ListResourcesRequest { page_token: "rubbish".into(), ..Default::default() };
        let error = broker.ownership().await.list_resources(rubbish).await.unwrap_err();
        assert_eq!(reason(&error), "PAGE_TOKEN_INVALID");
        by_every_name(&broker, &all[1]).await;
        broker.uninstall(&image.id, true).await.unwrap();
        let error = broker.ownership().await.list_resources(mine).await.unwrap_err();
        assert_eq!(reason(&error), "EXTENSION_NOT_FOUND");
        no_traces(&broker, &image.id).await;
    }
}

async fn by_every_name(broker: &Broker, web: &pb::Resource) {
    for name in [&*web.id, &web.name, &format!("/{}", web.name), &web.id[..12]] {
        assert_eq!(owner(broker, ResourceKind::Unspecified, name).await.unwrap(), *web, "{name}");
        assert_eq!(owner(broker, ResourceKind::Container, name).await.unwrap(), *web, "{name}");
        assert_eq!(reason(&owner(broker, ResourceKind::Volume, name).await.unwrap_err()), "RESOURCE_NOT_FOUND");
    }
    for name in [&web.id[..3], "no-such-thing", &web.name[..12]] {
        assert_eq!(reason(&owner(broker, ResourceKind::Unspecified, name).await.unwrap_err()), "RESOURCE_NOT_FOUND");
    }
    assert_eq!(reason(&owner(broker, ResourceKind::Unspecified, "").await.unwrap_err()), "REQUEST_INVALID");
}

#[tokio::test]
async fn labels_are_claims_and_strangers_are_nobodys() {
    let image = Image::hello().build().await;
    let broker = Broker::start().await;
    broker.install(trusting(&image.reference)).await.unwrap();
    let labels = [
        ("dev.longshore.extension", &*image.id),
        ("dev.longshore.generation", "7"),
        ("com.docker.compose.service", "x"),
    ];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let name = unique("longshore-test-claim");
    let claim = ContainerCreateBody {
        image: Some(image.reference.clone()),
        labels: Some(labels.clone().into()),
        ..Default::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let id = engine().create_container(Some(options), claim).await.unwrap().id;
    let claimed = owner(&broker, ResourceKind::Unspecified, &name).await.unwrap();
    let found = claimed.owner.clone().unwrap();
    assert_eq!((&found.extension, found.source(), found.generation), (&image.id, OwnershipSource::Label, 7));
    assert_eq!((&*found.service, found.first_seen), ("x", None));
    let volume = unique("longshore-test-stranger");
    let request = VolumeCreateRequest { name: Some(volume.clone()), ..Default::default() };
    engine().create_volume(request).await.unwrap();
    let nobodys = owner(&broker, ResourceKind::Volume, &volume).await.unwrap();
    assert_eq!((&nobodys.id, nobodys.owner), (&volume, None));
    let mine = pb::ListResourcesRequest { extension: image.id.clone(), ..Default::default() };
    let listed = || async { resources(&broker, mine.clone()).await.contains(&claimed).then_some(()) };
    eventually(listed).await;
    broker.uninstall(&image.id, true).await.unwrap();
    assert_eq!(resources(&broker, mine).await, [claimed], "it is never removed for its label");
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    engine().remove_container(&id, Some(options)).await.unwrap();
    engine().remove_volume(&volume, None::<RemoveVolumeOptions>).await.unwrap();
    no_traces(&broker, &image.id).await;
}

#[tokio::test]
async fn a_beginning_that_fits_two_is_told() {
    // Two ids with the same first four digits come among some hundred objects; networks are cheap, but not that cheap:
    // what is ambiguous is therefore asked for by an id that one object has and a name that another has.
    let image = Image::hello().build().await;
    let broker = Broker::start().await;
    let extension = broker.install(trusting(&image.reference)).await.unwrap();
    let id = &extension.backend.unwrap().containers[0].id;
    let name = id[..12].to_owned();
    let request = VolumeCreateRequest { name: Some(name.clone()), ..Default::default() };
    engine().create_volume(request).await.unwrap();
    let exact = owner(&broker, ResourceKind::Unspecified, &name).await;
    engine().remove_volume(&name, None::<RemoveVolumeOptions>).await.unwrap();
    assert_eq!(exact.unwrap().kind(), ResourceKind::Volume, "a whole name comes before the beginning of an id");
    assert_eq!(owner(&broker, ResourceKind::Unspecified, &name).await.unwrap().id, *id);
    broker.uninstall(&image.id, false).await.unwrap();
    no_traces(&broker, &image.id).await;
}

/// What is told next of a program.
async fn next_exec(watch: &mut tonic::Streaming<pb::OwnershipServiceWatchResponse>) -> (bool, pb::Resource) {
    use pb::ownership_service_watch_response::Event;
    loop {
        let message = tokio::time::timeout(Duration::from_secs(30), watch.message()).await.expect("it is told");
        match message.unwrap().unwrap().event.unwrap() {
            Event::Changed(resource) => return (false, resource),
            Event::Removed(resource) => return (true, resource),
            Event::Heartbeat(_) => {}
        }
    }
}

#[tokio::test]
async fn programs_are_on_the_ledger_as_long_as_anything_of_them_lives() {
    let image = Image::hello().busybox().build().await;
    let broker = Broker::start().await;
    let generation = broker.install(trusting(&image.reference)).await.unwrap().generation;
    let kinds = vec![ResourceKind::Exec.into()];
    let request = pb::OwnershipServiceWatchRequest { kinds: kinds.clone(), ..Default::default() };
    let mut watch = broker.ownership().await.watch(request).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    for (target, service) in [(pb::ExecTarget::Backend, "service"), (pb::ExecTarget::Host, "")] {
        let mut run = broker.start_program(shell(&image.id, target, "sleep 1000")).await;
        let started = started(&mut run).await;
        let all = resources(&broker, pb::ListResourcesRequest { kinds: kinds.clone(), ..Default::default() }).await;
        let [listed] = &all[..] else { panic!("{all:?}") };
        let owner_of = listed.owner.as_ref().unwrap();
        assert_eq!((listed.id.as_str(), listed.state.as_str()), (started.exec_id.as_str(), "running"));
        assert_eq!((owner_of.extension.as_str(), owner_of.source()), (image.id.as_str(), OwnershipSource::Created));
        assert_eq!((owner_of.generation, owner_of.service.as_str()), (generation, service));
        assert!(owner_of.first_seen.is_some());
        assert_eq!(owner(&broker, ResourceKind::Unspecified, &started.exec_id).await.unwrap(), *listed);
        let (gone, told) = next_exec(&mut watch).await;
        assert_eq!((gone, told.id.as_str(), &told.owner), (false, started.exec_id.as_str(), &listed.owner));
        drop(run);
        let (gone, told) = next_exec(&mut watch).await;
        assert_eq!((gone, told.id.as_str()), (true, started.exec_id.as_str()));
        let none = owner(&broker, ResourceKind::Exec, &started.exec_id).await.unwrap_err();
        assert_eq!(reason(&none), "RESOURCE_NOT_FOUND");
    }
    broker.uninstall(&image.id, true).await.unwrap();
}
