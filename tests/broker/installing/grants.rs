//! What is asked for, what is accepted, and what happens when it is taken back.

use longshore::pb::{self, ExtensionState};
use prost::Message;

use super::*;
use crate::support::{BrokerOptions, no_traces, program, reason};

/// The grants that a refusal lists.
fn missing(error: &tonic::Status) -> Vec<(String, String)> {
    assert_eq!(reason(error), "GRANTS_REQUIRED");
    // google.rpc.Status: repeated Any details = 3.
    let status = tonic_types::Status::decode(error.details()).unwrap();
    let detail = status.details.iter().find(|any| any.type_url.ends_with("longshore.v1.GrantsRequired")).unwrap();
    let listed = pb::GrantsRequired::decode(&detail.value[..]).unwrap().grants;
    assert!(listed.iter().all(|grant| !grant.held && !grant.summary.is_empty()));
    listed.into_iter().map(|grant| (grant.name, grant.origin)).collect()
}

const PRIVILEGED: &str = r#"
services:
  web:
    image: ${DESKTOP_PLUGIN_IMAGE}
    pid: host
    volumes: ["/var/log:/host", "/var/run/docker.sock:/var/run/docker.sock"]
"#;

#[tokio::test]
async fn exactly_what_is_missing_is_listed_until_it_is_accepted() {
    let manifest = COMPOSE.replacen('{', r#"{"host": {"binaries": [{"linux": [{"path": "/tool.sh"}]}]},"#, 1);
    let image = compose(PRIVILEGED).file("metadata.json", manifest, 0o644).file("tool.sh", "#!/bin/sh\n", 0o755);
    let image = image.build().await;
    for broker in both().await {
        let error = broker.install(accepting(&image.reference, &[])).await.unwrap_err();
        let mut names: Vec<String> = missing(&error).into_iter().map(|(name, _)| name).collect();
        names.sort();
        assert_eq!(names, ["backend.privileged", "engine.bind:/var/log", "engine.full", "host.exec:tool.sh"]);
        no_traces(&broker, &image.id).await;
        // `engine.full` would cover the bind as well.
        let some = ["backend.privileged", "engine.bind:/var/log", "host.exec:tool.sh"];
        let error = broker.install(accepting(&image.reference, &some)).await.unwrap_err();
        assert_eq!(missing(&error), [("engine.full".to_owned(), "services.web.volumes[1]".to_owned())]);
        no_traces(&broker, &image.id).await;
        let all = ["backend.privileged", "engine.full", "host.exec:tool.sh", "engine.bind:/var/log"];
        broker.install(accepting(&image.reference, &all)).await.unwrap();
        let request = pb::GrantServiceGetRequest { extension: image.id.clone() };
        let standing = broker.grants().await.get(request).await.unwrap().into_inner();
        assert!(standing.needed.iter().all(|need| need.held));
        assert_eq!(standing.grants.len(), 4);
        broker.uninstall(&image.id, false).await.unwrap();
        no_traces(&broker, &image.id).await;
    }
}

#[tokio::test]
async fn a_variable_of_the_host_is_asked_for_and_reaches_only_then_the_file() {
    let file = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    environment:\n      A: ${TESTS_OF_LONGSHORE_SECRET}\n      B: ${TESTS_OF_LONGSHORE_UNSET}\n";
    let image = compose(file).build().await;
    let env = vec![("TESTS_OF_LONGSHORE_SECRET".to_owned(), "s3cret".to_owned())];
    let broker = Broker::start_with(BrokerOptions { env, ..Default::default() }).await;
    let error = broker.install(accepting(&image.reference, &[])).await.unwrap_err();
    assert_eq!(missing(&error), [("env:TESTS_OF_LONGSHORE_SECRET".into(), "services.web.environment.A".into())]);
    assert!(!error.message().contains("s3cret"));
    let extension = broker.install(accepting(&image.reference, &["env:TESTS_OF_LONGSHORE_SECRET"])).await.unwrap();
    let env = container_of(&extension, "web").await.config.unwrap().env.unwrap();
    assert!(env.contains(&"A=s3cret".to_owned()) && env.contains(&"B=".to_owned()), "{env:?}");
    broker.uninstall(&image.id, false).await.unwrap();
    no_traces(&broker, &image.id).await;
    assert!(!broker.log().contains("s3cret"), "the log tells nobody");
}

/// A run of `tool.sh` that has said something.
pub(super) async fn running(broker: &Broker, id: &str) -> tonic::Streaming<pb::RunResponse> {
    let mut run = broker.start_program(program(id, pb::ExecTarget::Host, &["tool.sh"])).await;
    while let Some(event) = run.message().await.unwrap() {
        if let Some(pb::run_response::Event::Output(_)) = event.event {
            return run;
        }
    }
    panic!("it ended without a word");
}

/// Reads a run to its end, which a signal made.
pub(super) async fn killed(run: &mut tonic::Streaming<pb::RunResponse>) {
    let mut exited = None;
    while let Some(event) = run.message().await.unwrap() {
        if let Some(pb::run_response::Event::Exited(end)) = event.event {
            exited = end.outcome;
        }
    }
    assert!(matches!(exited, Some(pb::exited::Outcome::Signal(_))), "{exited:?}");
}

#[tokio::test]
async fn a_grant_that_is_taken_back_ends_programs() {
    let host = r#"{"host": {"binaries": [{"linux": [{"path": "/tool.sh"}]}]}}"#;
    let image = Image::hello().file("metadata.json", host, 0o644);
    let image = image.file("tool.sh", "#!/bin/sh\necho up\nexec sleep 1000\n", 0o755).build().await;
    for broker in both().await {
        broker.install(accepting(&image.reference, &["host.exec:tool.sh"])).await.unwrap();
        let mut run = running(&broker, &image.id).await;
        let set = pb::GrantServiceSetRequest { extension: image.id.clone(), ..Default::default() };
        assert_eq!(broker.grants().await.set(set).await.unwrap().into_inner().grants, []);
        killed(&mut run).await;
        let error = broker.try_start(program(&image.id, pb::ExecTarget::Host, &["tool.sh"])).await.unwrap_err();
        assert_eq!(missing(&error)[0].0, "host.exec:tool.sh");
        broker.uninstall(&image.id, false).await.unwrap();
        no_traces(&broker, &image.id).await;
    }
}

#[tokio::test]
async fn a_backend_without_its_grant_stands_still_until_it_is_given_back() {
    let image = compose(PRIVILEGED).build().await;
    for mut broker in both().await {
        broker.install(trusting(&image.reference)).await.unwrap();
        let allow = |grants: &[&str]| pb::GrantServiceSetRequest {
            extension: image.id.clone(),
            allow: grants.iter().map(|grant| (*grant).to_owned()).collect(),
            deny: vec![],
        };
        // `--trust` holds engine.full, which covers the bind.
        broker.grants().await.set(allow(&["engine.full"])).await.unwrap();
        let stopped = get(&broker, &image.id).await;
        assert_eq!((stopped.state(), &*stopped.state_reason), (ExtensionState::Stopped, "GRANTS_REQUIRED"));
        assert_eq!(stopped.backend.unwrap().containers[0].state, "exited");
        broker.stop().await;
        broker.restart().await;
        let enable = pb::EnableRequest { extension: image.id.clone() };
        let error = broker.extensions().await.enable(enable.clone()).await.unwrap_err();
        assert_eq!(missing(&error)[0].0, "backend.privileged");
        broker.grants().await.set(allow(&["engine.full", "backend.privileged"])).await.unwrap();
        broker.extensions().await.enable(enable).await.unwrap();
        assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
        // A denial wins, whatever allows it.
        let deny = pb::GrantServiceSetRequest {
            deny: vec!["backend.privileged".into()],
            ..allow(&["engine.full", "backend.privileged"])
        };
        broker.grants().await.set(deny).await.unwrap();
        assert_eq!(get(&broker, &image.id).await.state_reason, "GRANTS_REQUIRED");
        broker.uninstall(&image.id, false).await.unwrap();
        no_traces(&broker, &image.id).await;
    }
}
