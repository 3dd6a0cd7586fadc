//! A store that was lost or damaged: nothing is done before it is listed, and nobody else's is taken.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use longshore::pb::{self, ExtensionState, OwnershipSource};
use serde_json::Value;

use crate::support::{Broker, Image, docker, no_traces, project, trusting, unique};

const COMPOSE: &str = r#"{"vm": {"composefile": "docker-compose.yml", "exposes": {"socket": "backend.sock"}}}"#;
const FILE: &str = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    volumes: ['data:/data', '/anonymous']\n  second:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/hello-backend, serve, --socket, /run/guest-services/second.sock]\nvolumes:\n  data: {}\n";

fn repair(broker: &Broker, args: &[&str]) -> Output {
    let mut command = Command::new(broker.binary());
    command.arg("repair").arg("--data-dir").arg(broker.data_dir()).args(args).env_clear().stdin(Stdio::null());
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Why a broker does not start.
fn refusal(broker: &Broker) -> String {
    let output = broker.command().stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Makes garbage of a database that no broker uses.
pub(crate) fn damage(database: &Path) {
    // What is still in the log of writes would mend the file.
    rusqlite::Connection::open(database).unwrap().pragma_update(None, "journal_mode", "DELETE").unwrap();
    let len = fs::read(database).unwrap().len();
    fs::write(database, vec![0x5a; len]).unwrap();
}

/// A container of somebody else's with all labels of one of ours.
fn copy_labels(of: &str, image: &str) -> String {
    let found: Value = serde_json::from_str(&docker(&["inspect", of])).unwrap();
    let name = unique("longshore-test-copy");
    let labels = found[0]["Config"]["Labels"].as_object().unwrap().iter();
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect();
    let mut args = vec!["create", "--name", &name];
    args.extend(labels.iter().flat_map(|label| ["--label", label.as_str()]));
    args.push(image);
    docker(&args);
    name
}

/// The store is gone, or garbage.
fn lose(database: &Path, is_lost: bool) {
    if !is_lost {
        return damage(database);
    }
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", database.display()));
    }
}

/// An extension works as it did, and everything of it is known again.
async fn is_taken_up(broker: &Broker, image: &Image, copy: &str) {
    let extension = broker.extension(&image.id).await.unwrap();
    assert_eq!((extension.state(), extension.version.as_str()), (ExtensionState::Ready, "1"), "{extension:#?}");
    assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
    let request = pb::ListResourcesRequest { extension: image.id.clone(), ..Default::default() };
    let all = broker.ownership().await.list_resources(request).await.unwrap().into_inner().resources;
    for resource in all.iter().filter(|resource| resource.name != copy) {
        assert_eq!(resource.owner.as_ref().unwrap().source(), OwnershipSource::Recovered, "{resource:?}");
    }
}

#[tokio::test]
async fn what_is_signed_is_taken_up_again_and_nothing_else() {
    let single = Image::hello().build().await;
    let composed = Image::hello().file("metadata.json", COMPOSE, 0o644).file("docker-compose.yml", FILE, 0o644);
    let composed = composed.build().await;
    let (first, second) = (project(&single.id), project(&composed.id));
    for is_lost in [false, true] {
        let mut broker = Broker::start().await;
        for image in [&single, &composed] {
            broker.install(trusting(&image.reference)).await.unwrap();
        }
        // Through its gateway, an extension makes what it likes.
        let own = unique("longshore-test-own");
        let gateway = broker.data_dir().join("extensions").join(single.id.replace('/', "_")).join("broker/docker.sock");
        docker(&["-H", &format!("unix://{}", gateway.display()), "create", "--name", &own, &single.reference]);
        broker.stop().await;
        let copy = copy_labels(&format!("{second}-web-1"), &single.reference);
        let database = broker.data_dir().join("longshore.db");
        lose(&database, is_lost);
        let before = fs::read(&database).ok();
        assert!(refusal(&broker).contains("longshore repair"));
        let listed = said(&repair(&broker, &[]));
        for wanted in [
            format!("{} 1, generation 1", single.id),
            format!("{} 1, generation 1", composed.id),
            format!("container {second}-web-1 of {}", composed.id),
            format!("container {second}-second-1 of {}", composed.id),
            format!("container {first}-service of {}", single.id),
            format!("network {second}_default of {}", composed.id),
            format!("volume {second}_data of {}", composed.id),
            format!("container {own} of {}", single.id),
            format!("container {copy}: its signature does not fit it"),
            "Nothing was changed".to_owned(),
        ] {
            assert!(listed.contains(&wanted), "{wanted:?} is not in\n{listed}");
        }
        assert_eq!(fs::read(&database).ok(), before, "it only listed");
        assert!(said(&repair(&broker, &["--yes"])).contains("Done."));
        broker.restart().await;
        for image in [&single, &composed] {
            is_taken_up(&broker, image, &copy).await;
            broker.uninstall(&image.id, true).await.unwrap();
        }
        docker(&["rm", &copy]);
        for image in [&single, &composed] {
            no_traces(&broker, &image.id).await;
            let again = broker.install(trusting(&image.reference)).await.unwrap();
            assert_eq!(again.generation, 2, "a generation never comes twice");
            broker.uninstall(&image.id, true).await.unwrap();
        }
    }
}

/// Waits until an extension does this, for this reason.
async fn does(broker: &Broker, id: &str, wanted: (ExtensionState, &str)) -> pb::Extension {
    let begun = Instant::now();
    loop {
        let found = broker.extension(id).await.unwrap();
        if (found.state(), found.state_reason.as_str()) == wanted {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{found:#?}\n{}", broker.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_was_granted_is_asked_for_again_and_what_was_disabled_stays_so() {
    let manifest = COMPOSE.replacen('{', r#"{"host": {"binaries": [{"linux": [{"path": "/tool.sh"}]}]},"#, 1);
    let file = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    pid: host\n";
    let needing = Image::hello().file("metadata.json", manifest, 0o644).file("docker-compose.yml", file, 0o644);
    let needing = needing.file("tool.sh", "#!/bin/sh\necho up\n", 0o755).build().await;
    let disabled = Image::hello().build().await;
    let mut broker = Broker::start().await;
    for image in [&needing, &disabled] {
        broker.install(trusting(&image.reference)).await.unwrap();
    }
    broker.extensions().await.disable(pb::DisableRequest { extension: disabled.id.clone() }).await.unwrap();
    broker.stop().await;
    lose(&broker.data_dir().join("longshore.db"), false);
    let listed = said(&repair(&broker, &["--yes"]));
    let command = format!("longshore grants {} --allow backend.privileged --allow host.exec:tool.sh", needing.id);
    for wanted in [command, format!("{} 1, generation 1, disabled", disabled.id)] {
        assert!(listed.contains(&wanted), "{wanted:?} is not in\n{listed}");
    }
    broker.restart().await;
    let stopped = does(&broker, &needing.id, (ExtensionState::Stopped, "GRANTS_REQUIRED")).await;
    let begun = Instant::now();
    let running = format!("id={}", stopped.backend.as_ref().unwrap().containers[0].id);
    while !docker(&["ps", "-q", "--filter", &running]).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "what lacks its grant runs still");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    does(&broker, &disabled.id, (ExtensionState::Stopped, "DISABLED")).await;
    let allow = |grant| broker.cli(&["grants", &needing.id, "--allow", grant]).output().unwrap();
    assert!(allow("backend.privileged").status.success());
    // Its backend runs again by itself, and what is lacking still is told.
    let lacking = does(&broker, &needing.id, (ExtensionState::Degraded, "GRANTS_REQUIRED")).await;
    assert!(lacking.state_message.contains("host.exec:tool.sh"), "{}", lacking.state_message);
    assert_eq!(broker.get(&needing.id, "/hello").await.unwrap().status, 200);
    assert!(allow("host.exec:tool.sh").status.success());
    does(&broker, &needing.id, (ExtensionState::Ready, "")).await;
    for image in [&needing, &disabled] {
        broker.uninstall(&image.id, true).await.unwrap();
        no_traces(&broker, &image.id).await;
    }
}

#[tokio::test]
async fn a_sound_store_is_left_alone_and_so_is_one_in_use() {
    let mut broker = Broker::start().await;
    let running = repair(&broker, &["--yes"]);
    assert!(!running.status.success(), "{running:?}");
    assert!(String::from_utf8_lossy(&running.stderr).contains("another broker"), "{running:?}");
    broker.stop().await;
    assert!(said(&repair(&broker, &["--yes"])).contains("is sound"));
}
