//! A broker that was killed, or that finds its data in a bad state.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

use bollard::{
    models::ContainerCreateBody,
    query_parameters::{CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder},
};
use longshore::pb::{self, ExtensionState, InstallPhase};

use crate::support::{
    Broker, BrokerOptions, EngineAt, Image, PLAIN_UID, docker, engine, has_image, image_source, local, local_source,
    no_traces, read_store, reason, trusting, unique,
};

const COMPOSE: &str = r#"{"vm": {"composefile": "docker-compose.yml", "exposes": {"socket": "backend.sock"}}}"#;
const FILE: &str = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    volumes: ['data:/data', '/anonymous']\n  second:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/hello-backend, serve, --socket, /run/guest-services/second.sock]\n  third:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/hello-backend, serve, --socket, /run/guest-services/third.sock]\nvolumes:\n  data: {}\n";

async fn list(broker: &Broker) -> Vec<pb::Extension> {
    let request = pb::ExtensionServiceListRequest::default();
    broker.extensions().await.list(request).await.unwrap().into_inner().extensions
}

/// Waits until nothing is on record.
async fn forgotten(broker: &Broker) {
    let begun = Instant::now();
    while !list(broker).await.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "not finished in 30 s:\n{}", broker.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn everything_works_after_a_kill() {
    let composed = Image::hello().file("metadata.json", COMPOSE, 0o644).file("docker-compose.yml", FILE, 0o644);
    let (single, composed) = (Image::hello().build().await, composed.build().await);
    for plain in [false, true] {
        let mut broker = Broker::start_with(BrokerOptions { plain, ..Default::default() }).await;
        for image in [&single, &composed] {
            broker.install(trusting(&image.reference)).await.unwrap();
        }
        let before = list(&broker).await;
        // Two ends in a row.
        for _ in 0..2 {
            broker.kill();
            broker.restart().await;
        }
        assert_eq!(list(&broker).await, before);
        for image in [&single, &composed] {
            assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
            broker.uninstall(&image.id, true).await.unwrap();
            no_traces(&broker, &image.id).await;
        }
    }
}

#[tokio::test]
async fn an_install_that_was_killed_leaves_nothing() {
    let sleeping = |image: crate::support::ImageBuilder| image.busybox().change(r#"CMD ["/bin/sleep", "1000"]"#);
    let composed = Image::hello().file("metadata.json", COMPOSE, 0o644).file("docker-compose.yml", FILE, 0o644);
    let (single, composed) = (sleeping(Image::hello()).build().await, sleeping(composed).build().await);
    let phases = [InstallPhase::Reading, InstallPhase::Staging, InstallPhase::Starting, InstallPhase::Waiting];
    for plain in [false, true] {
        let mut broker = Broker::start_with(BrokerOptions { plain, ..Default::default() }).await;
        for (image, phase) in [&single, &composed].into_iter().flat_map(|image| phases.map(|phase| (image, phase))) {
            // While containers are made, at several moments.
            let later: &[u64] = if phase == InstallPhase::Starting { &[0, 60, 200, 500] } else { &[0] };
            for pause in later {
                let mut events =
                    broker.extensions().await.install(trusting(&image.reference)).await.unwrap().into_inner();
                loop {
                    let event = events.message().await.unwrap().unwrap().event.unwrap();
                    if matches!(event, pb::install_response::Event::Progress(progress) if progress.phase() == phase) {
                        break;
                    }
                }
                tokio::time::sleep(Duration::from_millis(*pause)).await;
                broker.kill();
                broker.restart().await;
                forgotten(&broker).await;
                no_traces(&broker, &image.id).await;
                assert!(has_image(&image.reference).await, "it was there before");
            }
        }
    }
}

/// The engine may still be at a container when its install is undone: its volumes cannot go before it.
#[tokio::test]
async fn a_volume_that_is_in_use_when_an_install_is_undone_goes_later() {
    let composed = Image::hello().file("metadata.json", COMPOSE, 0o644).file("docker-compose.yml", FILE, 0o644);
    let image = composed.build().await;
    let mut broker = Broker::start().await;
    broker.stop().await;
    broker.set_failpoint(Some("install/make/done"));
    broker.restart().await;
    broker.install(trusting(&image.reference)).await.unwrap_err();
    broker.died().await;
    broker.set_failpoint(None);
    let volume = format!("{}_data", crate::support::project(&image.id));
    let held = docker(&["create", "-v", &format!("{volume}:/data"), &image.reference]);
    broker.restart().await;
    forgotten(&broker).await;
    assert_eq!(crate::support::traces(&broker, &image.id).await, [format!("volume {volume}")]);
    docker(&["rm", held.trim()]);
    no_traces(&broker, &image.id).await;
}

/// Where the kernel has the process limit of a container.
fn pids_limit(container: &str) -> PathBuf {
    let init = docker(&["inspect", "-f", "{{.State.Pid}}", container]);
    let cgroups = fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
    let of = |controller: &str| cgroups.lines().find_map(|line| line.split_once(controller)).map(|(_, path)| path);
    match of(":pids:") {
        Some(path) => format!("/sys/fs/cgroup/pids{path}/pids.max"),
        None => format!("/sys/fs/cgroup{}/pids.max", of("0::").unwrap()),
    }
    .into()
}

/// What a tree in a container was being killed with is taken back.
#[tokio::test]
async fn a_process_limit_that_a_killed_broker_squeezed_is_restored() {
    const LIMIT: &str = "77";
    // A backend that is called meanwhile and cannot start a thread may end.
    let image = Image::sleeping().build().await;
    let mut broker = Broker::start().await;
    let ready_timeout = Some(prost_types::Duration::default());
    broker.install(pb::InstallRequest { ready_timeout, ..trusting(&image.reference) }).await.unwrap();
    let container = list(&broker).await.remove(0).backend.unwrap().containers.remove(0).id;
    broker.kill();
    let database = rusqlite::Connection::open(broker.data_dir().join("longshore.db")).unwrap();
    database.execute("INSERT INTO squeezed VALUES (?1, ?2, 'killed')", [container.as_str(), LIMIT]).unwrap();
    drop(database);
    // What an engine says of a limit is what it was told, if that; the kernel's is the one that counts.
    let limit = pids_limit(&container);
    fs::write(&limit, "1").unwrap();
    broker.restart().await;
    let begun = Instant::now();
    while fs::read_to_string(&limit).unwrap().trim() != LIMIT {
        assert!(begun.elapsed() < Duration::from_secs(30), "still squeezed:\n{}", broker.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let begun = Instant::now();
    while read_store(&broker.data_dir(), "SELECT count(*) || '' FROM squeezed") != "0" {
        assert!(begun.elapsed() < Duration::from_secs(30), "still on record:\n{}", broker.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    broker.uninstall(&image.id, true).await.unwrap();
}

#[tokio::test]
async fn an_image_that_a_killed_install_loaded_goes() {
    let image = Image::hello().busybox().change(r#"CMD ["/bin/sleep", "1000"]"#).build().await;
    let mut broker = Broker::start().await;
    let path = broker.scratch().join("saved.tar");
    assert!(Command::new("docker").args(["save", "-o"]).arg(&path).arg(&image.reference).status().unwrap().success());
    assert!(Command::new("docker").args(["rmi", "-f", &image.reference]).output().unwrap().status.success());
    let archive = pb::ArchiveSource { path: path.display().to_string(), reference: String::new() };
    for phase in [InstallPhase::Reading, InstallPhase::Waiting] {
        let source = Some(pb::Source { source: Some(pb::source::Source::Archive(archive.clone())) });
        let request = pb::InstallRequest { source, trust: true, ..Default::default() };
        let mut events = broker.extensions().await.install(request).await.unwrap().into_inner();
        loop {
            let event = events.message().await.unwrap().unwrap().event.unwrap();
            if matches!(event, pb::install_response::Event::Progress(progress) if progress.phase() == phase) {
                break;
            }
        }
        broker.kill();
        assert!(has_image(&image.reference).await);
        broker.restart().await;
        forgotten(&broker).await;
        no_traces(&broker, &image.id).await;
        let begun = Instant::now();
        while has_image(&image.reference).await {
            assert!(begun.elapsed() < Duration::from_secs(30), "the image stays:\n{}", broker.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn an_uninstall_that_was_killed_is_finished() {
    // It takes its time to stop: that is when the broker is killed.
    let slow = r#"CMD ["/bin/sh", "-c", "trap 'sleep 2; exit 0' TERM; echo up; while :; do sleep 0.1; done"]"#;
    let composed = Image::hello().busybox().file("metadata.json", COMPOSE, 0o644);
    let image = composed.file("docker-compose.yml", FILE, 0o644).change(slow).build().await;
    for (plain, volumes) in [(false, false), (true, true)] {
        let mut broker = Broker::start_with(BrokerOptions { plain, ..Default::default() }).await;
        let ready_timeout = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        broker.install(pb::InstallRequest { ready_timeout, ..trusting(&image.reference) }).await.unwrap();
        let request = pb::UninstallRequest { extension: image.id.clone(), volumes };
        let mut extensions = broker.extensions().await;
        let call = tokio::spawn(async move { extensions.uninstall(request).await });
        while list(&broker).await[0].state() != ExtensionState::Uninstalling {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        broker.kill();
        call.await.unwrap().unwrap_err();
        broker.restart().await;
        forgotten(&broker).await;
        let volume = format!("{}_data", crate::support::project(&image.id));
        let kept = crate::support::traces(&broker, &image.id).await;
        if volumes {
            assert_eq!(kept, Vec::<String>::new());
        } else {
            assert_eq!(kept, [format!("volume {volume}")]);
            broker.install(pb::InstallRequest { ready_timeout, ..trusting(&image.reference) }).await.unwrap();
            assert_eq!(broker.uninstall(&image.id, true).await.unwrap().removed_volumes, [volume]);
        }
        no_traces(&broker, &image.id).await;
    }
}

#[tokio::test]
async fn a_container_for_reading_does_not_outlive_a_kill() {
    let image = Image::hello().file("ui/big", vec![0; 24 << 20], 0o644).build().await;
    let strangers_name = unique("longshore-test-reader");
    let labels =
        [("dev.longshore.reader", "true"), ("dev.longshore.broker", "somebody else"), ("dev.longshore.run", "x")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let body = ContainerCreateBody {
        image: Some(image.reference.clone()),
        labels: Some(HashMap::from(labels)),
        ..Default::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(&strangers_name).build();
    let stranger = engine().create_container(Some(options), body).await.unwrap().id;
    for plain in [false, true] {
        let mut broker = Broker::start_with(BrokerOptions { plain, ..Default::default() }).await;
        let own = format!("dev.longshore.broker={}", read_store(&broker.data_dir(), "SELECT id FROM broker"));
        let readers = async || {
            let filters = HashMap::from([("label", vec![own.as_str()])]);
            let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
            engine().list_containers(Some(options)).await.unwrap().len()
        };
        let mut extensions = broker.extensions().await;
        let request = pb::InspectRequest { source: Some(image_source(&image.reference)) };
        let call = tokio::spawn(async move { extensions.inspect(request).await });
        while readers().await == 0 {
            assert!(!call.is_finished(), "it was not seen: {:?}", call.await);
        }
        broker.kill();
        call.await.unwrap().unwrap_err();
        assert_eq!(readers().await, 1, "the kill came while it was there");
        broker.restart().await;
        no_traces(&broker, &image.id).await;
        assert_eq!(readers().await, 0);
        assert_eq!(fs::read_dir(broker.data_dir().join("staging")).unwrap().count(), 0);
    }
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    engine().remove_container(&stranger, Some(options)).await.expect("somebody else's is left alone");
}

/// Runs a broker that cannot start, to its end.
async fn refused(broker: &Broker) -> Output {
    let mut command = broker.command();
    command.stderr(std::process::Stdio::piped());
    let mut process = command.spawn().unwrap();
    let begun = Instant::now();
    while process.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(20) {
            process.kill().unwrap();
            panic!("it starts all the same: {:?}", process.wait_with_output());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    process.wait_with_output().unwrap()
}

#[tokio::test]
async fn a_damaged_database_is_told_and_left_alone() {
    for plain in [false, true] {
        let mut broker = Broker::start_with(BrokerOptions { plain, ..Default::default() }).await;
        broker.stop().await;
        let path = broker.data_dir().join("longshore.db");
        // What is still in the log of writes would mend the file.
        rusqlite::Connection::open(&path).unwrap().pragma_update(None, "journal_mode", "DELETE").unwrap();
        let bytes = vec![0x5a; fs::read(&path).unwrap().len()];
        fs::write(&path, &bytes).unwrap();
        let output = refused(&broker).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("longshore.db") && said.contains("damaged"), "{said}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "it is left as it was");
    }
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_told() {
    let mut broker = Broker::start_plain().await;
    broker.stop().await;
    let data = broker.data_dir();
    let database = data.join("longshore.db");
    fs::set_permissions(&database, fs::Permissions::from_mode(0o400)).unwrap();
    let said = String::from_utf8(refused(&broker).await.stderr).unwrap();
    assert!(said.contains("longshore.db") && !said.contains("panicked"), "{said}");
    fs::set_permissions(&database, fs::Permissions::from_mode(0o600)).unwrap();
    for file in ["lock", "longshore.db"] {
        let _ = fs::remove_file(data.join(file));
    }
    fs::set_permissions(&data, fs::Permissions::from_mode(0o500)).unwrap();
    let output = refused(&broker).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(data.to_str().unwrap()) && said.contains("ermission denied"), "{said}");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&data, Some(PLAIN_UID + 1), None).unwrap();
    let said = String::from_utf8(refused(&broker).await.stderr).unwrap();
    assert!(said.contains(data.to_str().unwrap()), "{said}");
    std::os::unix::fs::chown(&data, Some(PLAIN_UID), None).unwrap();
    broker.restart().await;
    broker.stop().await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_lost() {
    let mut broker = Broker::prepare(BrokerOptions::default());
    broker.on_small_disk(8);
    broker.restart().await;
    let first = local(&broker).await;
    let allow = |number: u32| pb::GrantServiceSetRequest {
        extension: first.clone(),
        allow: vec![format!("host.exec:tool-{number}")],
        deny: vec![],
    };
    broker.disk().fill();
    let is_full = |error: &tonic::Status| {
        let text = error.message();
        assert!(["FILE_FAILED", "STORE_UNWRITABLE"].contains(&reason(error).as_str()), "{error:?}");
        assert!(text.contains("No space left") || text.contains("disk is full"), "{text}");
    };
    is_full(&broker.install(local_source(&broker)).await.unwrap_err());
    // What is answered is written, and what is not written is not answered.
    let mut written = vec![];
    let error = loop {
        match broker.grants().await.set(allow(written.len() as u32)).await {
            Ok(set) => written = set.into_inner().grants,
            Err(error) => break error,
        }
        assert!(written.len() < 100, "it is not full");
    };
    is_full(&error);
    let holds = async |broker: &Broker, written: &[pb::Grant]| {
        let listed = list(broker).await;
        assert_eq!(listed.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), [first.as_str()]);
        let request = pb::GrantServiceGetRequest { extension: first.clone() };
        let grants = broker.grants().await.get(request).await.unwrap().into_inner().grants;
        assert_eq!(grants, written);
    };
    let written = match written.is_empty() {
        true => {
            let request = pb::GrantServiceGetRequest { extension: first.clone() };
            broker.grants().await.get(request).await.unwrap().into_inner().grants
        }
        false => written,
    };
    holds(&broker, &written).await;
    broker.kill();
    broker.restart().await;
    holds(&broker, &written).await;
    broker.disk().free();
    // What could not be undone is undone now.
    let begun = Instant::now();
    while list(&broker).await.len() > 1 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", broker.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    broker.grants().await.set(allow(1)).await.unwrap();
    local(&broker).await;
    broker.stop().await;
    broker.restart().await;
    assert_eq!(list(&broker).await.len(), 2);
}

/// As brokers of every version left them: with everything under way, and no engine that answers.
#[tokio::test]
async fn a_store_of_every_schema_is_taken_up() {
    let schemas = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas");
    let mut stored: Vec<_> = fs::read_dir(schemas).unwrap().map(|file| file.unwrap().path()).collect();
    stored.sort();
    assert!(stored.len() >= 5);
    for path in stored {
        let engine = Some(EngineAt::socket("/nonexistent/docker.sock"));
        let mut broker = Broker::prepare(BrokerOptions { engine, ..Default::default() });
        fs::DirBuilder::new().mode(0o700).create(broker.data_dir()).unwrap();
        let database = rusqlite::Connection::open(broker.data_dir().join("longshore.db")).unwrap();
        database.execute_batch(&fs::read_to_string(&path).unwrap()).unwrap();
        drop(database);
        broker.restart().await;
        let listed = list(&broker).await;
        let states: Vec<_> = listed.iter().map(|one| (one.id.as_str(), one.state())).collect();
        let mut expected = vec![
            ("a/b", ExtensionState::Degraded),
            ("a/c", ExtensionState::Installing),
            ("a/d", ExtensionState::Uninstalling),
        ];
        if path.file_stem().unwrap().to_str().unwrap().parse::<u32>().unwrap() >= 5 {
            expected.push(("a/e", ExtensionState::Updating));
        }
        assert_eq!(states, expected, "{}", path.display());
        assert!(broker.stop().await.success());
    }
}

#[tokio::test]
async fn a_second_broker_is_refused_and_the_first_goes_on() {
    for plain in [false, true] {
        let broker = Broker::start_with(BrokerOptions { plain, ..Default::default() }).await;
        let output = refused(&broker).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains("another broker"), "{said}");
        assert_eq!(list(&broker).await, []);
    }
}
