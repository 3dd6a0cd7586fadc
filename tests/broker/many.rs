//! A thousand containers of fifty extensions, on an engine of the test's own. How long a list takes, and how soon something
//! new is told, is the bench's to say.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use bollard::{
    Docker,
    models::ContainerCreateBody,
    query_parameters::{CreateContainerOptions, CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder},
};
use longshore::{
    model::reference::ExtensionId,
    pb::{self, OwnershipSource, ResourceKind, ownership_service_watch_response::Event},
};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::support::{Broker, BrokerOptions, EngineAt, Image, PrivateEngine, local, unique};

const EXTENSIONS: usize = 50;
/// Of each extension.
const CONTAINERS: usize = 20;
/// What the engine makes at once.
const AT_ONCE: usize = 6;
/// Nothing that is told takes this long.
const LIMIT: Duration = Duration::from_secs(30);

fn gateway(broker: &Broker, id: &str) -> PathBuf {
    let slug = id.parse::<ExtensionId>().unwrap().slug();
    broker.data_dir().join("extensions").join(slug).join("broker/docker.sock")
}

async fn create(engine: &Docker, image: &str, options: Option<CreateContainerOptions>) -> String {
    // None of them is ever started.
    let cmd = Some(vec!["/nothing".to_owned()]);
    let body = ContainerCreateBody { image: Some(image.to_owned()), cmd, ..Default::default() };
    engine.create_container(options, body).await.unwrap().id
}

/// Has every extension make its containers through its gateway; returns whose each is.
async fn made(broker: &Broker, extensions: &[String], image: &str) -> BTreeMap<String, String> {
    let (turns, mut creates) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for id in extensions.iter().flat_map(|id| std::iter::repeat_n(id, CONTAINERS)) {
        let (turns, id, image) = (turns.clone(), id.clone(), image.to_owned());
        let gateway = EngineAt::socket(gateway(broker, &id)).client();
        creates.spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            (create(&gateway, &image, None).await, id)
        });
    }
    creates.join_all().await.into_iter().collect()
}

async fn listed(broker: &Broker, request: pb::ListResourcesRequest) -> Vec<pb::Resource> {
    let (mut all, mut page_token) = (vec![], String::new());
    loop {
        let request =
            pb::ListResourcesRequest { page_token, kinds: vec![ResourceKind::Container.into()], ..request.clone() };
        let page = broker.ownership().await.list_resources(request).await.unwrap().into_inner();
        all.extend(page.resources);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

/// A container that is made by hand is told and listed as nobody's, and told again when it goes.
async fn comes_and_goes(broker: &Broker, engine: &Docker, image: &str) {
    let request =
        pb::OwnershipServiceWatchRequest { kinds: vec![ResourceKind::Container.into()], ..Default::default() };
    let mut watch = broker.ownership().await.watch(request).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    let mut told = async |id: &str| loop {
        let message = tokio::time::timeout(LIMIT, watch.message()).await.expect("it is told");
        match message.unwrap().unwrap().event {
            Some(Event::Changed(resource)) if resource.id == id => return (false, resource.owner),
            Some(Event::Removed(resource)) if resource.id == id => return (true, resource.owner),
            _ => {}
        }
    };
    let name = unique("longshore-test-by-hand");
    let id = create(engine, image, Some(CreateContainerOptionsBuilder::default().name(&name).build())).await;
    assert_eq!(told(&id).await, (false, None));
    let is_listed = async || {
        let all = listed(broker, pb::ListResourcesRequest { page_size: 1000, ..Default::default() }).await;
        all.iter().any(|resource| resource.id == id)
    };
    assert!(is_listed().await, "who is told and then lists sees it");
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    engine.remove_container(&id, Some(options)).await.unwrap();
    while told(&id).await != (true, None) {}
    assert!(!is_listed().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_containers_of_fifty_extensions_are_known_each() {
    let private = PrivateEngine::start().await;
    let image = Image::plain().build_in(&private.at()).await;
    let mut broker = Broker::start_with(private.broker(BrokerOptions::default())).await;
    let mut extensions = vec![];
    for _ in 0..EXTENSIONS {
        extensions.push(local(&broker).await);
    }
    let owners = made(&broker, &extensions, &image.reference).await;
    assert_eq!(owners.len(), EXTENSIONS * CONTAINERS);
    // Also for a broker that reads them anew.
    for is_restarted in [false, true] {
        if is_restarted {
            broker.kill();
            broker.restart().await;
        }
        for page_size in [0, 1000] {
            let all = listed(&broker, pb::ListResourcesRequest { page_size, owned_only: true, ..Default::default() });
            let all = all.await;
            let found: BTreeMap<String, String> = all
                .iter()
                .map(|resource| (resource.id.clone(), resource.owner.as_ref().unwrap().extension.clone()))
                .collect();
            assert_eq!((all.len(), &found), (owners.len(), &owners), "each is there once");
            assert!(all.iter().all(|r| r.owner.as_ref().unwrap().source() == OwnershipSource::Created));
        }
        let one = pb::ListResourcesRequest { extension: extensions[7].clone(), ..Default::default() };
        assert_eq!(listed(&broker, one).await.len(), CONTAINERS);
        comes_and_goes(&broker, &private.at().client(), &image.reference).await;
    }
}
