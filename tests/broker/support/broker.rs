//! A broker process with directories of its own.

use std::{
    ffi::OsString,
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use longshore::pb::{
    self, backend_service_client::BackendServiceClient, event_service_client::EventServiceClient,
    exec_service_client::ExecServiceClient, extension_service_client::ExtensionServiceClient,
    grant_service_client::GrantServiceClient, ownership_service_client::OwnershipServiceClient,
    session_service_client::SessionServiceClient, system_service_client::SystemServiceClient,
};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{EngineAt, small_disk::SmallDisk};

/// The plain user of tests. It has no name on the machine and needs none.
pub(crate) const PLAIN_UID: u32 = 64_321;
/// Longest time that a broker may take to answer.
const START: Duration = Duration::from_secs(20);

/// The group that may use the engine's socket.
pub(crate) fn docker_gid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/var/run/docker.sock").expect("the tests need an engine at /var/run/docker.sock").gid()
}

/// How a broker is started.
#[derive(Debug, Default)]
pub(crate) struct BrokerOptions {
    /// Run as the plain user in the engine's group, instead of as ourselves.
    pub(crate) plain: bool,
    /// An engine other than the machine's.
    pub(crate) engine: Option<EngineAt>,
    /// Its address for the broker, where that is not its socket.
    pub(crate) engine_url: Option<String>,
    /// Arguments after `serve --socket … --data-dir … --runtime-dir …`.
    pub(crate) args: Vec<OsString>,
    /// Variables added to a nearly empty environment.
    pub(crate) env: Vec<(String, String)>,
}

impl BrokerOptions {
    /// Whether it takes its engine for one elsewhere.
    fn is_apart(&self) -> bool {
        let is_far = self.engine_url.as_ref().is_some_and(|url| url.starts_with("ssh:"));
        is_far || self.args.iter().any(|arg| arg == "--engine-files=apart")
    }
}

/// The program without what debuggers want of it, which is most: it is put into a volume for each engine elsewhere.
fn stripped() -> PathBuf {
    let whole = Path::new(env!("CARGO_BIN_EXE_longshore"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("longshore-stripped");
    let modified = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    if modified(&target) < modified(whole) {
        // Whoever is last of the tests that run at once puts the same in place.
        let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let partial = scratch.path().join("program");
        assert!(Command::new("strip").arg("-o").arg(&partial).arg(whole).status().unwrap().success());
        fs::rename(partial, &target).unwrap();
    }
    target
}

/// A running broker; killed and its directories removed when dropped.
pub(crate) struct Broker {
    directory: TempDir,
    options: BrokerOptions,
    process: Option<Child>,
    disk: Option<SmallDisk>,
}

impl Broker {
    /// Starts a broker as ourselves and waits until it answers.
    pub(crate) async fn start() -> Broker {
        Broker::start_with(BrokerOptions::default()).await
    }

    /// Starts a broker as a plain user of the engine.
    pub(crate) async fn start_plain() -> Broker {
        Broker::start_with(BrokerOptions { plain: true, ..Default::default() }).await
    }

    /// Starts a broker and waits until it answers.
    pub(crate) async fn start_with(options: BrokerOptions) -> Broker {
        let mut broker = Broker::prepare(options);
        broker.restart().await;
        broker
    }

    /// Directories without a process.
    pub(crate) fn prepare(options: BrokerOptions) -> Broker {
        let directory = tempfile::Builder::new().prefix("longshore-test-").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // The plain user may not be able to reach the place that the tests were built in.
        // By another process: a child of a test beside this one could keep a descriptor of ours, and the file busy.
        let program = if options.is_apart() { stripped() } else { env!("CARGO_BIN_EXE_longshore").into() };
        let copied = Command::new("cp").arg(program).arg(directory.path().join("longshore")).status();
        assert!(copied.unwrap().success());
        let home = directory.path().join("home");
        fs::create_dir(&home).unwrap();
        if options.plain {
            std::os::unix::fs::chown(&home, Some(PLAIN_UID), Some(PLAIN_UID)).unwrap();
        }
        Broker { directory, options, process: None, disk: None }
    }

    /// Starts the process (again) on the same directories.
    pub(crate) async fn restart(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let before = self.times_serving();
        self.process = Some(self.command().spawn().unwrap());
        let begun = Instant::now();
        while UnixStream::connect(self.socket()).await.is_err() {
            let exited = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(
                exited.is_none() && begun.elapsed() < START,
                "the broker does not start: {exited:?}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The socket is there before what is behind it.
        while self.logs_as_usual() && self.times_serving() == before && begun.elapsed() < START {
            if self.process.as_mut().unwrap().try_wait().unwrap().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn logs_as_usual(&self) -> bool {
        let says_how = |text: &str| text.starts_with("LONGSHORE_LOG") || text.starts_with("--log");
        let mut words = self.options.env.iter().map(|(name, _)| name.as_str());
        !words.any(says_how) && !self.options.args.iter().any(|word| word.to_str().is_some_and(says_how))
    }

    /// How often it has said that it serves.
    fn times_serving(&self) -> usize {
        self.log().matches("longshore::app: serving").count()
    }

    /// The command that starts it, its log going to a file.
    pub(crate) fn command(&self) -> Command {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        let mut command = if self.options.plain {
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={PLAIN_UID}"), format!("--regid={PLAIN_UID}")]);
            command.arg(format!("--groups={}", docker_gid())).arg(self.binary());
            command
        } else if let Some(disk) = &self.disk {
            let mut command = disk.command();
            command.arg(self.binary());
            command
        } else {
            Command::new(self.binary())
        };
        command.arg("serve").arg("--socket").arg(self.socket());
        command.arg("--data-dir").arg(self.data_dir()).arg("--runtime-dir").arg(self.runtime_dir());
        let engine = self.options.engine.as_ref().map(EngineAt::url);
        if let Some(url) = self.options.engine_url.clone().or(engine) {
            command.arg("--engine").arg(url);
        }
        command.args(&self.options.args).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.home());
        command.env("LONGSHORE_LOG", "longshore=debug,info").envs(self.options.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        command
    }

    /// Has a broker that does not run yet keep its data on a disk of `mib` MiB.
    pub(crate) fn on_small_disk(&mut self, mib: u32) {
        self.disk = Some(SmallDisk::at(&self.data_dir(), mib));
    }

    /// The small disk under its data.
    pub(crate) fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("it is on a small disk")
    }

    /// Lets it die at a step of the journal from its next start on, or no more.
    pub(crate) fn set_failpoint(&mut self, point: Option<&str>) {
        const NAME: &str = "FAILPOINT";
        self.options.env.retain(|(name, _)| name != NAME);
        self.options.env.extend(point.map(|point| (NAME.to_owned(), point.to_owned())));
    }

    /// Waits until it has died by itself.
    pub(crate) async fn died(&mut self) {
        let mut process = self.process.take().expect("it runs");
        let begun = Instant::now();
        while process.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < START, "it does not die:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A copy of the program that the broker's user can run.
    pub(crate) fn binary(&self) -> PathBuf {
        self.directory.path().join("longshore")
    }

    /// The control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime_dir().join("longshore.sock")
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home().join("data")
    }

    /// The runtime directory.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.home().join("run")
    }

    /// The home directory of the broker's user.
    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// A directory that goes with the broker.
    pub(crate) fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// The memory it holds now.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS:")
    }

    /// The most memory it has held at a time.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// How often its threads have gone to sleep and woken up so far.
    pub(crate) fn wake_ups(&self) -> u64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let of = |thread: fs::DirEntry| {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            line.map_or(0, |count| count.trim().parse::<u64>().unwrap())
        };
        threads.map(|thread| of(thread.unwrap())).sum()
    }

    /// Kills it with -9.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(self.process.as_ref().expect("it runs"));
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for the end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        tokio::task::spawn_blocking(move || process.wait().unwrap()).await.unwrap()
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.ended().await
    }

    /// Whether it takes its engine for one elsewhere.
    pub(crate) fn is_apart(&self) -> bool {
        self.options.is_apart()
    }

    /// Its engine.
    pub(crate) fn engine(&self) -> EngineAt {
        self.options.engine.clone().unwrap_or_default()
    }

    /// The command line on this broker's socket.
    pub(crate) fn cli(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.binary());
        command.arg("--socket").arg(self.socket()).args(args);
        command.env_remove("LONGSHORE_SOCKET").stdin(Stdio::null());
        command
    }

    /// A new connection.
    pub(crate) async fn channel(&self) -> Channel {
        channel(&self.socket()).await
    }

    pub(crate) async fn extensions(&self) -> ExtensionServiceClient<Channel> {
        ExtensionServiceClient::new(self.channel().await)
    }

    pub(crate) async fn backends(&self) -> BackendServiceClient<Channel> {
        BackendServiceClient::new(self.channel().await).max_decoding_message_size(70 << 20)
    }

    pub(crate) async fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel().await)
    }

    pub(crate) async fn exec(&self) -> ExecServiceClient<Channel> {
        ExecServiceClient::new(self.channel().await)
    }

    pub(crate) async fn ownership(&self) -> OwnershipServiceClient<Channel> {
        OwnershipServiceClient::new(self.channel().await)
    }

    pub(crate) async fn grants(&self) -> GrantServiceClient<Channel> {
        GrantServiceClient::new(self.channel().await)
    }

    pub(crate) async fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.channel().await)
    }

    pub(crate) async fn system(&self) -> SystemServiceClient<Channel> {
        SystemServiceClient::new(self.channel().await)
    }

    /// Installs, to the end of the stream.
    pub(crate) async fn install(&self, request: pb::InstallRequest) -> Result<pb::Extension, Status> {
        let mut events = self.extensions().await.install(request).await?.into_inner();
        while let Some(event) = events.message().await? {
            if let Some(pb::install_response::Event::Installed(extension)) = event.event {
                assert!(events.message().await?.is_none(), "nothing comes behind `installed`");
                return Ok(extension);
            }
        }
        panic!("the stream ended without `installed`")
    }

    /// Updates, to the end of the stream.
    pub(crate) async fn update(&self, request: pb::UpdateRequest) -> Result<pb::Updated, Status> {
        let mut events = self.extensions().await.update(request).await?.into_inner();
        while let Some(event) = events.message().await? {
            if let Some(pb::update_response::Event::Updated(updated)) = event.event {
                assert!(events.message().await?.is_none(), "nothing comes behind `updated`");
                return Ok(updated);
            }
        }
        panic!("the stream ended without `updated`")
    }

    /// One extension.
    pub(crate) async fn extension(&self, id: &str) -> Result<pb::Extension, Status> {
        let request = pb::ExtensionServiceGetRequest { extension: id.to_owned() };
        Ok(self.extensions().await.get(request).await?.into_inner().extension.unwrap())
    }

    /// Uninstalls.
    pub(crate) async fn uninstall(&self, id: &str, volumes: bool) -> Result<pb::UninstallResponse, Status> {
        let request = pb::UninstallRequest { extension: id.to_owned(), volumes };
        Ok(self.extensions().await.uninstall(request).await?.into_inner())
    }

    /// GET on an extension's backend.
    pub(crate) async fn get(&self, id: &str, path: &str) -> Result<pb::FetchResponse, Status> {
        let start_wait = Some(prost_types::Duration { seconds: 10, nanos: 0 });
        let request =
            pb::FetchRequest { extension: id.to_owned(), path: path.to_owned(), start_wait, ..Default::default() };
        Ok(self.backends().await.fetch(request).await?.into_inner())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Not -9: its programs and half-done work end with it in order.
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_child(&process),
                rustix::process::Signal::TERM,
            );
            let begun = Instant::now();
            while process.try_wait().is_ok_and(|exited| exited.is_none()) && begun.elapsed() < START {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the broker\n{}", self.log());
        }
    }
}

/// A new connection to a socket.
pub(crate) async fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}
