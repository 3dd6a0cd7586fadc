//! What an extension makes through its gateway is its own at once, and goes with it.

use longshore::pb::{self, ResourceKind};

use super::{labels, stage};
use crate::support::{BrokerOptions, as_both, docker, engine_traces, no_traces, read_store, unique};

as_both!(
    what_is_made_is_owned_and_goes_with_the_extension,
    what_was_there_before_stays_a_strangers,
    marks_are_ours_and_docker_desktops_may_be_overridden,
    a_create_that_nobody_recorded_is_found_at_the_next_start,
    the_socket_outlives_a_broker_and_goes_with_the_extension,
);

async fn what_is_made_is_owned_and_goes_with_the_extension(options: BrokerOptions) {
    let stage = stage(options).await;
    let image = &stage.image.reference;
    let (container, network, volume) = (stage.name("c"), stage.name("n"), stage.name("v"));
    let implicit = stage.name("implicit");
    stage.says(&["network", "create", &network]);
    stage.says(&["volume", "create", &volume]);
    let mount = format!("{implicit}:/named");
    let run = ["run", "-d", "--name", &container, "--network", &network, "-v", &mount, "-v", "/anonymous", image];
    let id = stage.says(&[&run[..], &["sleep", "1000"]].concat());
    assert!(stage.owned(ResourceKind::Container).await.contains(&container));
    assert!(stage.owned(ResourceKind::Network).await.contains(&network));
    let volumes = stage.owned(ResourceKind::Volume).await;
    assert!(volumes.contains(&volume) && volumes.contains(&implicit), "{volumes:?}");
    let anonymous: Vec<_> = volumes.iter().filter(|name| name.len() == 64).cloned().collect();
    assert_eq!(anonymous.len(), 1, "{volumes:?}");
    let request = pb::GetOwnerRequest { id: id[..12].to_owned(), ..Default::default() };
    let found = stage.broker.ownership().await.get_owner(request).await.unwrap().into_inner().resource.unwrap();
    assert_eq!((found.id, found.owner.unwrap().extension), (id, stage.id()));
    // What it removes is not its own any more, nor is what somebody removes behind its back.
    let (short, behind) = (stage.name("short"), stage.name("behind"));
    stage.says(&["run", "--rm", "--name", &short, "-v", "/gone", image, "echo"]);
    stage.says(&["create", "--name", &behind, image]);
    assert!(stage.owned(ResourceKind::Container).await.contains(&behind), "it is listed at once");
    docker(&["rm", &behind]);
    let begun = std::time::Instant::now();
    loop {
        let containers = stage.owned(ResourceKind::Container).await;
        if !containers.contains(&short) && !containers.contains(&behind) {
            break;
        }
        // The list follows the engine's events.
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{containers:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(read_store(&stage.broker.data_dir(), "SELECT count(*) || '' FROM open_create"), "0");
    // The extension is as it was: these containers are not its backend.
    let request = pb::ExtensionServiceGetRequest { extension: stage.id() };
    let shown = stage.broker.extensions().await.get(request).await.unwrap().into_inner().extension.unwrap();
    assert_eq!(shown.backend.unwrap().containers.len(), 1);
    let removed = stage.broker.uninstall(&stage.id(), false).await.unwrap();
    let mut kept = removed.kept_volumes;
    kept.sort();
    let mut named = vec![volume.clone(), implicit.clone()];
    named.sort();
    assert_eq!(kept, named, "named volumes stay and are listed");
    let all = docker(&["ps", "-a", "--format", "{{.Names}}"]) + &docker(&["network", "ls", "--format", "{{.Name}}"]);
    assert!(!all.contains(&container) && !all.contains(&network), "{all}");
    let left = docker(&["volume", "ls", "-q"]);
    assert!(!left.contains(&anonymous[0]) && left.contains(&volume), "{left}");
    docker(&["volume", "rm", &volume, &implicit]);
    no_traces(&stage.broker, &stage.id()).await;
}

async fn what_was_there_before_stays_a_strangers(options: BrokerOptions) {
    let stage = stage(options).await;
    let image = &stage.image.reference;
    let (volume, forged, lender) = (unique("longshore-test-v"), unique("longshore-test-f"), unique("longshore-test-l"));
    docker(&["volume", "create", &volume]);
    let own = format!("dev.longshore.extension={}", stage.id());
    docker(&["create", "--name", &forged, "--label", &own, "--label", "dev.longshore.nonce=x", image]);
    docker(&["create", "--name", &lender, "-v", "/lent", image]);
    // Creating a volume that is there answers as if it had been made.
    stage.says(&["volume", "create", &volume]);
    let container = stage.name("c");
    let mount = format!("{volume}:/x");
    stage.says(&["create", "--name", &container, "-v", &mount, "--volumes-from", &lender, image]);
    let volumes = stage.owned(ResourceKind::Volume).await;
    assert_eq!(volumes, Vec::<String>::new(), "neither the stranger's nor the lender's");
    // What Compose would take for its own by the labels is a stranger's still.
    let removed = stage.broker.uninstall(&stage.id(), true).await.unwrap();
    assert_eq!((removed.kept_volumes, removed.removed_volumes), (vec![], vec![]));
    for name in [&forged, &lender] {
        docker(&["inspect", name]);
    }
    let lent = docker(&["inspect", "--format", "{{(index .Mounts 0).Name}}", &lender]);
    docker(&["volume", "inspect", &lent]);
    docker(&["rm", "-v", &forged, &lender]);
    docker(&["volume", "rm", &volume]);
    assert_eq!(engine_traces(&stage.id()).await, Vec::<String>::new());
}

async fn marks_are_ours_and_docker_desktops_may_be_overridden(options: BrokerOptions) {
    let stage = stage(options).await;
    let image = &stage.image.reference;
    let (usual, own, network) = (stage.name("usual"), stage.name("own"), stage.name("n"));
    stage.says(&["create", "--name", &usual, image]);
    let forged = ["--label", "dev.longshore.extension=x/y", "--label", "dev.longshore.sig=forged"];
    let shown = ["--label", "com.docker.desktop.extension=false", "--label", "com.docker.compose.project="];
    stage.says(&[&["create", "--name", &own][..], &forged, &shown, &[image]].concat());
    stage.says(&["network", "create", &network]);
    let marks = labels("container", &usual);
    assert_eq!(marks["com.docker.desktop.extension"], "true");
    assert_eq!(marks["com.docker.desktop.extension.name"], "Test");
    assert_eq!(marks["com.docker.compose.project"], crate::support::project(&stage.id()));
    assert_eq!(marks["com.docker.compose.project.config_files"], "");
    assert_eq!(
        (&marks["dev.longshore.extension"], &marks["dev.longshore.generation"]),
        (&stage.id().into(), &"1".into())
    );
    let marks = labels("container", &own);
    assert_eq!(marks["dev.longshore.extension"], stage.id());
    let signature = marks["dev.longshore.sig"].as_str().unwrap();
    assert!(signature.len() == 64 && signature != labels("container", &usual)["dev.longshore.sig"], "{signature}");
    assert_eq!(
        (&marks["com.docker.desktop.extension"], &marks["com.docker.compose.project"]),
        (&"false".into(), &"".into())
    );
    let marks = labels("network", &network);
    assert_eq!(marks["dev.longshore.extension"], stage.id());
    assert!(marks["com.docker.desktop.extension"].is_null());
    // What the extension started is not in the way of its backend, and is not taken for it.
    let enabled = |on| {
        let id = stage.id();
        let broker = &stage.broker;
        async move {
            let mut extensions = broker.extensions().await;
            match on {
                true => extensions.enable(pb::EnableRequest { extension: id }).await.map(|_| ()),
                false => extensions.disable(pb::DisableRequest { extension: id }).await.map(|_| ()),
            }
        }
    };
    enabled(false).await.unwrap();
    enabled(true).await.unwrap();
    docker(&["inspect", &usual]);
}

async fn a_create_that_nobody_recorded_is_found_at_the_next_start(options: BrokerOptions) {
    let mut stage = stage(options).await;
    let name = stage.name("late");
    stage.says(&["create", "--name", &name, "-v", "/anonymous", &stage.image.reference]);
    let id = docker(&["inspect", "--format", "{{.Id}}", &name]);
    let nonce = labels("container", &name)["dev.longshore.nonce"].as_str().unwrap().to_owned();
    // As a broker leaves it that is killed when the engine has made it and the ledger does not know yet.
    stage.broker.kill();
    let database = rusqlite::Connection::open(stage.broker.data_dir().join("longshore.db")).unwrap();
    database.execute("DELETE FROM ledger WHERE name = ?1 OR length(id) = 64 AND kind = 'volume'", [&name]).unwrap();
    let open = "INSERT INTO open_create VALUES (?1, ?2, 1, 'container', '', 0, 1000 * unixepoch())";
    database.execute(open, [&nonce, &stage.id()]).unwrap();
    drop(database);
    stage.broker.restart().await;
    for _ in 0..500 {
        if stage.owned_or_claimed(&id).await == Some(pb::OwnershipSource::Created) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(stage.owned(ResourceKind::Container).await.contains(&name));
    assert_eq!(stage.owned(ResourceKind::Volume).await.len(), 1);
    stage.broker.uninstall(&stage.id(), false).await.unwrap();
    no_traces(&stage.broker, &stage.id()).await;
}

async fn the_socket_outlives_a_broker_and_goes_with_the_extension(options: BrokerOptions) {
    let mut stage = stage(options).await;
    let image = stage.image.reference.clone();
    stage.says(&["version"]);
    stage.broker.kill();
    assert!(stage.gateway().exists());
    assert!(stage.complains(&["version"]).contains("Cannot connect"));
    stage.broker.restart().await;
    stage.says(&["run", "--rm", &image, "echo"]);
    assert!(stage.broker.stop().await.success(), "and in order");
    stage.broker.restart().await;
    stage.says(&["run", "--rm", &image, "echo"]);
    stage.broker.uninstall(&stage.id(), true).await.unwrap();
    assert!(!stage.gateway().exists());
}

impl crate::support::Stage {
    /// How the owner of a container is known.
    async fn owned_or_claimed(&self, id: &str) -> Option<pb::OwnershipSource> {
        let request = pb::GetOwnerRequest { id: id.to_owned(), ..Default::default() };
        let found = self.broker.ownership().await.get_owner(request).await.ok()?.into_inner();
        Some(found.resource?.owner?.source())
    }
}
