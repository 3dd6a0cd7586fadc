//! `EventService.Watch`: nothing is missed, whoever goes away.

use std::time::Duration;

use longshore::pb::{self, ExtensionEventKind as Kind, ExtensionState, event_service_watch_response::Event};
use tonic::{Code, Streaming};

use crate::support::{Broker, Image, reason, trusting, trusting_update, unique};

const LIMIT: Duration = Duration::from_secs(30);

/// One watcher.
struct Watcher {
    stream: Streaming<pb::EventServiceWatchResponse>,
    token: String,
}

impl Watcher {
    /// Watches from a token on, or from now on where it is empty.
    async fn from(broker: &Broker, token: &str) -> Watcher {
        let request = pb::EventServiceWatchRequest { resume_token: token.to_owned(), ..Default::default() };
        let mut stream = broker.events().await.watch(request).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap();
        assert!(matches!(first.event, Some(Event::Heartbeat(_))), "{first:?}");
        Watcher { stream, token: first.resume_token }
    }

    async fn next(&mut self) -> pb::ExtensionEvent {
        loop {
            let message = tokio::time::timeout(LIMIT, self.stream.message()).await.expect("an event comes");
            let message = message.unwrap().unwrap();
            self.token = message.resume_token;
            if let Some(Event::Extension(event)) = message.event {
                return event;
            }
        }
    }

    /// Waits for an event of a kind, and returns it; what came before is dropped.
    async fn until(&mut self, kind: Kind) -> pb::ExtensionEvent {
        loop {
            let event = self.next().await;
            if event.kind() == kind {
                return event;
            }
        }
    }
}

async fn list_token(broker: &Broker) -> String {
    let request = pb::ExtensionServiceListRequest::default();
    broker.extensions().await.list(request).await.unwrap().into_inner().watch_token
}

#[tokio::test]
async fn every_change_is_told_in_its_order() {
    let id = format!("longshore-test/{}", unique("watch"));
    let first = Image::hello().build_version(&id, "1").await;
    let second = Image::hello().file("more", "", 0o644).build_version(&id, "2").await;
    let failing = Image::hello().change(r#"CMD ["/nothing"]"#).build_version(&id, "3").await;
    let broker = Broker::start().await;
    let mut watcher = Watcher::from(&broker, &list_token(&broker).await).await;
    broker.install(trusting(&first.reference)).await.unwrap();
    broker.update(trusting_update(&second.reference)).await.unwrap();
    broker.update(trusting_update(&failing.reference)).await.unwrap_err();
    broker.extensions().await.disable(pb::DisableRequest { extension: id.clone() }).await.unwrap();
    broker.extensions().await.enable(pb::EnableRequest { extension: id.clone() }).await.unwrap();
    broker.uninstall(&id, true).await.unwrap();
    let mut told: Vec<(Kind, i64, String)> = vec![];
    while told.last().is_none_or(|(kind, ..)| *kind != Kind::Uninstalled) {
        let event = watcher.next().await;
        assert_eq!((event.extension.as_str(), event.observed_late), (id.as_str(), false));
        if event.kind() != Kind::State {
            told.push((event.kind(), event.generation, event.version));
        } else {
            assert_ne!(event.state(), ExtensionState::Unspecified);
        }
    }
    let told: Vec<_> = told.iter().map(|(kind, generation, version)| (*kind, *generation, version.as_str())).collect();
    let expected = [
        (Kind::InstallBegan, 1, "1"),
        (Kind::Installed, 1, "1"),
        (Kind::UpdateBegan, 2, "2"),
        (Kind::Updated, 2, "2"),
        (Kind::UpdateBegan, 3, "3"),
        (Kind::UpdateUndone, 2, "2"),
        (Kind::Disabled, 2, "2"),
        (Kind::Enabled, 2, "2"),
        (Kind::UninstallBegan, 2, "2"),
        (Kind::Uninstalled, 2, "2"),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_token_outlives_a_kill_of_the_broker() {
    let image = Image::hello().build().await;
    let mut broker = Broker::start().await;
    let mut watcher = Watcher::from(&broker, "").await;
    let before = watcher.token.clone();
    broker.install(trusting(&image.reference)).await.unwrap();
    watcher.until(Kind::Installed).await;
    let token = watcher.token.clone();
    broker.extensions().await.disable(pb::DisableRequest { extension: image.id.clone() }).await.unwrap();
    broker.kill();
    broker.restart().await;
    // Who goes again before it was told what it missed has missed it still.
    let hasty = Watcher::from(&broker, &token).await;
    let mut resumed = Watcher::from(&broker, &hasty.token).await;
    drop(hasty);
    let missed = resumed.next().await;
    assert_eq!((missed.kind(), missed.observed_late), (Kind::Disabled, true));
    let state = resumed.next().await;
    assert_eq!((state.kind(), state.state(), state.observed_late), (Kind::State, ExtensionState::Stopped, true));
    let mut whole = Watcher::from(&broker, &before).await;
    assert_eq!(whole.next().await.kind(), Kind::InstallBegan);
    let mut whole = Watcher::from(&broker, &whole.token).await;
    let kinds = [whole.next().await.kind(), whole.next().await.kind()];
    assert_eq!(kinds, [Kind::Installed, Kind::Disabled]);
    // And from there on what happens now.
    broker.uninstall(&image.id, true).await.unwrap();
    for watcher in [&mut resumed, &mut whole] {
        assert!(!watcher.until(Kind::UninstallBegan).await.observed_late);
        watcher.until(Kind::Uninstalled).await;
    }
}

#[tokio::test]
async fn an_update_that_a_kill_broke_off_is_told_to_its_end() {
    let id = format!("longshore-test/{}", unique("watch"));
    let first = Image::hello().build_version(&id, "1").await;
    let second = Image::hello().file("more", "", 0o644).build_version(&id, "2").await;
    let mut broker = Broker::start().await;
    broker.install(trusting(&first.reference)).await.unwrap();
    broker.stop().await;
    broker.set_failpoint(Some("update/wait"));
    broker.restart().await;
    let token = list_token(&broker).await;
    broker.update(trusting_update(&second.reference)).await.unwrap_err();
    broker.died().await;
    broker.set_failpoint(None);
    broker.restart().await;
    let mut watcher = Watcher::from(&broker, &token).await;
    let began = watcher.until(Kind::UpdateBegan).await;
    assert_eq!((began.generation, began.observed_late), (2, true));
    let undone = watcher.until(Kind::UpdateUndone).await;
    assert_eq!((undone.generation, undone.version.as_str()), (1, "1"));
    while watcher.until(Kind::State).await.state() != ExtensionState::Ready {}
    broker.uninstall(&id, true).await.unwrap();
    watcher.until(Kind::Uninstalled).await;
}

#[tokio::test]
async fn a_token_of_nobodys_is_refused() {
    let broker = Broker::start().await;
    let token = list_token(&broker).await;
    let parts: Vec<&str> = token.split('.').collect();
    let later = format!("{}.{}.{}.{}", parts[0], 1_000_000, "other", 1);
    let strange = format!("{}.{}.{}.{}", "f".repeat(32), parts[1], parts[2], parts[3]);
    for wrong in ["x", "1.2.3", "a.b.c.d", later.as_str(), strange.as_str()] {
        let request = pb::EventServiceWatchRequest { resume_token: wrong.to_owned(), ..Default::default() };
        let error = broker.events().await.watch(request).await.unwrap_err();
        assert_eq!((error.code(), reason(&error)), (Code::OutOfRange, "RESUME_TOKEN_EXPIRED".into()), "{wrong}");
    }
}

#[tokio::test]
async fn silence_is_broken_by_heartbeats_and_the_end_is_told() {
    let mut broker = Broker::start().await;
    let heartbeat_interval = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    let request = pb::EventServiceWatchRequest { heartbeat_interval, ..Default::default() };
    let mut stream = broker.events().await.watch(request).await.unwrap().into_inner();
    for _ in 0..4 {
        let message = tokio::time::timeout(LIMIT, stream.message()).await.unwrap().unwrap().unwrap();
        assert!(matches!(message.event, Some(Event::Heartbeat(_))));
    }
    let stopped = tokio::spawn(async move { broker.stop().await });
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            other => break other.unwrap_err(),
        }
    };
    assert_eq!(reason(&end), "SHUTTING_DOWN");
    assert!(stopped.await.unwrap().success());
}
