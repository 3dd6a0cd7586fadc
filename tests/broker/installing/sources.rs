//! Where an extension may come from.

use std::{fs, path::PathBuf};

use bollard::query_parameters::{RemoveImageOptions, TagImageOptionsBuilder};
use longshore::pb::{self, ExtensionState};

use super::*;
use crate::support::{BrokerOptions, has_image, images_of, no_traces, reason, unique};

/// Saves images into a file that every broker can read, and takes them out of the engine.
async fn saved(broker: &Broker, names: &[&str]) -> PathBuf {
    let path = broker.scratch().join(unique("archive.tar"));
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let status = std::process::Command::new("docker").arg("save").arg("-o").arg(&path).args(&names).status();
    assert!(status.unwrap().success());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&path, mode).unwrap();
    path
}

async fn remove(name: &str) {
    let _ = engine().remove_image(name, None::<RemoveImageOptions>, None).await;
}

fn archive(path: &std::path::Path, reference: &str) -> pb::Source {
    let archive = pb::ArchiveSource { path: path.display().to_string(), reference: reference.to_owned() };
    pb::Source { source: Some(pb::source::Source::Archive(archive)) }
}

fn from(source: pb::Source) -> pb::InstallRequest {
    pb::InstallRequest { source: Some(source), trust: true, ..Default::default() }
}

#[tokio::test]
async fn an_archive_with_one_tag_is_installed_as_that() {
    let image = Image::hello().build().await;
    for broker in both().await {
        let path = saved(&broker, &[&image.reference]).await;
        remove(&image.reference).await;
        let inspect = pb::InspectRequest { source: Some(archive(&path, "")) };
        let inspected = broker.extensions().await.inspect(inspect).await.unwrap().into_inner();
        assert_eq!((inspected.id, inspected.reference), (image.id.clone(), image.reference.clone()));
        assert!(!has_image(&image.reference).await, "Inspect leaves nothing");
        let extension = broker.install(from(archive(&path, ""))).await.unwrap();
        assert_eq!((&extension.id, extension.state()), (&image.id, ExtensionState::Ready));
        let removed = broker.uninstall(&image.id, false).await.unwrap();
        assert!(removed.image_removed && !has_image(&image.reference).await);
        no_traces(&broker, &image.id).await;
        // Put back, for the next user.
        let status = std::process::Command::new("docker").args(["load", "-q", "-i"]).arg(&path).status();
        assert!(status.unwrap().success());
    }
}

#[tokio::test]
async fn an_archive_can_be_installed_under_another_name() {
    let image = Image::hello().build().await;
    let broker = Broker::start().await;
    let path = saved(&broker, &[&image.reference]).await;
    let other = format!("longshore-test/{}", unique("renamed"));
    let extension = broker.install(from(archive(&path, &other))).await.unwrap();
    assert_eq!((&extension.id, &*extension.version), (&other, "1"));
    assert!(broker.uninstall(&other, false).await.unwrap().image_removed);
    assert!(has_image(&image.reference).await, "that name was there before");
    no_traces(&broker, &other).await;
}

#[tokio::test]
async fn an_archive_without_a_tag_needs_a_reference() {
    let image = Image::hello().build().await;
    let broker = Broker::start_plain().await;
    let id = engine().inspect_image(&image.reference).await.unwrap().id.unwrap();
    let path = saved(&broker, &[&id]).await;
    remove(&image.reference).await;
    let error = broker.install(from(archive(&path, ""))).await.unwrap_err();
    assert_eq!(reason(&error), "SOURCE_UNREADABLE");
    assert!(error.message().contains("give a reference"), "{}", error.message());
    assert!(!has_image(&id).await, "what was loaded went again");
    let other = format!("longshore-test/{}", unique("named"));
    let extension = broker.install(from(archive(&path, &format!("{other}:7")))).await.unwrap();
    assert_eq!((&extension.id, &*extension.version, extension.state()), (&other, "7", ExtensionState::Ready));
    assert!(broker.uninstall(&other, false).await.unwrap().image_removed);
    assert!(!has_image(&id).await);
    no_traces(&broker, &other).await;
}

#[tokio::test]
async fn of_several_images_in_an_archive_one_is_named() {
    let (one, two) = (Image::hello().build().await, Image::hello().file("two", "2", 0o644).build().await);
    let broker = Broker::start().await;
    let path = saved(&broker, &[&one.reference, &two.reference]).await;
    remove(&one.reference).await;
    remove(&two.reference).await;
    let error = broker.install(from(archive(&path, ""))).await.unwrap_err();
    assert_eq!(reason(&error), "SOURCE_UNREADABLE");
    assert!(error.message().contains(&one.reference) && error.message().contains(&two.reference));
    assert!(!has_image(&one.reference).await && !has_image(&two.reference).await);
    for wanted in [&two.reference, &two.id] {
        let extension = broker.install(from(archive(&path, wanted))).await.unwrap();
        assert_eq!(extension.reference, two.reference);
        broker.uninstall(&two.id, false).await.unwrap();
        assert!(!has_image(&one.reference).await && !has_image(&two.reference).await);
    }
    no_traces(&broker, &two.id).await;
}

#[tokio::test]
async fn a_name_that_an_archive_takes_is_given_back() {
    let image = Image::hello().build().await;
    let broker = Broker::start().await;
    let path = saved(&broker, &[&image.reference]).await;
    // One that is there, under whatever name or none, is the user's and stays.
    remove(&image.reference).await;
    let mine = Image::hello().file("mine", "", 0o644).build_as(&image.id).await;
    let inspect = pb::InspectRequest { source: Some(archive(&path, "")) };
    let now = engine().inspect_image(&mine.reference).await.unwrap().id;
    let inspected = broker.extensions().await.inspect(inspect).await.unwrap().into_inner();
    assert_ne!(Some(&inspected.image_id), now.as_ref());
    assert_eq!(engine().inspect_image(&mine.reference).await.unwrap().id, now);
    assert!(!has_image(&inspected.image_id).await, "what was loaded went again");
    no_traces(&broker, &image.id).await;
}

#[tokio::test]
async fn what_is_no_archive_is_told() {
    let broker = Broker::start().await;
    let path = broker.scratch().join("no.tar");
    fs::write(&path, "no archive").unwrap();
    for path in [path, "/nowhere.tar".into()] {
        let error = broker.install(from(archive(&path, ""))).await.unwrap_err();
        assert_eq!(reason(&error), "SOURCE_UNREADABLE", "{error:?}");
        assert!(error.message().contains(path.to_str().unwrap()));
    }
}

/// The hello extension as an author's directory, readable by everybody.
fn directory(broker: &Broker) -> PathBuf {
    let root = broker.scratch().join(unique("tree"));
    fs::create_dir_all(root.join("ui")).unwrap();
    fs::write(root.join("metadata.json"), crate::support::metadata()).unwrap();
    fs::write(root.join("ui/index.html"), "<h1>tree</h1>").unwrap();
    fs::write(root.join("icon.svg"), "<svg/>").unwrap();
    root
}

fn tree(path: &std::path::Path, reference: &str) -> pb::Source {
    let directory = pb::DirectorySource { path: path.display().to_string(), reference: reference.to_owned() };
    pb::Source { source: Some(pb::source::Source::Directory(directory)) }
}

#[tokio::test]
async fn a_directory_without_its_image_waits_for_a_local_backend() {
    let engines: [Option<&str>; 2] = [None, Some("unix:///nowhere/docker.sock")];
    for (plain, away) in [(false, engines[0]), (true, engines[0]), (false, engines[1]), (true, engines[1])] {
        let args = away.map(|url| vec!["--engine".into(), url.into()]).unwrap_or_default();
        let broker = Broker::start_with(BrokerOptions { plain, args, ..Default::default() }).await;
        let root = directory(&broker);
        let id = format!("local/{}", root.file_name().unwrap().to_str().unwrap());
        let extension = broker.install(from(tree(&root, ""))).await.unwrap();
        assert_eq!((&extension.id, &*extension.version, &*extension.image_id), (&id, "dev", ""));
        assert_eq!((extension.state(), &*extension.state_reason), (ExtensionState::Stopped, "BACKEND_NOT_BUILT"));
        assert!(fs::read(format!("{}/index.html", extension.ui.unwrap().root_dir)).is_ok());
        broker.uninstall(&id, false).await.unwrap();
        assert_eq!(list(&broker).await, Vec::<String>::new());
        assert_eq!(fs::read_dir(broker.data_dir().join("extensions")).unwrap().count(), 0);
        assert!(root.join("metadata.json").exists(), "the author's files are not ours");
    }
}

#[tokio::test]
async fn a_directory_with_its_image_runs_that() {
    let image = Image::hello().build().await;
    for broker in both().await {
        let root = directory(&broker);
        let extension = broker.install(from(tree(&root, &image.reference))).await.unwrap();
        assert_eq!((&extension.id, extension.state()), (&image.id, ExtensionState::Ready));
        let ui = format!("{}/index.html", extension.ui.unwrap().root_dir);
        assert_eq!(fs::read(ui).unwrap(), b"<h1>tree</h1>", "the UI is the directory's");
        assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
        // What its author changed is taken up, though the image is what it was.
        fs::write(root.join("ui/index.html"), "<h1>grown</h1>").unwrap();
        let source = Some(tree(&root, &image.reference));
        let updated = broker.update(pb::UpdateRequest { source, ..Default::default() }).await.unwrap();
        assert!(updated.changed);
        let ui = format!("{}/index.html", broker.extension(&image.id).await.unwrap().ui.unwrap().root_dir);
        assert_eq!(fs::read(ui).unwrap(), b"<h1>grown</h1>");
        assert_eq!(broker.get(&image.id, "/hello").await.unwrap().status, 200);
        broker.uninstall(&image.id, false).await.unwrap();
        no_traces(&broker, &image.id).await;
    }
}

#[tokio::test]
async fn without_a_tag_it_is_latest_or_the_greatest_version() {
    let ui = r#"{"ui": {"dashboard-tab": {"title": "Test", "root": "ui", "src": "index.html"}}}"#;
    let image = Image::hello().file("metadata.json", ui, 0o644).build().await;
    let tag = async |name: &str| {
        let options = TagImageOptionsBuilder::default().repo(&image.id).tag(name).build();
        engine().tag_image(&image.reference, Some(options)).await.unwrap();
    };
    let broker = Broker::start().await;
    let chosen = async || {
        let inspect = pb::InspectRequest { source: Some(image_source(&image.id)) };
        broker.extensions().await.inspect(inspect).await.map(|inspected| inspected.into_inner().version)
    };
    // The image is there as `1`, which is a version as well.
    assert_eq!(chosen().await.unwrap(), "1");
    for name in ["1.9.0", "1.10.0", "v1.10.1-rc.1", "nightly"] {
        tag(name).await;
    }
    assert_eq!(chosen().await.unwrap(), "v1.10.1-rc.1");
    tag("latest").await;
    assert_eq!(chosen().await.unwrap(), "latest");
    for name in images_of(&image.id).await {
        remove(&name).await;
    }
}

/// A saved image for a machine that nobody here has.
fn foreign(name: &str) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let tarred = |files: &[(&str, &[u8])]| {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, path, *content).unwrap();
        }
        archive.into_inner().unwrap()
    };
    let layer = tarred(&[("metadata.json", b"{}")]);
    let digest: String = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = format!(
        r#"{{"architecture":"s390x","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}}}}"#
    );
    let manifest = format!(r#"[{{"Config":"config.json","RepoTags":["{name}"],"Layers":["layer.tar"]}}]"#);
    tarred(&[("config.json", config.as_bytes()), ("layer.tar", &layer), ("manifest.json", manifest.as_bytes())])
}

#[tokio::test]
async fn an_image_for_another_machine_is_refused() {
    let id = format!("longshore-test/{}", unique("foreign"));
    let broker = Broker::start().await;
    let path = broker.scratch().join("foreign.tar");
    fs::write(&path, foreign(&format!("{id}:1"))).unwrap();
    let loaded = std::process::Command::new("docker").args(["load", "-q", "-i"]).arg(&path).output().unwrap();
    assert!(loaded.status.success(), "{loaded:?}");
    // Manifest and labels are wrong as well: what is reported first is what cannot be mended here.
    let validated =
        pb::ValidateRequest { subject: Some(pb::validate_request::Subject::Source(image_source(&format!("{id}:1")))) };
    let validated = broker.extensions().await.validate(validated).await.unwrap().into_inner();
    let error = broker.install(trusting(&format!("{id}:1"))).await.unwrap_err();
    remove(&format!("{id}:1")).await;
    assert!(validated.problems.iter().any(|problem| problem.message.contains("linux/s390x")), "{validated:?}");
    assert!(error.message().contains("linux/s390x"), "{error:?}");
    assert_eq!(reason(&error), "PLATFORM_MISMATCH");
    no_traces(&broker, &id).await;
}

#[tokio::test]
async fn validate_tells_everything_at_once_and_leaves_nothing() {
    let manifest = r#"{
  "icon": "gone.svg",
  "ui": {"dashboard-tab": {"title": "T", "root": "nowhere", "src": "x"}},
  "vm": {"composefile": "docker-compose.yml", "exposes": {"socket": "a/b"}},
  "host": {"binaries": [{"linux": [{"path": "/gone.sh"}]}]}
}"#;
    let file = "services:\n  web:\n    build: .\n    env_file: /etc/passwd\n";
    let image = Image::builder().file("metadata.json", manifest, 0o644).file("docker-compose.yml", file, 0o644);
    let image = image.label("com.docker.desktop.extension.api.version", "rubbish").build().await;
    for broker in both().await {
        let subject = pb::validate_request::Subject::Source(image_source(&image.reference));
        let request = pb::ValidateRequest { subject: Some(subject) };
        let found = broker.extensions().await.validate(request).await.unwrap().into_inner();
        assert!(!found.valid);
        for (file, field, line) in [
            ("metadata.json", "/icon", 2),
            ("metadata.json", "/ui/dashboard-tab/root", 3),
            ("metadata.json", "/vm/exposes/socket", 4),
            ("metadata.json", "/host/binaries/0/linux/0/path", 5),
            ("docker-compose.yml", "services.web.build", 3),
            ("docker-compose.yml", "services.web.env_file", 4),
        ] {
            let problem = found.problems.iter().find(|problem| problem.file.ends_with(file) && problem.field == field);
            let problem = problem.unwrap_or_else(|| panic!("nothing at {file} {field}: {:#?}", found.problems));
            assert_eq!((problem.line, problem.column > 0), (line, true), "{problem:?}");
        }
        no_traces(&broker, &image.id).await;
    }
    let broker = Broker::start().await;
    let subject = pb::validate_request::Subject::ManifestJson(bytes::Bytes::from_static(b"{\n \"vm\": 1,\n}"));
    let found = broker.extensions().await.validate(pb::ValidateRequest { subject: Some(subject) }).await.unwrap();
    assert!(!found.into_inner().valid);
}
