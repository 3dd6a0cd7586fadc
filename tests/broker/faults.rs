//! Engines that are killed, restarted and full: each test has one of its own.

use std::time::{Duration, Instant};

use longshore::pb::{self, ExtensionState};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::{Broker, BrokerOptions, Image, PrivateEngine, as_both, no_traces, reason, trusting, until, watch};

as_both!(an_engine_that_was_killed_is_used_again);

async fn extension(broker: &Broker, id: &str) -> pb::Extension {
    let request = pb::ExtensionServiceGetRequest { extension: id.to_owned() };
    broker.extensions().await.get(request).await.unwrap().into_inner().extension.unwrap()
}

/// Waits until the extension is in this state.
async fn becomes(broker: &Broker, id: &str, wanted: ExtensionState) -> pb::Extension {
    let begun = Instant::now();
    loop {
        let found = extension(broker, id).await;
        if found.state() == wanted {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "it stays {found:?}\n{}", broker.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn an_engine_that_was_killed_is_used_again(options: BrokerOptions) {
    let mut engine = PrivateEngine::start().await;
    let (image, other) = (Image::hello().build_in(&engine.at()).await, Image::hello().build_in(&engine.at()).await);
    let broker = Broker::start_with(engine.broker(options)).await;
    let mut health = watch(&broker, "longshore.engine").await;
    until(&mut health, ServingStatus::Serving).await;
    broker.install(trusting(&image.reference)).await.unwrap();
    assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);

    engine.kill();
    until(&mut health, ServingStatus::NotServing).await;
    let away = becomes(&broker, &image.id, ExtensionState::Degraded).await;
    assert_eq!(away.state_reason, "ENGINE_UNAVAILABLE");
    // The backend's program goes on without the engine, and is reached as before.
    assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
    let refused = broker.install(trusting(&other.reference)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "ENGINE_UNAVAILABLE".into()));

    // Docker 20.10 ends what it finds running then, as if a user had, and leaves it stopped: see moby's killWithSignal.
    engine.launch().await;
    until(&mut health, ServingStatus::Serving).await;
    engine.at().docker(&["start", &extension(&broker, &image.id).await.backend.unwrap().containers[0].id]);
    becomes(&broker, &image.id, ExtensionState::Ready).await;
    assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);

    // In order: the containers end with it, and come again with it.
    engine.stop();
    until(&mut health, ServingStatus::NotServing).await;
    engine.launch().await;
    until(&mut health, ServingStatus::Serving).await;
    becomes(&broker, &image.id, ExtensionState::Ready).await;
    broker.install(trusting(&other.reference)).await.unwrap();
    for image in [&image, &other] {
        assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
        broker.uninstall(&image.id, true).await.unwrap();
        no_traces(&broker, &image.id).await;
    }
}

#[tokio::test]
async fn a_broker_may_start_before_its_engine() {
    let mut engine = PrivateEngine::prepare(None);
    let broker = Broker::start_with(engine.broker(BrokerOptions::default())).await;
    let mut health = watch(&broker, "longshore.engine").await;
    until(&mut health, ServingStatus::NotServing).await;
    engine.launch().await;
    until(&mut health, ServingStatus::Serving).await;
    let image = Image::hello().build_in(&engine.at()).await;
    broker.install(trusting(&image.reference)).await.unwrap();
    assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
}

#[tokio::test]
async fn an_install_on_a_full_disk_is_undone() {
    let mut engine = PrivateEngine::start_on_small_disk(64).await;
    let image = Image::hello().build_in(&engine.at()).await;
    let broker = Broker::start_with(engine.broker(BrokerOptions::default())).await;
    engine.fill_disk();
    let error = broker.install(trusting(&image.reference)).await.unwrap_err();
    assert_eq!(reason(&error), "ENGINE_REFUSED");
    assert!(error.message().contains("no space left"), "{error:?}");
    engine.free_disk();
    no_traces(&broker, &image.id).await;
    broker.install(trusting(&image.reference)).await.unwrap();
    assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
}
