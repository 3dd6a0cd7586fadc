//! Engines that are not at a socket of this machine: behind TLS, behind ssh, and by the name of a docker context.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use longshore::pb::{self, EngineInfo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::{Broker, BrokerOptions, EngineAt, Image, PrivateEngine, Stage, eventually, trusting};

/// Where the private engines listen, each in its own network.
const PORT: u16 = 2376;

/// Who vouches for certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A directory as Docker's tools want it, for `name`.
    fn directory(&self, place: &Path, name: &str) -> PathBuf {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        fs::create_dir_all(place).unwrap();
        fs::write(place.join("ca.pem"), self.0.pem()).unwrap();
        fs::write(place.join("cert.pem"), certificate.pem()).unwrap();
        fs::write(place.join("key.pem"), key.serialize_pem()).unwrap();
        place.to_owned()
    }
}

/// A port of this machine that leads to the engine's.
async fn port_to(engine: &PrivateEngine) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = engine.connector(PORT);
    tokio::spawn(async move {
        while let Ok((mut broker, _)) = listener.accept().await {
            let Ok(engine) = connect() else { continue };
            engine.set_nonblocking(true).unwrap();
            let mut engine = tokio::net::TcpStream::from_std(engine).unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut broker, &mut engine).await });
        }
    });
    port
}

async fn engine_of(broker: &Broker) -> EngineInfo {
    let info = broker.system().await.get_info(pb::GetInfoRequest {}).await.unwrap().into_inner();
    info.engine.unwrap()
}

/// Compose goes the same way.
async fn composes(broker: &Broker, at: &EngineAt) {
    let manifest = r#"{"vm": {"composefile": "compose.yml"}}"#;
    let file = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/bin/sleep, '86400']\n";
    let image = Image::with_manifest(manifest).busybox().file("compose.yml", file, 0o644).build_in(at).await;
    let installed = broker.install(trusting(&image.reference)).await.unwrap();
    assert_eq!(installed.state(), pb::ExtensionState::Ready);
    broker.uninstall(&image.id, true).await.unwrap();
}

/// What the doctor says of the engine.
fn diagnosis(broker: &Broker, args: &[&str], env: &[(&str, &str)]) -> String {
    let mut doctor = Command::new(broker.binary());
    doctor.arg("doctor").args(args).env_clear().envs(env.iter().copied()).env("HOME", broker.home());
    let output = doctor.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let about = |line: &&str| line.split_whitespace().nth(1).is_some_and(|word| word == "engine" || word == "config");
    said.lines().find(about).unwrap_or(&said).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_behind_tls_is_used() {
    let place = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let certificates = ours.directory(&place.path().join("ours"), "127.0.0.1");
    let mut engine = PrivateEngine::start_with_tls(&certificates, PORT).await;
    let port = port_to(&engine).await;
    let url = format!("tcp://127.0.0.1:{port}");
    let tls = |dir: &Path| vec!["--engine-tls-dir".into(), dir.into()];
    let options = BrokerOptions { engine_url: Some(url.clone()), args: tls(&certificates), ..BrokerOptions::default() };
    let stage = Stage::install(Image::hello(), engine.broker(options)).await;
    let about = engine_of(&stage.broker).await;
    assert_eq!((about.url.as_str(), about.reachable), (url.as_str(), true));
    let id = stage.id();
    assert_eq!(stage.broker.get(&id, "/hello?name=x").await.unwrap().body, "Hello, x!\n".as_bytes());
    composes(&stage.broker, &engine.at()).await;
    is_told(&stage).await;

    engine.kill();
    eventually(async || (!engine_of(&stage.broker).await.reachable).then_some(())).await;
    engine.launch().await;
    eventually(async || engine_of(&stage.broker).await.reachable.then_some(())).await;
    eventually(async || stage.broker.get(&id, "/hello?name=y").await.ok()).await;
    is_told(&stage).await;

    // Who is not who they should be is told, each in their own way.
    let strangers = theirs.directory(&place.path().join("theirs"), "127.0.0.1");
    let mixed = ours.directory(&place.path().join("mixed"), "127.0.0.1");
    for file in ["cert.pem", "key.pem"] {
        fs::copy(strangers.join(file), mixed.join(file)).unwrap();
    }
    let bare = ours.directory(&place.path().join("bare"), "127.0.0.1");
    for file in ["cert.pem", "key.pem"] {
        fs::remove_file(bare.join(file)).unwrap();
    }
    let named = format!("tcp://localhost:{port}");
    for (url, dir, why) in [
        (&url, &strangers, "is not vouched for by"),
        (&url, &mixed, "refuses"),
        (&url, &bare, "wants a certificate of us"),
        (&named, &certificates, "is not for the name localhost"),
        (&url, &place.path().join("nowhere"), "ca.pem"),
    ] {
        let said = diagnosis(&stage.broker, &["--engine", url, "--engine-tls-dir", dir.to_str().unwrap()], &[]);
        assert!(said.contains(why), "{why}: {said}");
    }
    let docker =
        [("DOCKER_HOST", &*url), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", certificates.to_str().unwrap())];
    assert!(diagnosis(&stage.broker, &[], &docker).starts_with("ok"), "{}", diagnosis(&stage.broker, &[], &docker));
    let plain = diagnosis(&stage.broker, &["--engine", "tcp://192.0.2.1"], &[]);
    assert!(plain.contains("--engine-tls-dir"), "{plain}");

    // The same by the name of a context.
    let contexts = stage.broker.home().join(".docker/contexts");
    let context = hex::encode(Sha256::digest("far"));
    fs::create_dir_all(contexts.join("meta").join(&context)).unwrap();
    let meta = serde_json::json!({"Name": "far", "Metadata": {}, "Endpoints": {"docker": {"Host": url}}});
    fs::write(contexts.join("meta").join(&context).join("meta.json"), meta.to_string()).unwrap();
    ours.directory(&contexts.join("tls").join(&context).join("docker"), "127.0.0.1");
    for (args, env) in [(&["--engine", "context:far"][..], &[][..]), (&[], &[("DOCKER_CONTEXT", "far")])] {
        let said = diagnosis(&stage.broker, args, env);
        assert!(said.starts_with("ok") && said.contains(&url), "{said}");
    }
    let said = diagnosis(&stage.broker, &["--engine", "context:near"], &[]);
    assert!(said.contains("there are: far"), "{said}");
}

/// An sshd of the test's own, and an `ssh` that knows of nothing else.
struct Sshd {
    place: TempDir,
    server: Child,
    port: u16,
}

impl Sshd {
    async fn start() -> Sshd {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name).display().to_string();
        for key in ["host", "user", "stranger"] {
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]).status();
            assert!(made.unwrap().success());
        }
        fs::copy(at("user.pub"), at("authorized")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
             MaxStartups 100\nLogLevel VERBOSE\nSetEnv PATH=/usr/local/bin:/usr/bin:/bin\n",
            at("host"),
            at("authorized")
        );
        fs::write(at("sshd_config"), server).unwrap();
        let server = Sshd::serve(place.path());
        let known = fs::read_to_string(at("host.pub")).unwrap();
        fs::write(at("known"), format!("[127.0.0.1]:{port} {known}")).unwrap();
        let host = |name: &str, key: &str, known: &str| {
            format!(
                "Host {name}\n HostName 127.0.0.1\n Port {port}\n User root\n IdentityFile {}\n IdentitiesOnly yes\n \
                 UserKnownHostsFile {}\n GlobalKnownHostsFile none\n",
                at(key),
                at(known)
            )
        };
        let client =
            host("box", "user", "known") + &host("stranger", "stranger", "known") + &host("new", "user", "none");
        fs::write(at("config"), client).unwrap();
        fs::create_dir(place.path().join("bin")).unwrap();
        fs::write(at("bin/ssh"), format!("#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n", at("config"))).unwrap();
        fs::set_permissions(at("bin/ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        let sshd = Sshd { place, server, port };
        sshd.listens().await;
        sshd
    }

    fn serve(place: &Path) -> Child {
        // The server wants it; its own units make it elsewhere.
        fs::create_dir_all("/run/sshd").unwrap();
        let log = fs::OpenOptions::new().create(true).append(true).open(place.join("log")).unwrap();
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f"]).arg(place.join("sshd_config")).stderr(log);
        sshd.stdin(Stdio::null()).spawn().unwrap()
    }

    async fn listens(&self) {
        eventually(async || tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.ok()).await;
    }

    /// It goes, and every connection with it.
    fn go(&mut self) {
        let server = self.server.id().to_string();
        let connections = Command::new("ps").args(["-o", "pid=", "--ppid", &server]).output().unwrap();
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        for connection in String::from_utf8_lossy(&connections.stdout).split_whitespace() {
            let pid = rustix::process::Pid::from_raw(connection.parse().unwrap()).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    /// It comes again where it was.
    async fn come(&mut self) {
        self.server = Sshd::serve(self.place.path());
        self.listens().await;
    }

    fn path(&self) -> String {
        format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", self.place.path().join("bin").display())
    }

    /// How many connections there are, by the programs that serve them.
    fn connections(&self) -> usize {
        self.clients().len()
    }

    /// How often its log says that.
    fn ever(&self, said: &str) -> usize {
        fs::read_to_string(self.place.path().join("log")).unwrap().matches(said).count()
    }

    fn clients(&self) -> Vec<i32> {
        programs(&["/usr/bin/ssh -F", &self.place.path().join("config").display().to_string()])
    }
}

/// The processes whose command lines hold all of these words.
fn programs(words: &[&str]) -> Vec<i32> {
    let all = Command::new("ps").args(["-eo", "pid,args"]).output().unwrap();
    let all = String::from_utf8_lossy(&all.stdout).into_owned();
    let found = all.lines().filter(|line| words.iter().all(|word| line.contains(word)));
    found.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.place.path().join("log")).unwrap_or_default();
            eprintln!("--- log of sshd\n{log}");
        }
    }
}

/// What an install may need by ssh; it asks the engine some ninety times.
const MAX_CONNECTIONS: usize = 30;

#[tokio::test]
async fn an_engine_behind_ssh_is_used() {
    let mut sshd = Sshd::start().await;
    let env = vec![("PATH".to_owned(), sshd.path())];
    let url = "ssh://box/var/run/docker.sock";
    let options = BrokerOptions { engine_url: Some(url.into()), env, ..BrokerOptions::default() };
    let mut stage = Stage::install(Image::hello(), options).await;
    // Connections, each of which is an exchange of keys and a program here and there, are used again.
    let connections = sshd.ever("Accepted publickey");
    assert!(connections < MAX_CONNECTIONS, "{connections} connections");
    let about = engine_of(&stage.broker).await;
    assert_eq!((about.url.as_str(), about.reachable), (url, true));
    let id = stage.id();
    assert_eq!(stage.broker.get(&id, "/hello?name=x").await.unwrap().body, "Hello, x!\n".as_bytes());
    // Each connection's program ends with it.
    for _ in 0..5 {
        assert!(engine_of(&stage.broker).await.reachable);
    }
    eventually(async || (sshd.connections() < 8).then_some(())).await;

    // What happens there is told as it happens, also when it was away.
    is_told(&stage).await;
    sshd.go();
    eventually(async || (!engine_of(&stage.broker).await.reachable).then_some(())).await;
    sshd.come().await;
    eventually(async || engine_of(&stage.broker).await.reachable.then_some(())).await;
    eventually(async || stage.broker.get(&id, "/hello").await.ok()).await;
    is_told(&stage).await;
    is_said(&sshd, &stage.broker);

    // It is killed, and leaves none.
    stage.broker.kill();
    eventually(async || (sshd.connections() == 0).then_some(())).await;
    stage.broker.restart().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(engine_of(&stage.broker).await.reachable);
}

/// A container that somebody stops by hand is seen within moments, by the engine's events.
async fn is_told(stage: &Stage) {
    let container = stage.container("service");
    let state = async |wanted| {
        let begun = std::time::Instant::now();
        eventually(async || {
            let found = stage.broker.extension(&stage.id()).await.unwrap();
            ((found.state() == pb::ExtensionState::Ready) == wanted).then_some(())
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(15), "it took {:?}", begun.elapsed());
    };
    state(true).await;
    stage.broker.engine().docker(&["stop", "-t", "0", &container]);
    state(false).await;
    stage.broker.engine().docker(&["start", &container]);
    state(true).await;
}

/// What is wrong on the way is said.
fn is_said(sshd: &Sshd, broker: &Broker) {
    let path = sshd.path();
    let env = [("PATH", path.as_str())];
    for (url, why) in [
        ("ssh://box", "ok"),
        ("ssh://stranger", "Permission denied"),
        ("ssh://new", "Host key verification failed"),
        ("ssh://box:1", "Connection refused"),
        ("ssh://box/nonexistent.sock", "nonexistent.sock"),
    ] {
        let said = diagnosis(broker, &["--engine", url], &env);
        assert!(said.contains(why), "{url}: {said}");
    }
}

/// More who want the engine than there may be connections wait until one ends.
#[tokio::test]
async fn there_are_so_many_connections_by_ssh_and_no_more() {
    const MOST: usize = 64;
    let place = tempfile::tempdir().unwrap();
    let ssh = place.path().join("ssh");
    // It says nothing until its input ends.
    fs::write(&ssh, format!("#!/bin/sh\nexec /bin/busybox cat - {}\n", place.path().display())).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", place.path().display());
    let env = vec![("PATH".to_owned(), path)];
    let options = BrokerOptions { engine_url: Some("ssh://nobody".into()), env, ..BrokerOptions::default() };
    let broker = Broker::start_with(options).await;
    let count = || programs(&["busybox cat -", &place.path().display().to_string()]).len();
    let way = broker.data_dir().join("engine.sock");
    let mut callers = Vec::new();
    for _ in 0..MOST + 6 {
        callers.push(tokio::net::UnixStream::connect(&way).await.unwrap());
    }
    eventually(async || (count() == MOST).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(count(), MOST);
    // Those who go make room for those who wait.
    callers.drain(..MOST);
    eventually(async || (count() < MOST && count() >= 6).then_some(())).await;
    drop(callers);
    eventually(async || (count() < 6).then_some(())).await;
}
