//! An engine of a test's own, to be killed, restarted and filled: the machine's is shared and stays as it is.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{BrokerOptions, EngineAt, on_podman};

/// Longest time that an engine may take to answer.
const START: Duration = Duration::from_secs(60);
/// Written behind each command's output by the shell that runs it.
const DONE: &str = "-- done --";

/// Where Podman keeps everything, and the settings that tests/setup/on-engine.sh has too.
const PODMAN: &str = r#"
mkdir -p networks /var/lib/containers && mount --bind data /var/lib/containers && cat >containers.conf <<END
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_config_dir = "$PWD/networks"
END
"#;

/// A `dockerd`, or Podman where the tests run on it, with all that is its own: network, mounts, processes, data and socket. What runs in it ends with this
/// value, containers included, however the test ends. Commands block the calling thread.
pub(crate) struct PrivateEngine {
    directory: TempDir,
    /// The first process of its process namespace; everything in there dies with it, and it ends with our end of its
    /// standard input.
    shell: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    runs: bool,
    /// What its dockerd is told besides.
    options: String,
}

impl PrivateEngine {
    /// Starts an engine and waits until it answers.
    pub(crate) async fn start() -> Self {
        let mut engine = Self::prepare(None);
        engine.launch().await;
        engine
    }

    /// The same with a disk of its own of `mib` MiB, in memory.
    pub(crate) async fn start_on_small_disk(mib: u32) -> Self {
        let mut engine = Self::prepare(Some(mib));
        engine.launch().await;
        engine
    }

    /// The place for an engine that does not run yet; on a disk of its own of `disk_mib` MiB, where given.
    pub(crate) fn prepare(disk_mib: Option<u32>) -> Self {
        let directory = tempfile::Builder::new().prefix("longshore-engine-").tempdir().unwrap();
        // Plain users reach the socket.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(directory.path().join("data")).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "bash", "-s"]);
        let mut shell = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let commands = shell.stdin.take();
        let answers = BufReader::new(shell.stdout.take().unwrap());
        let mut engine = PrivateEngine { directory, shell, commands, answers, runs: false, options: String::new() };
        engine.sh(
            "PATH=$PATH:/usr/sbin:/sbin; mount -t proc proc /proc && mount -t tmpfs tmpfs /run && ip link set lo up",
        );
        engine.sh(&format!("cd '{}'", engine.directory.path().display()));
        if let Some(mib) = disk_mib {
            engine.sh(&format!("mount -t tmpfs -o size={mib}m tmpfs data"));
        }
        if on_podman() {
            engine.sh(PODMAN);
        }
        engine
    }

    /// Starts the engine (again) on the same data, and waits until it answers.
    pub(crate) async fn launch(&mut self) {
        assert!(!self.runs, "it runs already");
        // State of running things goes to /run, which is private.
        let start = match on_podman() {
            true => {
                "TMPDIR=$PWD CONTAINERS_CONF=$PWD/containers.conf podman system service --time=0 unix://$PWD/docker.sock"
            }
            false => "dockerd --log-level warn --host unix://$PWD/docker.sock --data-root $PWD/data",
        };
        let start = format!("{start} {} >>log 2>&1 & engine=$!", self.options);
        self.sh(&start);
        self.runs = true;
        let begun = Instant::now();
        let socket = self.at().path().to_owned();
        while !socket.exists() || self.at().client().ping().await.is_err() {
            assert!(begun.elapsed() < START, "the engine does not start:\n{}", self.log());
            // On a busy machine it may give up on its containerd, which it waits for for 15 s only.
            if self.sh("jobs -r").is_empty() {
                self.sh(&start);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts one that listens on a port of its own network too, for those that `certificates` (`ca.pem`, `cert.pem`,
    /// `key.pem`) vouches for.
    pub(crate) async fn start_with_tls(certificates: &Path, port: u16) -> Self {
        let mut engine = Self::prepare(None);
        let file = |name: &str| certificates.join(name).display().to_string();
        let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
        engine.options =
            format!("--host tcp://127.0.0.1:{port} --tlsverify --tlscacert {ca} --tlscert {cert} --tlskey {key}");
        engine.launch().await;
        engine
    }

    /// A connection to a port of its own network.
    pub(crate) fn connector(&self, port: u16) -> impl Fn() -> std::io::Result<TcpStream> + Send + Sync + 'static {
        let network = format!("/proc/{}/ns/net", self.shell.id());
        move || {
            let network = fs::File::open(&network)?;
            // A thread that entered another network is of no use for anything else.
            let connect = std::thread::spawn(move || {
                let kind = rustix::thread::LinkNameSpaceType::Network;
                rustix::thread::move_into_link_name_space(network.as_fd(), Some(kind))?;
                TcpStream::connect(("127.0.0.1", port))
            });
            connect.join().expect("it does not panic")
        }
    }

    /// Kills the engine with -9. Its containers' programs go on until it is started again.
    pub(crate) fn kill(&mut self) {
        self.end("KILL");
    }

    /// Stops the engine in order, and with it its containers.
    pub(crate) fn stop(&mut self) {
        self.end("TERM");
    }

    fn end(&mut self, signal: &str) {
        assert!(self.runs, "it does not run");
        self.sh(&format!("kill -{signal} $engine; wait $engine; true"));
        self.runs = false;
    }

    /// Fills what is left of its small disk.
    pub(crate) fn fill_disk(&mut self) {
        let left = self.sh("mountpoint -q data && { cat /dev/zero >data/filled; df --output=avail data | tail -n 1; }");
        assert_eq!(left, "0", "only a small disk is filled");
    }

    /// Takes away what [`PrivateEngine::fill_disk`] wrote.
    pub(crate) fn free_disk(&mut self) {
        self.sh("rm data/filled");
    }

    /// Where it listens.
    pub(crate) fn at(&self) -> EngineAt {
        EngineAt::socket(self.directory.path().join("docker.sock"))
    }

    /// A broker on this engine.
    pub(crate) fn broker(&self, options: BrokerOptions) -> BrokerOptions {
        BrokerOptions { engine: Some(self.at()), ..options }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// What a line of bash prints that runs among the engine's processes, in its directory. It must succeed.
    pub(crate) fn sh(&mut self, line: &str) -> String {
        let commands = self.commands.as_mut().expect("it is there until it is dropped");
        writeln!(commands, "{line}\necho \"{DONE} $?\"").unwrap();
        let mut said = String::new();
        loop {
            let begin = said.len();
            if self.answers.read_line(&mut said).unwrap() == 0 {
                panic!("a private engine needs root, unshare and iproute2; {line:?} said: {}", self.log());
            }
            if let Some(code) = said[begin..].strip_prefix(DONE) {
                assert_eq!(code.trim(), "0", "{line:?}: {said}\n{}", self.log());
                return said[..begin].trim().to_owned();
            }
        }
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        // The kernel ends every process of the namespace with its first one, and only then this one.
        drop(self.commands.take());
        let _ = self.shell.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the private engine\n{}", self.log());
        }
    }
}
