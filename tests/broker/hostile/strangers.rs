//! Things of the user's own that bear the names an extension would use.

use super::*;
use crate::support::{BrokerOptions, Stage, as_both, image_source, no_traces, reason, trusting};

as_both!(what_was_there_before_stays_as_it_was, who_comes_later_is_left_alone);

const FILE: &str = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: SLEEP\n    volumes: ['data:/data']\nvolumes:\n  data: {}\n";

/// The labels that Compose finds the container of a service by.
fn labels(project: &str) -> Vec<String> {
    [("project", project), ("service", "web"), ("oneoff", "False"), ("container-number", "2"), ("config-hash", "x")]
        .iter()
        .map(|(name, value)| format!("--label=com.docker.compose.{name}={value}"))
        .collect()
}

async fn what_was_there_before_stays_as_it_was(options: BrokerOptions) {
    let image = composed(&FILE.replace("SLEEP", SLEEP)).build().await;
    let broker = Broker::start_with(options).await;
    let project = project(&image.id);
    let network = Thing::create("network", &format!("{project}_default"), &[]);
    let volume = Thing::create("volume", &format!("{project}_data"), &[]);
    let labels = labels(&project);
    let mut options: Vec<&str> = labels.iter().map(String::as_str).collect();
    let (mount, name) = (format!("{}:/data", volume.name), format!("{project}-web-1"));
    options.extend(["--network", &network.name, "-v", &mount, "--name", &name]);
    let stranger = Stranger::run(&image, &options);
    docker(&["exec", &stranger.0, "/bin/sh", "-c", "echo mine > /data/mine"]);
    let before = (stranger.look(), network.look(), volume.look());
    for trust in [false, true] {
        let source = Some(image_source(&image.reference));
        let request = longshore::pb::InstallRequest { source, trust, ..Default::default() };
        let error = broker.install(request).await.unwrap_err();
        assert_eq!(reason(&error), "PROJECT_NAME_TAKEN", "{error:?}");
        for name in [&name, &network.name, &volume.name] {
            assert!(error.message().contains(name), "{}", error.message());
        }
    }
    let error = broker.uninstall(&image.id, true).await.unwrap_err();
    assert_eq!(reason(&error), "EXTENSION_NOT_FOUND");
    assert_eq!((stranger.look(), network.look(), volume.look()), before);
    assert_eq!(docker(&["exec", &stranger.0, "/bin/sh", "-c", "cat /data/mine"]), "mine");
    drop(stranger);
    drop((network, volume));
    broker.install(trusting(&image.reference)).await.unwrap();
    broker.uninstall(&image.id, true).await.unwrap();
    no_traces(&broker, &image.id).await;
}

async fn who_comes_later_is_left_alone(options: BrokerOptions) {
    let stage = Stage::without_wait(composed(&FILE.replace("SLEEP", SLEEP)), options).await;
    let (broker, id, project) = (&stage.broker, stage.id(), project(&stage.id()));
    let disable = longshore::pb::DisableRequest { extension: id.clone() };
    broker.extensions().await.disable(disable).await.unwrap();
    let labels = labels(&project);
    let stranger = Stranger::run(&stage.image, &labels.iter().map(String::as_str).collect::<Vec<_>>());
    let before = stranger.look();
    let enable = longshore::pb::EnableRequest { extension: id.clone() };
    let error = broker.extensions().await.enable(enable.clone()).await.unwrap_err();
    assert_eq!(stranger.look(), before);
    assert_eq!(reason(&error), "PROJECT_NAME_TAKEN", "{error:?}");
    broker.uninstall(&id, true).await.unwrap();
    assert_eq!(stranger.look(), before);
    drop(stranger);
    no_traces(broker, &id).await;
    broker.install(trusting(&stage.image.reference)).await.unwrap();
    // The containers of its own are nobody else's, also when Compose made them anew.
    for _ in 0..2 {
        let disable = longshore::pb::DisableRequest { extension: id.clone() };
        broker.extensions().await.disable(disable).await.unwrap();
        docker(&["rm", "-f", &stage.container("web")]);
        broker.extensions().await.enable(enable.clone()).await.unwrap();
    }
    broker.uninstall(&id, true).await.unwrap();
    no_traces(broker, &id).await;
}
