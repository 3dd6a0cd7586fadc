//! Engines that are killed, restarted and full: each test has one of its own.

use std::time::{Duration, Instant};

use longshore::pb::{self, ExecTarget, ExtensionState, exited::Outcome, run_response::Event};
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::{
    Broker, BrokerOptions, Image, PrivateEngine, as_both, no_traces, project, reason, shell, trusting, trusting_update,
    unique, until, watch,
};

const COMPOSE: &str = r#"{"vm": {"composefile": "docker-compose.yml", "exposes": {"socket": "backend.sock"}}}"#;
const FILE: &str = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    volumes: ['data:/data', '/anonymous']\nvolumes:\n  data: {}\n";

as_both!(an_engine_that_was_killed_is_used_again, programs_meet_the_restart_of_their_engine);

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

/// A program that counts, as its events come.
async fn counting(broker: &Broker, id: &str, target: ExecTarget) -> Streaming<pb::RunResponse> {
    let script = "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.05; done";
    broker.start_program(shell(id, target, script)).await
}

/// Reads on until so many more lines were counted, none left out.
async fn counts_on(program: &mut Streaming<pb::RunResponse>, counted: &mut String, more: usize) {
    let wanted = counted.lines().count() + more;
    while counted.lines().count() < wanted {
        match tokio::time::timeout(Duration::from_secs(30), program.message()).await.unwrap().unwrap() {
            Some(pb::RunResponse { event: Some(Event::Output(output)) }) => {
                counted.push_str(std::str::from_utf8(&output.data).unwrap());
            }
            Some(pb::RunResponse { event: Some(Event::Started(_)) }) => {}
            other => panic!("{other:?} after {counted}"),
        }
    }
    let expected: String = (1..=counted.lines().count()).map(|number| format!("{number}\n")).collect();
    assert_eq!(*counted, expected);
}

/// Nothing of a program goes through the engine: it ends when the engine ends its container, which is told.
async fn programs_meet_the_restart_of_their_engine(options: BrokerOptions) {
    let mut engine = PrivateEngine::start().await;
    let image = Image::hello().busybox().build_in(&engine.at()).await;
    let broker = Broker::start_with(engine.broker(options)).await;
    let mut health = watch(&broker, "longshore.engine").await;
    until(&mut health, ServingStatus::Serving).await;
    broker.install(trusting(&image.reference)).await.unwrap();
    let mut inside = counting(&broker, &image.id, ExecTarget::Backend).await;
    let mut outside = counting(&broker, &image.id, ExecTarget::Host).await;
    let (mut counted_inside, mut counted_outside) = (String::new(), String::new());
    counts_on(&mut inside, &mut counted_inside, 5).await;

    engine.kill();
    until(&mut health, ServingStatus::NotServing).await;
    counts_on(&mut inside, &mut counted_inside, 20).await;

    engine.launch().await;
    let (mut outcome, mut reason) = (None, None);
    while let Some(message) = inside.message().await.unwrap() {
        match message.event.unwrap() {
            Event::Exited(exited) => outcome = exited.outcome,
            Event::Drained(drained) => reason = Some(drained.reason),
            Event::Output(_) | Event::Started(_) => {}
        }
    }
    assert!(matches!(outcome, Some(Outcome::Unknown(_))), "{outcome:?}");
    assert_eq!(reason.as_deref(), Some("BACKEND_GONE"));
    counts_on(&mut outside, &mut counted_outside, 20).await;

    engine.at().docker(&["start", &extension(&broker, &image.id).await.backend.unwrap().containers[0].id]);
    becomes(&broker, &image.id, ExtensionState::Ready).await;
    let mut inside = counting(&broker, &image.id, ExecTarget::Backend).await;
    counts_on(&mut inside, &mut String::new(), 5).await;
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

/// Waits until it is this version that runs, and nothing else of it is there.
async fn becomes_exactly(broker: &Broker, id: &str, version: &str) {
    let found = becomes(broker, id, ExtensionState::Ready).await;
    assert_eq!(found.version, version);
    assert_eq!(broker.get(id, "/hello").await.unwrap().status, 200);
    let label = format!("label=dev.longshore.extension={id}");
    let names = broker.engine().docker(&["ps", "-a", "--format", "{{.Names}}", "--filter", &label]);
    assert_eq!(names, format!("{}-service", project(id)));
    assert_eq!(broker.engine().docker(&["images", "-q", "longshore/kept"]), "");
}

#[tokio::test]
async fn what_a_crash_broke_off_is_made_good_when_a_full_disk_has_room_again() {
    let mut engine = PrivateEngine::start_on_small_disk(64).await;
    let id = format!("longshore-test/{}", unique("full"));
    let first = Image::hello().build_version_in(&engine.at(), &id, "1").await;
    let second = Image::hello().file("more", "", 0o644).build_version_in(&engine.at(), &id, "2").await;
    for point in ["update/make/done", "update/retire"] {
        let mut broker = Broker::start_with(engine.broker(BrokerOptions::default())).await;
        broker.install(trusting(&first.reference)).await.unwrap();
        broker.stop().await;
        broker.set_failpoint(Some(point));
        broker.restart().await;
        broker.update(trusting_update(&second.reference)).await.unwrap_err();
        broker.died().await;
        engine.fill_disk();
        broker.set_failpoint(None);
        broker.restart().await;
        // Whatever it can do by now, it is there.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(extension(&broker, &id).await.id, id);
        engine.free_disk();
        becomes_exactly(&broker, &id, if point == "update/retire" { "2" } else { "1" }).await;
        broker.uninstall(&id, true).await.unwrap();
        no_traces(&broker, &id).await;
    }
}

/// Nobody was told that it is installed: what it made goes, its volume too.
#[tokio::test]
async fn an_install_that_is_half_done_is_removed_when_its_engine_returns() {
    let mut engine = PrivateEngine::start().await;
    let image = Image::hello().file("metadata.json", COMPOSE, 0o644).file("docker-compose.yml", FILE, 0o644);
    let image = image.build_in(&engine.at()).await;
    for (point, volumes) in [("install/make/done", false), ("install/make/done", true), ("install/make", true)] {
        let mut broker = Broker::prepare(engine.broker(BrokerOptions::default()));
        broker.set_failpoint(Some(point));
        broker.restart().await;
        broker.install(trusting(&image.reference)).await.unwrap_err();
        broker.died().await;
        broker.set_failpoint(None);
        engine.kill();
        broker.restart().await;
        assert_eq!(extension(&broker, &image.id).await.state(), ExtensionState::Installing);
        let removed = broker.uninstall(&image.id, volumes).await.unwrap();
        assert!(removed.pending, "{removed:?}");
        // Once more, for who is impatient.
        assert!(broker.uninstall(&image.id, volumes).await.unwrap().pending);
        assert_eq!(extension(&broker, &image.id).await.state(), ExtensionState::Uninstalling);
        engine.launch().await;
        let begun = Instant::now();
        while broker.extension(&image.id).await.is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{}", broker.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        no_traces(&broker, &image.id).await;
    }
}
