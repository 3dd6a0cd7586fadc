//! Compose files that show one thing and mean another, or that ask for what is somebody else's.

use std::{fs, os::unix::fs::FileTypeExt, path::Path, time::Duration};

use longshore::pb;
use prost::Message;
use tokio::time::timeout;
use tonic::Status;

use super::*;
use crate::support::{BrokerOptions, as_both, no_traces, reason, trusting};

as_both!(compose_reads_the_checked_texts_and_nothing_else, what_is_too_much_is_named);

/// For Compose a line ends at U+2028, for whoever looks at the file the comment goes on.
const HIDDEN: &str = "# nothing to see\u{2028}    privileged: true\u{2028}    pid: host\n";
/// A file name that looks like two lines.
const ODD_NAME: &str = "more\u{2028}  'quoted' # odd.yml";

async fn compose_reads_the_checked_texts_and_nothing_else(options: BrokerOptions) {
    let of =
        |name: &str| format!("  {name}:\n    image: ${{DESKTOP_PLUGIN_IMAGE}}\n    {HIDDEN}    command: {SLEEP}\n");
    let first = format!(
        "services:\n{}  web:\n    {HIDDEN}    extends: {{service: base}}\n  own:\n    extends: {{service: base, file: ./docker-compose.yml}}\n  \
         other:\n    extends: {{service: odd, file: \"more\\u2028  'quoted' # odd.yml\"}}\n",
        of("base")
    );
    let second = format!("services:\n{}", of("odd"));
    let raw = tempfile::tempdir().unwrap();
    fs::write(raw.path().join("docker-compose.yml"), second.replace("${DESKTOP_PLUGIN_IMAGE}", "x")).unwrap();
    let read = std::process::Command::new("docker").args(["compose", "config"]).current_dir(raw.path()).output();
    let read = String::from_utf8(read.unwrap().stdout).unwrap();
    assert!(read.contains("privileged: true"), "Compose itself would read what is hidden: {read}");

    let image = composed(&first).file(&format!("vm/{ODD_NAME}"), &second, 0o644).build().await;
    let broker = Broker::start_with(options).await;
    let source = crate::support::image_source(&image.reference);
    let inspected = inspect(&broker, &source).await.unwrap();
    assert_eq!(inspected.needed_grants, []);
    assert!(
        inspected.problems.iter().all(|found| found.severity() != pb::Severity::Error),
        "{:#?}",
        inspected.problems
    );
    let extension = install(&broker, &source, &[]).await.unwrap();
    let containers = extension.backend.unwrap().containers;
    assert_eq!(containers.len(), 4);
    for container in &containers {
        let format = "{{.HostConfig.Privileged}} {{.HostConfig.PidMode}}";
        let said = docker(&["inspect", "--format", format, &container.id]);
        // Podman spells the usual namespace out.
        assert_eq!(said.trim_end_matches(" private"), "false", "{}", container.service);
    }
    let staged = broker.data_dir().join("extensions").join(image.id.replace('/', "_"));
    let mut read = 0;
    for path in crate::hostile::files(&staged).into_iter().filter(|path| path.extension().is_some_and(|e| e == "yml")) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\"services\": ") && !text.contains('\u{2028}'), "{path:?}: {text}");
        assert!(!text.contains("privileged") && !text.contains("nothing to see"), "{path:?}: {text}");
        read += 1;
    }
    assert_eq!(read, 2);
    broker.uninstall(&image.id, false).await.unwrap();
    no_traces(&broker, &image.id).await;
}

/// The grants that a refusal lists, with what asks for them.
fn missing(error: &Status) -> Vec<(String, String)> {
    assert_eq!(reason(error), "GRANTS_REQUIRED", "{error:?}");
    let status = tonic_types::Status::decode(error.details()).unwrap();
    let detail = status.details.iter().find(|any| any.type_url.ends_with("longshore.v1.GrantsRequired")).unwrap();
    let listed = pb::GrantsRequired::decode(&detail.value[..]).unwrap().grants;
    listed.into_iter().map(|grant| (grant.name, grant.origin)).collect()
}

/// What becomes of a file once it has its grant.
enum Then {
    Works,
    /// The engine refuses it, with this word.
    Fails(&'static str),
}
use Then::{Fails, Works};

/// What is added to a service, the grant it needs, the field that needs it, and what comes of it.
type Line = (String, &'static str, &'static str, Then);

/// `name` is a network's and a volume's, `stranger` a container.
fn lines(name: &str, stranger: &str) -> Vec<Line> {
    let bridge = format!("lt{:x}", std::process::id());
    let (full, privileged) = ("engine.full", "backend.privileged");
    vec![
        (
            format!("    volumes: ['ext:/e']\nvolumes:\n  ext: {{external: true, name: {name}}}\n"),
            full,
            "volumes.ext.external",
            Works,
        ),
        (
            format!("    networks: [n]\nnetworks:\n  n: {{external: true, name: {name}}}\n"),
            full,
            "networks.n.external",
            Works,
        ),
        ("    networks: [n]\nnetworks:\n  n: {driver: overlay}\n".into(), full, "networks.n.driver", Fails("swarm")),
        (
            format!(
                "    networks: [n]\nnetworks:\n  n: {{driver_opts: {{com.docker.network.bridge.name: {bridge}}}}}\n"
            ),
            privileged,
            "networks.n.driver_opts",
            Works,
        ),
        (
            "    logging: {driver: syslog, options: {syslog-address: 'udp://127.0.0.1:9'}}\n".into(),
            full,
            "services.web.logging.driver",
            Works,
        ),
        (format!("    network_mode: 'container:{}'\n", stranger), full, "services.web.network_mode", Works),
        (format!("    network_mode: {name}\n"), full, "services.web.network_mode", Works),
        (
            format!("    network_mode: bridge\n    external_links: ['{}:other']\n", stranger),
            full,
            "services.web.external_links",
            Works,
        ),
        ("    runtime: runc\n".into(), privileged, "services.web.runtime", Works),
        ("    runtime: no-such-runtime\n".into(), privileged, "services.web.runtime", Fails("no-such-runtime")),
    ]
}

#[tokio::test]
async fn what_is_somebody_elses_is_asked_for_by_its_field() {
    let image = Image::sleeping().build().await;
    let stranger = Stranger::run(&image, &["-e", "SECRET=s3cret"]);
    let name = unique("longshore-test");
    let things = [Thing::create("volume", &name, &[]), Thing::create("network", &name, &[])];
    let before = (stranger.look(), things.each_ref().map(Thing::look));
    let broker = Broker::start_plain().await;
    for (line, grant, origin, then) in lines(&name, &stranger.0) {
        let file = format!("services:\n  web:\n    image: ${{DESKTOP_PLUGIN_IMAGE}}\n    command: {SLEEP}\n{line}");
        let files: [(&str, &[u8]); 2] =
            [("metadata.json", COMPOSED.as_bytes()), ("vm/docker-compose.yml", file.as_bytes())];
        let source = laid_out(&broker, &image.reference, &files);
        let error = install(&broker, &source, &[]).await.unwrap_err();
        assert_eq!(missing(&error), [(grant.to_owned(), origin.to_owned())], "{line}");
        no_traces(&broker, &image.id).await;
        match (install(&broker, &source, &[grant]).await, then) {
            (Ok(_), Works) => {
                let removed = broker.uninstall(&image.id, true).await.unwrap();
                assert_eq!(removed.removed_volumes, Vec::<String>::new(), "{line}");
            }
            (Err(error), Fails(word)) => {
                assert_eq!(reason(&error), "COMPOSE_FAILED", "{line}");
                assert!(error.message().contains(word), "{line}: {}", error.message());
            }
            (outcome, _) => panic!("{line}: {outcome:?}"),
        }
        no_traces(&broker, &image.id).await;
    }
    assert_eq!((stranger.look(), things.each_ref().map(Thing::look)), before);
}

async fn what_is_too_much_is_named(options: BrokerOptions) {
    let broker = Broker::start_with(options).await;
    let web = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n";
    let more = |text: &str| format!("{web}{text}");
    let large = format!("A={}\n", "x".repeat(2 << 20)).into_bytes();
    let endless = format!("{web}# {}\n", "x".repeat(2 << 20));
    let extending = more("    extends: {service: web, file: more.yml}\n");
    let table: [(&str, String, &str, &[u8]); 6] = [
        (".env", web.into(), "vm/.env", &large),
        ("my.env", more("    env_file: [my.env]\n"), "vm/my.env", &large),
        ("my.labels", more("    label_file: my.labels\n"), "vm/my.labels", &large),
        ("docker-compose.yml", endless.clone(), "vm/x", b""),
        ("more.yml", extending, "vm/more.yml", endless.as_bytes()),
        ("metadata.json", web.into(), "metadata.json", &large),
    ];
    for (word, file, path, content) in table {
        let files: [(&str, &[u8]); 3] =
            [("metadata.json", COMPOSED.as_bytes()), ("vm/docker-compose.yml", file.as_bytes()), (path, content)];
        let source = laid_out(&broker, "longshore-test/large:1", &files);
        let error = install(&broker, &source, &[]).await.unwrap_err();
        assert!(error.message().contains(word) && error.message().contains("1048576"), "{word}: {}", error.message());
    }
    // A file of gibibytes that takes no place is not read to its end.
    let before = broker.peak_kib();
    let files: [(&str, &[u8]); 2] = [("metadata.json", COMPOSED.as_bytes()), ("vm/docker-compose.yml", b"")];
    let source = laid_out(&broker, "longshore-test/large:1", &files);
    let Some(pb::source::Source::Directory(directory)) = &source.source else { panic!() };
    let sparse = Path::new(&directory.path).join("vm/docker-compose.yml");
    fs::OpenOptions::new().write(true).open(sparse).unwrap().set_len(512 << 20).unwrap();
    install(&broker, &source, &[]).await.unwrap_err();
    assert!(broker.peak_kib() < before + (100 << 10), "{} KiB before, {} KiB then", before, broker.peak_kib());
    assert_eq!(fs::read_dir(broker.data_dir().join("staging")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_no_file_is_told_at_once() {
    let broker = Broker::start().await;
    let fifo = |path: &Path| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        assert!(fs::symlink_metadata(path).unwrap().file_type().is_fifo());
    };
    let pipe = broker.scratch().join("pipe");
    fifo(&pipe);
    let places = [pipe, broker.scratch().to_owned(), "/dev/zero".into(), "/dev/tty".into(), broker.socket()];
    for path in places {
        let path = path.display().to_string();
        let archive = pb::ArchiveSource { path: path.clone(), reference: String::new() };
        let source = pb::Source { source: Some(pb::source::Source::Archive(archive)) };
        let error = timeout(Duration::from_secs(20), inspect(&broker, &source)).await.expect("at once").unwrap_err();
        assert_eq!(reason(&error), "SOURCE_UNREADABLE", "{error:?}");
        assert!(error.message().contains(&path), "{}", error.message());
    }
    for name in ["metadata.json", "vm/docker-compose.yml", "vm/.env"] {
        let file = format!("services:\n  web:\n    image: x\n    command: {SLEEP}\n");
        let files: [(&str, &[u8]); 2] =
            [("metadata.json", COMPOSED.as_bytes()), ("vm/docker-compose.yml", file.as_bytes())];
        let source = laid_out(&broker, "longshore-test/pipe:1", &files);
        let Some(pb::source::Source::Directory(directory)) = &source.source else { panic!() };
        let path = Path::new(&directory.path).join(name);
        let _ = fs::remove_file(&path);
        fifo(&path);
        let error =
            timeout(Duration::from_secs(20), install(&broker, &source, &[])).await.expect("at once").unwrap_err();
        let file = name.rsplit('/').next().unwrap();
        assert!(error.message().contains(file) && error.message().contains("neither a file"), "{name}: {error:?}");
    }
    // An install that goes on reading would hold this one.
    let image = Image::sleeping().build().await;
    let request =
        pb::InstallRequest { ready_timeout: Some(prost_types::Duration::default()), ..trusting(&image.reference) };
    broker.install(request).await.unwrap();
    broker.uninstall(&image.id, false).await.unwrap();
}
