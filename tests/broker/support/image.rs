//! Images made on the spot, without a registry.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use bollard::query_parameters::RemoveImageOptionsBuilder;

use super::{EngineAt, unique};

/// A minimal manifest whose backend is one image that exposes `backend.sock`.
pub(crate) fn metadata() -> String {
    r#"{"icon": "icon.svg", "ui": {"dashboard-tab": {"title": "Test", "root": "ui", "src": "index.html"}},
        "vm": {"image": "${DESKTOP_PLUGIN_IMAGE}", "exposes": {"socket": "backend.sock"}}}"#
        .to_owned()
}

/// Debian's static busybox, with a shell and the usual programs.
pub(crate) fn busybox() -> Vec<u8> {
    let path = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::read(path.expect("the tests need busybox-static; `make test` installs it")).unwrap()
}

/// The static backend of the hello extension, compiled once.
pub(crate) fn hello_backend() -> Vec<u8> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hello-backend");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello-extension/backend/main.rs");
        let modified = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
        if modified(&target) < modified(&source) {
            // Tests run in processes of their own, at once: whoever is last puts the same file in place. rustc leaves
            // files of its own beside the program meanwhile.
            let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            let partial = scratch.path().join("hello_backend");
            let mut rustc = Command::new("rustc");
            rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static"]);
            assert!(rustc.arg("-o").arg(&partial).arg(source).status().unwrap().success());
            fs::rename(partial, &target).unwrap();
        }
        target
    });
    fs::read(built).unwrap()
}

/// An image under construction: a root file system and its configuration.
pub(crate) struct ImageBuilder {
    archive: tar::Builder<Vec<u8>>,
    /// By path: what is given twice replaces what was given first.
    files: Vec<(String, Vec<u8>, u32)>,
    changes: Vec<String>,
    labels: HashMap<String, String>,
}

/// An image in an engine; its name is removed when dropped.
pub(crate) struct Image {
    engine: EngineAt,
    /// Its reference, `longshore-test/…:1`.
    pub(crate) reference: String,
    /// The id of the extension in it.
    pub(crate) id: String,
    /// Its content id, which it keeps when another image takes its name.
    pub(crate) content: String,
}

impl Image {
    /// Begins an image with the four core labels and nothing in it.
    pub(crate) fn builder() -> ImageBuilder {
        let labels = [
            ("org.opencontainers.image.title", "Test"),
            ("org.opencontainers.image.description", "A test"),
            ("org.opencontainers.image.vendor", "Longshore"),
            ("com.docker.desktop.extension.api.version", ">= 0.3.0"),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        ImageBuilder {
            archive: tar::Builder::new(Vec::new()),
            files: vec![],
            changes: vec![],
            labels: HashMap::from(labels),
        }
    }

    /// Manifest, UI and icon of an extension that exposes `backend.sock`, and no program.
    pub(crate) fn plain() -> ImageBuilder {
        Image::with_manifest(&metadata())
    }

    /// The same with a manifest of one's own.
    pub(crate) fn with_manifest(manifest: &str) -> ImageBuilder {
        Image::builder().file("metadata.json", manifest, 0o644).file("ui/index.html", "<h1>hello</h1>", 0o644).file(
            "icon.svg",
            "<svg xmlns='http://www.w3.org/2000/svg'/>",
            0o644,
        )
    }

    /// An extension with a shell whose container does nothing, and exposes `backend.sock`.
    pub(crate) fn sleeping() -> ImageBuilder {
        Image::plain().busybox().change(
            // The first process of a container is not ended by a signal that it does not handle.
            r#"CMD ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 86400 & wait $!; done"]"#,
        )
    }

    /// An extension with a UI and the hello backend on `backend.sock`, as `vm.image`.
    pub(crate) fn hello() -> ImageBuilder {
        Image::plain()
            .file("hello-backend", hello_backend(), 0o755)
            .change(r#"CMD ["/hello-backend", "serve", "--socket", "/run/guest-services/backend.sock"]"#)
    }
}

impl ImageBuilder {
    /// Adds a file.
    pub(crate) fn file(mut self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Self {
        self.files.retain(|(known, ..)| known != path);
        self.files.push((path.to_owned(), content.as_ref().to_vec(), mode));
        self
    }

    /// Adds a symbolic link.
    pub(crate) fn link(mut self, path: &str, target: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        self.archive.append_link(&mut header, path, target).unwrap();
        self
    }

    /// Adds busybox with a shell.
    pub(crate) fn busybox(mut self) -> Self {
        self = self.file("bin/busybox", busybox(), 0o755);
        for name in
            ["sh", "ls", "cat", "sleep", "id", "ln", "mkdir", "rm", "echo", "env", "touch", "kill", "chmod", "mv"]
        {
            self = self.link(&format!("bin/{name}"), "busybox");
        }
        self
    }

    /// Adds a line such as `USER 1000`, as `docker import --change` takes it.
    pub(crate) fn change(mut self, line: &str) -> Self {
        self.changes.push(line.to_owned());
        self
    }

    /// Sets a label.
    pub(crate) fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Lays the files out in a directory, as an author has them; configuration and labels are lost.
    pub(crate) fn lay_out(mut self, directory: &Path) {
        self.pack();
        tar::Archive::new(&self.archive.into_inner().unwrap()[..]).unpack(directory).unwrap();
    }

    /// Makes the image under a name of its own.
    pub(crate) async fn build(self) -> Image {
        self.build_in(&EngineAt::default()).await
    }

    /// Makes the image under a name of its own, in this engine.
    pub(crate) async fn build_in(self, engine: &EngineAt) -> Image {
        self.build_version_in(engine, &format!("longshore-test/{}", unique("ext")), "1").await
    }

    /// Makes the image as `id:1`.
    pub(crate) async fn build_as(self, id: &str) -> Image {
        self.build_version(id, "1").await
    }

    /// Makes the image as `id:version`.
    pub(crate) async fn build_version(self, id: &str, version: &str) -> Image {
        self.build_version_in(&EngineAt::default(), id, version).await
    }

    /// The same, in this engine.
    pub(crate) async fn build_version_in(mut self, engine: &EngineAt, id: &str, version: &str) -> Image {
        self.pack();
        let labels = self.labels.iter().map(|(name, value)| format!("LABEL {name}={value:?}"));
        let changes: Vec<String> = self.changes.iter().cloned().chain(labels).collect();
        // By the CLI: bollard joins the changes into one, which only Docker takes apart again.
        let reference = format!("{id}:{version}");
        // Podman's would be one image with another test's of the same content and second, and removed with that by force.
        let mut import = engine.cli(&["import", "--message", &unique("made")]);
        for change in &changes {
            import.args(["--change", change]);
        }
        let mut import = import.args(["-", &reference]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        import.stdin.take().unwrap().write_all(&self.archive.into_inner().unwrap()).unwrap();
        assert!(import.wait().unwrap().success(), "docker import {reference}");
        let content = engine.client().inspect_image(&reference).await.unwrap().id.unwrap();
        Image { engine: engine.clone(), reference, id: id.to_owned(), content }
    }

    /// Puts the files into the archive.
    fn pack(&mut self) {
        for (path, content, mode) in std::mem::take(&mut self.files) {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(mode);
            self.archive.append_data(&mut header, path, &content[..]).unwrap();
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let names = [self.reference.clone(), self.content.clone()];
        let engine = self.engine.clone();
        let remove = async move {
            for name in &names {
                let options = RemoveImageOptionsBuilder::default().force(true).build();
                let _ = engine.client().remove_image(name, Some(options), None).await;
            }
        };
        // A runtime of its own: the test's may be one that is ending.
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = std::thread::spawn(move || runtime().block_on(remove)).join();
    }
}
