//! An extension with a container on the machine's engine, and the broker that runs it; removed when dropped.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use longshore::{
    model::reference::ExtensionId,
    pb::{self, extension_service_client::ExtensionServiceClient, grant_service_client::GrantServiceClient},
};

use crate::{
    Outcome,
    load::{self, Line},
    peers::{self, Process, serve},
};

/// The machine's engine, as tests/setup/engine.sh starts it.
pub(crate) const ENGINE: &str = "/var/run/docker.sock";
/// The first process of a container is not ended by a signal that it does not handle.
const COMMAND: &str = r#"CMD ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 86400 & wait $!; done"]"#;
const MANIFEST: &str = r#"{"icon": "icon.svg", "ui": {"dashboard-tab": {"title": "Bench", "root": "ui", "src": "index.html"}},
    "vm": {"image": "${DESKTOP_PLUGIN_IMAGE}"}}"#;
/// The same with the bench's backend, which ends with its input.
const SERVING_COMMAND: &str =
    r#"CMD ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 86400 | /bench backend /run/guest-services & wait"]"#;
const SERVING_MANIFEST: &str = r#"{"icon": "icon.svg",
    "ui": {"dashboard-tab": {"title": "Bench", "root": "ui", "src": "index.html"}},
    "vm": {"image": "${DESKTOP_PLUGIN_IMAGE}", "exposes": {"socket": "backend-http.sock"}}}"#;

/// A broker and its extension.
pub(crate) struct Site {
    /// Its end comes after that of the extension, which [`Drop`] has it remove.
    _process: Process,
    home: PathBuf,
    /// The broker's socket.
    pub(crate) socket: PathBuf,
    /// Id of the extension, which its image is named after.
    pub(crate) extension: String,
    /// Id of its container.
    pub(crate) container: String,
}

impl Site {
    /// An extension whose container only sleeps.
    pub(crate) async fn start(directory: &Path) -> Outcome<Site> {
        Site::make(directory.join("e"), format!("longshore-bench/{}", process::id()), "auto", false).await
    }

    /// The extension that calls go to, whose container has the backend; the broker takes the engine's files for that.
    pub(crate) async fn serving(home: PathBuf, files: &str) -> Outcome<Site> {
        Site::make(home, load::EXTENSION.to_owned(), files, true).await
    }

    /// Makes the image, starts the broker and installs.
    async fn make(home: PathBuf, extension: String, files: &str, serves: bool) -> Outcome<Site> {
        fs::create_dir(&home)?;
        let (process, socket) = serve(&home, Path::new(ENGINE), &["--engine-files", files])?;
        let mut site = Site { _process: process, home, socket, extension, container: String::new() };
        make_image(&site.reference(), serves)?;
        let line = load::line(&site.socket, true).await?;
        install(line.clone(), site.reference()).await?;
        let mut grants = GrantServiceClient::with_origin(line, load::origin());
        let allow = vec!["engine.full".to_owned()];
        let request = pb::GrantServiceSetRequest { extension: site.extension.clone(), allow, ..Default::default() };
        grants.set(request).await?;
        site.container = docker(&["ps", "-q", "--no-trunc", "--filter", &site.label()])?;
        if site.container.lines().count() == 1 { Ok(site) } else { Err("the extension has no container".into()) }
    }

    /// The socket by which the extension uses the engine.
    pub(crate) fn gateway(&self) -> Outcome<PathBuf> {
        let directory = self.home.join("data/extensions").join(self.extension.parse::<ExtensionId>()?.slug());
        let socket = directory.join("broker/docker.sock");
        if socket.exists() { Ok(socket) } else { Err("the extension has no engine socket".into()) }
    }

    /// Its directories.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Another name of its image, which is not installed, and the id of the extension it would be.
    pub(crate) fn other_reference(&self) -> Outcome<(String, String)> {
        let extension = format!("{}-other", self.extension);
        let reference = format!("{extension}:1");
        docker(&["tag", &self.reference(), &reference])?;
        Ok((reference, extension))
    }

    fn reference(&self) -> String {
        format!("{}:1", self.extension)
    }

    fn label(&self) -> String {
        format!("label=dev.longshore.extension={}", self.extension)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let mut remove = Command::new(peers::binary());
        remove.arg("--socket").arg(&self.socket).args(["rm", "--volumes", &self.extension]);
        let _ = remove.stdin(Stdio::null()).output();
        // Where the broker could not.
        let label = self.label();
        for (list, remove) in
            [(&["ps", "-aq"][..], &["rm", "-fv"][..]), (&["network", "ls", "-q"][..], &["network", "rm"][..])]
        {
            let found = docker(&[list, &["--filter", &label]].concat()).unwrap_or_default();
            let found: Vec<_> = found.lines().collect();
            if !found.is_empty() {
                let _ = docker(&[remove, &found].concat());
            }
        }
        let other = format!("{}-other:1", self.extension);
        let _ = docker(&["image", "rm", "-f", &self.reference(), &other]);
    }
}

/// Installs an image that the engine has.
pub(crate) async fn install(line: Line, reference: String) -> Outcome<()> {
    let image = pb::ImageSource { reference, pull: pb::PullPolicy::Never.into() };
    let source = Some(pb::Source { source: Some(pb::source::Source::Image(image)) });
    let mut extensions = ExtensionServiceClient::with_origin(line, load::origin());
    let request = pb::InstallRequest { source, trust: true, ..Default::default() };
    let mut steps = extensions.install(request).await?.into_inner();
    while steps.message().await?.is_some() {}
    Ok(())
}

/// The docker command line at the machine's engine.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(args).env("DOCKER_HOST", format!("unix://{ENGINE}")).env_remove("DOCKER_CONTEXT");
    command.stdin(Stdio::null());
    command
}

/// What it says.
pub(crate) fn docker(args: &[&str]) -> Outcome<String> {
    said(args, &command(args).output().map_err(missing)?)
}

fn said(args: &[&str], output: &process::Output) -> Outcome<String> {
    if !output.status.success() {
        return Err(format!("docker {args:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn missing(error: std::io::Error) -> String {
    format!("docker does not start ({error}); run tests/setup/engine.sh")
}

/// An extension of Debian's static busybox, and of this program where it serves.
fn make_image(reference: &str, serves: bool) -> Outcome<()> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = fs::read(busybox.ok_or("there is no busybox; run tests/setup/engine.sh")?)?;
    let mut archive = tar::Builder::new(Vec::new());
    let (manifest, command) = if serves { (SERVING_MANIFEST, SERVING_COMMAND) } else { (MANIFEST, COMMAND) };
    let bench = if serves { fs::read(std::env::current_exe()?)? } else { Vec::new() };
    let files: [(&str, &[u8], u32); 5] = [
        ("bin/busybox", &busybox, 0o755),
        ("bench", &bench, 0o755),
        ("metadata.json", manifest.as_bytes(), 0o644),
        ("ui/index.html", b"<h1>bench</h1>", 0o644),
        ("icon.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", 0o644),
    ];
    for (path, content, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        archive.append_data(&mut header, path, content)?;
    }
    for name in ["sh", "sleep", "true", "dd"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        archive.append_link(&mut header, format!("bin/{name}"), "busybox")?;
    }
    let mut args = vec!["import".to_owned(), "--change".into(), command.into()];
    for (name, value) in [
        ("org.opencontainers.image.title", "Bench"),
        ("org.opencontainers.image.description", "A bench"),
        ("org.opencontainers.image.vendor", "Longshore"),
        ("com.docker.desktop.extension.api.version", ">= 0.3.0"),
    ] {
        args.extend(["--change".into(), format!("LABEL {name}={value:?}")]);
    }
    args.extend(["-".into(), reference.into()]);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let mut command = self::command(&args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(missing)?;
    child.stdin.take().ok_or("docker has no input")?.write_all(&archive.into_inner()?)?;
    said(&args, &child.wait_with_output()?).map(drop)
}
