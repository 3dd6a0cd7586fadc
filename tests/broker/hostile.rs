//! Extensions that mean harm, and what they come up against.

mod archives;
mod composes;
mod programs;
mod removing;
mod strangers;
mod texts;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use longshore::pb;
use tonic::Status;

use crate::support::{Broker, Image, ImageBuilder, docker, project, unique};

/// A manifest with a compose file and nothing else.
const COMPOSED: &str = r#"{"vm": {"composefile": "vm/docker-compose.yml"}}"#;
/// What a container does that does nothing, as a compose file says it.
const SLEEP: &str = r#"["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 600 & wait $$!; done"]"#;

/// A shell, and what a compose file in `vm` says.
fn composed(file: &str) -> ImageBuilder {
    Image::builder().busybox().file("metadata.json", COMPOSED, 0o644).file("vm/docker-compose.yml", file, 0o644)
}

/// Files laid out where every broker can read them, to be installed as the image of that name.
fn laid_out(broker: &Broker, reference: &str, files: &[(&str, &[u8])]) -> pb::Source {
    let root = broker.scratch().join(unique("laid-out"));
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
    }
    fs::create_dir_all(&root).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    let source = pb::DirectorySource { path: root.display().to_string(), reference: reference.to_owned() };
    pb::Source { source: Some(pb::source::Source::Directory(source)) }
}

/// Installs with exactly these grants.
async fn install(broker: &Broker, source: &pb::Source, grants: &[&str]) -> Result<pb::Extension, Status> {
    let accept_grants = grants.iter().map(ToString::to_string).collect();
    broker.install(pb::InstallRequest { source: Some(source.clone()), accept_grants, ..Default::default() }).await
}

/// What Inspect says.
async fn inspect(broker: &Broker, source: &pb::Source) -> Result<pb::InspectResponse, Status> {
    let request = pb::InspectRequest { source: Some(source.clone()) };
    Ok(broker.extensions().await.inspect(request).await?.into_inner())
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let below = |entry: fs::DirEntry| match entry.file_type().unwrap().is_dir() {
        true => files(&entry.path()),
        false => vec![entry.path()],
    };
    entries.flat_map(below).collect()
}

/// A container of the user's own, removed with its volumes when dropped.
struct Stranger(String);

impl Stranger {
    /// Runs an image that sleeps.
    fn run(image: &Image, options: &[&str]) -> Stranger {
        let script = "trap 'exit 0' TERM; while :; do sleep 600 & wait $!; done";
        let command = [&["run", "-d"], options, &[image.reference.as_str(), "/bin/sh", "-c", script]].concat();
        Stranger(docker(&command))
    }

    /// What would change if anybody touched it.
    fn look(&self) -> String {
        let format = "{{.Id}} {{.Name}} {{.State.Status}} {{.State.StartedAt}} {{.RestartCount}} {{json .Mounts}} \
             {{json .NetworkSettings.Networks}}";
        docker(&["inspect", "--format", format, &self.0])
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = std::process::Command::new("docker").args(["rm", "-fv", &self.0]).output();
    }
}

/// A network or volume of the user's own, removed when dropped.
struct Thing {
    kind: &'static str,
    name: String,
}

impl Thing {
    fn create(kind: &'static str, name: &str, options: &[&str]) -> Thing {
        docker(&[&[kind, "create"], options, &[name]].concat());
        Thing { kind, name: name.to_owned() }
    }

    /// What would change if anybody replaced it.
    fn look(&self) -> String {
        docker(&[self.kind, "inspect", &self.name])
    }
}

impl Drop for Thing {
    fn drop(&mut self) {
        let _ = std::process::Command::new("docker").args([self.kind, "rm", &self.name]).output();
    }
}
