//! Saved images that are not what they say, or that name what is somebody else's.

use std::time::Duration;

use sha2::{Digest, Sha256};
use tar::EntryType::{Link, Regular, Symlink};
use tokio::time::timeout;

use super::*;
use crate::support::{has_image, images_of, no_traces, reason};

/// The files of an extension that is nothing but a tab.
const USUAL: [(&str, &[u8]); 2] = [("metadata.json", UI.as_bytes()), ("ui/index.html", b"x")];

/// A tar archive of these files.
fn tarred(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        raw(&mut archive, path, content, content.len() as u64, Regular, "");
    }
    archive.into_inner().unwrap()
}

/// Adds an entry, whatever its name, and whatever it says of its size.
fn raw(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8], size: u64, kind: tar::EntryType, link: &str) {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_size(size);
    header.set_mode(0o644);
    header.set_entry_type(kind);
    header.set_cksum();
    archive.append(&header, content).unwrap();
}

/// A saved image of one layer, for this machine.
pub(super) fn saved(names: &[&str], layer: &[u8], labels: &[(&str, &str)]) -> Vec<u8> {
    let digest: String = Sha256::digest(layer).iter().map(|byte| format!("{byte:02x}")).collect();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let labels: serde_json::Map<_, _> = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let config = serde_json::json!({
        "architecture": arch, "os": "linux", "config": {"Labels": labels, "Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]}
    });
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": names, "Layers": ["layer.tar"]}]);
    let (config, manifest) = (config.to_string(), manifest.to_string());
    tarred(&[("config.json", config.as_bytes()), ("layer.tar", layer), ("manifest.json", manifest.as_bytes())])
}

/// The archive in a file, as a source.
pub(super) fn source(broker: &Broker, archive: &[u8]) -> pb::Source {
    let path = broker.scratch().join(unique("archive.tar"));
    fs::write(&path, archive).unwrap();
    let archive = pb::ArchiveSource { path: path.display().to_string(), reference: String::new() };
    pb::Source { source: Some(pb::source::Source::Archive(archive)) }
}

const UI: &str = r#"{"ui": {"dashboard-tab": {"title": "T", "root": "ui", "src": "index.html"}}}"#;

#[tokio::test]
async fn an_archive_that_lies_is_refused_and_leaves_nothing() {
    let broker = Broker::start_plain().await;
    let with = |path: &str, content: &[u8], size: u64, kind, link: &str| {
        let mut layer = tar::Builder::new(Vec::new());
        for (path, content) in USUAL {
            raw(&mut layer, path, content, content.len() as u64, Regular, "");
        }
        raw(&mut layer, path, content, size, kind, link);
        layer.into_inner().unwrap()
    };
    let escaped = format!("/tmp/{}", unique("longshore-escaped"));
    let up = format!("{}{escaped}", "../".repeat(20).trim_end_matches('/'));
    let short = with("ui/more", b"short", 1 << 30, Regular, "");
    for (what, layer) in [
        ("names above the root", with(&up, b"evil", 4, Regular, "")),
        ("claims more than it holds", short),
        ("a hard link out of it", with("ui/passwd", b"", 0, Link, "../../../../../../../../etc/passwd")),
    ] {
        let id = format!("longshore-test/{}", unique("lies"));
        let archive = saved(&[&format!("{id}:1")], &layer, &[]);
        let asked = timeout(Duration::from_secs(60), install(&broker, &source(&broker, &archive), &[])).await;
        match asked.expect("it ends") {
            // The engine takes such a name for one below the root.
            Ok(_) if what == "names above the root" => drop(broker.uninstall(&id, false).await.unwrap()),
            Ok(extension) => panic!("{what}: {extension:?}"),
            Err(error) => assert_eq!(reason(&error), "SOURCE_UNREADABLE", "{what}: {error:?}"),
        }
        assert!(!Path::new(&escaped).exists());
        assert_eq!(images_of(&id).await, Vec::<String>::new(), "{what}");
        no_traces(&broker, &id).await;
    }
    let whole = saved(&["longshore-test/cut:1"], &tarred(&USUAL), &[]);
    for length in [whole.len() / 3, 700, 0] {
        let error = install(&broker, &source(&broker, &whole[..length]), &[]).await.unwrap_err();
        assert_eq!(reason(&error), "SOURCE_UNREADABLE", "{length}: {error:?}");
    }
}

#[tokio::test]
async fn links_lead_to_what_is_in_the_image_if_anywhere() {
    let broker = Broker::start_plain().await;
    let mut layer = tar::Builder::new(Vec::new());
    for (path, content) in USUAL {
        raw(&mut layer, path, content, content.len() as u64, Regular, "");
    }
    for (path, target) in [
        ("ui/passwd", "/etc/passwd"),
        ("ui/etc", "/etc"),
        ("ui/up", "../../../../etc/passwd"),
        ("ui/self", "/proc/self/environ"),
        ("ui/good", "/ui/index.html"),
    ] {
        raw(&mut layer, path, b"", 0, Symlink, target);
    }
    let id = format!("longshore-test/{}", unique("links"));
    let archive = saved(&[&format!("{id}:1")], &layer.into_inner().unwrap(), &[]);
    let extension = install(&broker, &source(&broker, &archive), &[]).await.unwrap();
    let ui = PathBuf::from(extension.ui.unwrap().root_dir);
    let mut names: Vec<_> = fs::read_dir(&ui).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["good", "index.html"]);
    assert_eq!(fs::read(ui.join("good")).unwrap(), b"x");
    for name in ["passwd", "etc", "up", "self"] {
        assert!(extension.warnings.iter().any(|warning| warning.contains(name)), "{:?}", extension.warnings);
    }
    broker.uninstall(&id, false).await.unwrap();
    no_traces(&broker, &id).await;
}

/// What a name stands for.
fn stands_for(name: &str) -> String {
    docker(&["image", "inspect", "--format", "{{.Id}}", name])
}

#[tokio::test]
async fn names_of_the_users_images_stay_theirs() {
    let mine = Image::builder().file("mine", unique("mine"), 0o644).build().await;
    // One without an organisation, as most images of everyday have, and one of another registry.
    let plain = format!("{}:latest", unique("longshore-test-plain"));
    let elsewhere = format!("127.0.0.1:1/{}/{}:1.0", unique("longshore-test"), "x");
    let id = format!("longshore-test/{}", unique("takes"));
    let (own, more) = (format!("{id}:1"), format!("{id}:2"));
    for name in [&plain, &elsewhere, &own] {
        docker(&["tag", &mine.reference, name]);
    }
    let content = stands_for(&mine.reference);
    let layer = tarred(&[("metadata.json", UI.as_bytes()), ("ui/index.html", unique("x").as_bytes())]);
    let broker = Broker::start().await;
    let several = saved(&[&own, &plain, &mine.reference, &elsewhere, &more], &layer, &[]);
    let archive = source(&broker, &several);
    // Several names: one has to be said. Whatever becomes of it, names that were there are as they were.
    let named = |reference: &str| {
        let Some(pb::source::Source::Archive(archive)) = archive.source.clone() else { panic!() };
        let archive = pb::ArchiveSource { reference: reference.to_owned(), ..archive };
        pb::Source { source: Some(pb::source::Source::Archive(archive)) }
    };
    let check = |what: &str, names: &[&String]| {
        for name in names {
            assert_eq!(stands_for(name), content, "{what}: {name}");
        }
    };
    install(&broker, &archive, &[]).await.unwrap_err();
    check("a failure", &[&plain, &mine.reference, &elsewhere, &own]);
    assert!(!has_image(&more).await);
    let loaded = inspect(&broker, &named(&own)).await.unwrap().image_id;
    check("a look", &[&plain, &mine.reference, &elsewhere, &own]);
    assert!(!has_image(&loaded).await && !has_image(&more).await);
    install(&broker, &named(&own), &[]).await.unwrap();
    check("an install", &[&plain, &mine.reference, &elsewhere]);
    assert_eq!(stands_for(&own), loaded, "that name was asked for");
    broker.uninstall(&id, false).await.unwrap();
    check("an uninstall", &[&plain, &mine.reference, &elsewhere]);
    assert!(!has_image(&more).await);
    for name in [&plain, &elsewhere] {
        docker(&["rmi", name]);
    }
    let _ = std::process::Command::new("docker").args(["rmi", &own]).output();
}

/// The archive holds an image that the user has under another name.
#[tokio::test]
async fn an_image_that_was_there_before_stays() {
    let kept =
        Image::builder().file("metadata.json", UI, 0o644).file("ui/index.html", unique("x"), 0o644).build().await;
    let taken = Image::builder().file("mine", unique("mine"), 0o644).build().await;
    let broker = Broker::start().await;
    let (before, other) = (stands_for(&kept.reference), stands_for(&taken.reference));
    docker(&["tag", &kept.reference, &taken.reference]);
    let path = broker.scratch().join("both.tar");
    docker(&["save", "-o", &path.display().to_string(), &taken.reference]);
    docker(&["tag", &other, &taken.reference]);
    let archive = source(&broker, &fs::read(path).unwrap());
    assert_eq!(inspect(&broker, &archive).await.unwrap().image_id, before);
    assert_eq!((stands_for(&kept.reference), stands_for(&taken.reference)), (before, other));
}
