//! The processes that are measured: the backend, Longshore, and the proxies it is compared with.

use std::{
    env, fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use longshore::{
    backend::{self, Backend, Registration},
    pb::{self, extension_service_client::ExtensionServiceClient},
};
use rustix::process::{Pid, Signal, kill_process};
use tonic::transport::{Channel, Endpoint};

use crate::{
    Outcome,
    load::{EXTENSION, Speech, Way},
    settings::Settings,
};

/// Time that a process gets until it listens, and until it has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process, ended when dropped.
pub(crate) struct Process {
    child: Child,
}

/// One that carries calls to the backend: a proxy, Longshore, or nobody.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// Where its HTTP calls go.
    pub(crate) http: Way,
    /// Where its gRPC calls go, if it carries any.
    pub(crate) grpc: Option<Way>,
    /// What of it runs beside the backend and the brokers.
    _process: Option<Process>,
}

/// A Longshore process whose extension's backend is the bench's.
pub(crate) struct Broker {
    process: Process,
    pub(crate) socket: PathBuf,
    /// Held: the backend is its own again when it ends.
    _registration: Registration,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts a process and waits until it listens on all the sockets.
    fn start(mut command: Command, log: &Path, sockets: &[PathBuf]) -> Outcome<Process> {
        let output = fs::File::create(log)?;
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|error| {
            format!(
                "{program} does not start ({error}); tests/setup/peers.sh installs nginx, HAProxy, Envoy and Node.js"
            )
        })?;
        let mut process = Process { child };
        let begun = Instant::now();
        while !sockets.iter().all(|socket| UnixStream::connect(socket).is_ok()) {
            let ended = process.child.try_wait()?;
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let said = fs::read_to_string(log).unwrap_or_default();
                return Err(format!("{program} does not listen ({ended:?}): {said}").into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        drop(self.child.stdin.take());
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The backend; its sockets are in the directory.
pub(crate) fn backend(directory: &Path) -> Outcome<Process> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("backend").arg(directory);
    let sockets = ["http", "grpc"].map(|speech| directory.join(format!("backend-{speech}.sock")));
    Process::start(command, &directory.join("backend.log"), &sockets)
}

/// All that are compared, direct connection and Longshore first; one broker carries HTTP, the other gRPC.
pub(crate) fn contenders(
    directory: &Path,
    settings: &Settings,
    http: &Broker,
    grpc: &Broker,
) -> Outcome<Vec<Contender>> {
    let of = |broker: &Broker, speech| Way { speech, socket: broker.socket.clone(), pid: Some(broker.pid()) };
    let mut all = vec![
        Contender {
            name: "direct",
            http: way(directory, "backend", Speech::Http, None),
            grpc: Some(way(directory, "backend", Speech::Grpc, None)),
            _process: None,
        },
        Contender {
            name: "Longshore",
            http: of(http, Speech::Broker),
            grpc: Some(of(grpc, Speech::Grpc)),
            _process: None,
        },
    ];
    all.retain(|contender| settings.measures(contender.name));
    for (name, program, configuration, speaks_grpc) in [
        ("nginx", "nginx", "nginx.conf", true),
        ("HAProxy", "haproxy", "haproxy.cfg", true),
        ("Envoy", "envoy", "envoy.yaml", true),
        ("Node.js", "node", "node.js", false),
    ] {
        if !settings.measures(name) {
            continue;
        }
        let command = peer(program, &configured(directory, configuration)?, directory);
        let speeches = if speaks_grpc { &[Speech::Http, Speech::Grpc][..] } else { &[Speech::Http] };
        let sockets: Vec<_> = speeches.iter().map(|speech| way(directory, program, *speech, None).socket).collect();
        let process = Process::start(command, &directory.join(format!("{program}.log")), &sockets)?;
        let pid = Some(process.pid());
        all.push(Contender {
            name,
            http: way(directory, program, Speech::Http, pid),
            grpc: speaks_grpc.then(|| way(directory, program, Speech::Grpc, pid)),
            _process: Some(process),
        });
    }
    Ok(all)
}

fn way(directory: &Path, program: &str, speech: Speech, pid: Option<u32>) -> Way {
    let speaks = if speech == Speech::Grpc { "grpc" } else { "http" };
    Way { speech, socket: directory.join(format!("{program}-{speaks}.sock")), pid }
}

fn peer(program: &str, configuration: &Path, directory: &Path) -> Command {
    let mut command = match program {
        "envoy" => Command::new(target("peers/bin/envoy")),
        "node" => Command::new("node"),
        other => Command::new(system_program(other)),
    };
    match program {
        "nginx" => command.args(["-e", "stderr", "-c"]).arg(configuration),
        "haproxy" => command.args(["-db", "-f"]).arg(configuration),
        "envoy" => {
            command.args(["--concurrency", "2", "--disable-hot-restart", "-l", "error", "-c"]).arg(configuration)
        }
        _ => command.arg(configuration).arg(directory),
    };
    command
}

/// Debian puts servers where a plain user's PATH does not lead.
fn system_program(name: &str) -> PathBuf {
    let usual = Path::new("/usr/sbin").join(name);
    if usual.exists() { usual } else { name.into() }
}

fn configured(directory: &Path, name: &str) -> Outcome<PathBuf> {
    let text = fs::read_to_string(repository("benches/peers").join(name))?;
    let path = directory.join(name);
    fs::write(&path, text.replace("@DIR@", &directory.display().to_string()))?;
    Ok(path)
}

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Something that a script in `tests/setup` installed.
pub(crate) fn target(path: &str) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository("target"), PathBuf::from).join(path)
}

impl Broker {
    /// Starts a broker without an engine, with one extension for whose backend that socket stands in.
    pub(crate) async fn start(directory: &Path, name: &str, backend: &Path) -> Outcome<Broker> {
        let home = directory.join(name);
        fs::create_dir(&home)?;
        let (process, socket) = serve(&home, Path::new("/nonexistent"), &[])?;
        let channel = channel(&socket).await?;
        install_page(channel.clone(), &home, EXTENSION).await?;
        let socket_of_backend = backend.display().to_string();
        let registration = Backend::new("bench")
            .at(registration_socket(channel, EXTENSION).await?)
            .offering(backend::Endpoint::http1("http", socket_of_backend.clone()))
            .offering(backend::Endpoint::grpc("grpc", socket_of_backend))
            .register();
        registration.registered().await?;
        Ok(Broker { process, socket, _registration: registration })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// The broker as it is shipped, where `BENCH_BROKER` names it. The one that is built with the bench has what the tests want
/// of its libraries.
pub(crate) fn binary() -> PathBuf {
    env::var_os("BENCH_BROKER").map_or_else(|| env!("CARGO_BIN_EXE_longshore").into(), PathBuf::from)
}

/// Starts a broker with its directories in `home`, for the engine at that socket.
pub(crate) fn serve(home: &Path, engine: &Path, args: &[&str]) -> Outcome<(Process, PathBuf)> {
    let socket = home.join("run/longshore.sock");
    let mut command = Command::new(binary());
    command.arg("serve").arg("--socket").arg(&socket).arg("--data-dir").arg(home.join("data"));
    command.arg("--runtime-dir").arg(home.join("run")).args(["--log", "warn"]);
    command.arg("--engine").arg(format!("unix://{}", engine.display())).args(args);
    command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("HOME", home);
    let process = Process::start(command, &home.join("log"), std::slice::from_ref(&socket))?;
    Ok((process, socket))
}

/// A client's connection.
pub(crate) async fn channel(socket: &Path) -> Outcome<Channel> {
    Ok(Endpoint::from_shared(format!("unix:{}", socket.display()))?.connect().await?)
}

/// Where a process on the host registers as an extension's backend.
pub(crate) async fn registration_socket(channel: Channel, extension: &str) -> Outcome<String> {
    let request = pb::ExtensionServiceGetRequest { extension: extension.into() };
    let found = ExtensionServiceClient::new(channel).get(request).await?.into_inner().extension;
    Ok(found.ok_or("no extension")?.registration_socket)
}

/// Installs an extension that is a page and nothing else.
pub(crate) async fn install_page(channel: Channel, home: &Path, extension: &str) -> Outcome<()> {
    let root = home.join("extension");
    fs::create_dir_all(root.join("ui"))?;
    fs::write(root.join("ui/index.html"), "<h1>bench</h1>")?;
    fs::write(root.join("icon.svg"), "<svg xmlns='http://www.w3.org/2000/svg'/>")?;
    let tab = r#"{"title": "Bench", "root": "ui", "src": "index.html"}"#;
    fs::write(root.join("metadata.json"), format!(r#"{{"icon": "icon.svg", "ui": {{"dashboard-tab": {tab}}}}}"#))?;
    let source = pb::DirectorySource { path: root.display().to_string(), reference: format!("{extension}:1") };
    let source = Some(pb::Source { source: Some(pb::source::Source::Directory(source)) });
    let request = pb::InstallRequest { source, trust: true, ..Default::default() };
    let mut client = pb::extension_service_client::ExtensionServiceClient::new(channel);
    let mut steps = client.install(request).await?.into_inner();
    while steps.message().await?.is_some() {}
    Ok(())
}
