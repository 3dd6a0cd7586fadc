//! System mode: one broker for several users, tried by two real ones who know of each other, and by a third.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use longshore::{
    pb::{
        self, exec_service_client::ExecServiceClient, extension_service_client::ExtensionServiceClient,
        grant_service_client::GrantServiceClient, ownership_service_client::OwnershipServiceClient,
        session_service_client::SessionServiceClient, system_service_client::SystemServiceClient,
    },
    user::User,
};
use tonic::{
    Request, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::support::{
    Broker, BrokerOptions, Image, Lease, Ran, docker, image_source, program, reason, started, unique,
};

/// The socket's group.
const GROUP: u32 = 20_100;
/// A group of Ann's.
const CHOIR: u32 = 20_101;
/// The two users, who have no names on the machine and need none.
const ANN: Person = Person { uid: 20_001, others: &[CHOIR] };
const BEN: Person = Person { uid: 20_002, others: &[] };
/// Somebody in the socket's group whom the broker's configuration does not name.
const EVE: Person = Person { uid: 20_003, others: &[GROUP] };
/// Somebody else.
const STRANGER: Person = Person { uid: 20_004, others: &[] };
const ROOT: Person = Person { uid: 0, others: &[] };

/// A user, whose group has the same number.
#[derive(Debug, Clone, Copy)]
struct Person {
    uid: u32,
    others: &'static [u32],
}

/// That user at a broker.
struct At<'a> {
    broker: &'a Broker,
    who: Person,
}

impl Person {
    fn at(self, broker: &Broker) -> At<'_> {
        At { broker, who: self }
    }

    /// A command that this user gives.
    fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={}", self.uid), format!("--regid={}", self.uid)]);
        match self.others {
            [] => command.arg("--clear-groups"),
            others => {
                command.arg(format!("--groups={}", others.iter().map(u32::to_string).collect::<Vec<_>>().join(",")))
            }
        };
        command.arg(program).env_clear().env("PATH", "/usr/bin:/bin");
        command
    }

    /// What a shell of this user says, and whether it succeeds.
    fn shell(self, script: &str) -> (bool, String) {
        let output = self.command("sh").args(["-c", script]).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl At<'_> {
    /// A connection that the kernel says is this user's.
    async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let (socket, who) = (self.broker.socket(), self.who);
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move {
                let user = User::find(who.uid)?;
                user.learn(who.uid, who.others.to_vec());
                let stream = user.act(|| std::os::unix::net::UnixStream::connect(socket))??;
                stream.set_nonblocking(true)?;
                tokio::net::UnixStream::from_std(stream).map(TokioIo::new)
            }
        });
        Endpoint::from_static("http://localhost").connect_with_connector(connector).await
    }

    async fn list(&self) -> Result<Vec<String>, Status> {
        let mut extensions = ExtensionServiceClient::new(self.channel().await.unwrap());
        let listed = extensions.list(pb::ExtensionServiceListRequest::default()).await?.into_inner();
        Ok(listed.extensions.into_iter().map(|extension| extension.id).collect())
    }

    async fn extension(&self, id: &str) -> Result<pb::Extension, Status> {
        let mut extensions = ExtensionServiceClient::new(self.channel().await.unwrap());
        let request = pb::ExtensionServiceGetRequest { extension: id.to_owned() };
        Ok(extensions.get(request).await?.into_inner().extension.unwrap())
    }

    async fn install(&self, source: pb::Source, accept: &[&str], trust: bool) -> Result<pb::Extension, Status> {
        let accept = accept.iter().map(ToString::to_string).collect();
        let request = pb::InstallRequest { source: Some(source), accept_grants: accept, trust, ..Default::default() };
        let mut extensions = ExtensionServiceClient::new(self.channel().await.unwrap());
        let mut events = extensions.install(request).await?.into_inner();
        while let Some(event) = events.message().await? {
            if let Some(pb::install_response::Event::Installed(extension)) = event.event {
                return Ok(extension);
            }
        }
        panic!("the stream ended without `installed`")
    }

    async fn run(&self, id: &str, argv: &[&str]) -> Result<Streaming<pb::RunResponse>, Status> {
        self.run_on(pb::ExecTarget::Host, id, argv).await
    }

    async fn run_on(
        &self,
        target: pb::ExecTarget,
        id: &str,
        argv: &[&str],
    ) -> Result<Streaming<pb::RunResponse>, Status> {
        Ok(ExecServiceClient::new(self.channel().await.unwrap()).run(program(id, target, argv)).await?.into_inner())
    }

    /// What a program of this user's extension writes.
    async fn output(&self, id: &str, script: &str) -> String {
        let mut events = self.run(id, &["sh", "-c", script]).await.unwrap();
        Ran::of(&mut events).await.unwrap().text().trim().to_owned()
    }

    /// Starts a program that stays, and tells which it is.
    async fn start(&self, id: &str) -> (pb::Started, Streaming<pb::RunResponse>) {
        let mut told = self.run(id, &["sh", "-c", "setsid sleep 1000 & sleep 1000"]).await.unwrap();
        (started(&mut told).await, told)
    }

    async fn execs(&self) -> Vec<pb::ExecInfo> {
        let mut exec = ExecServiceClient::new(self.channel().await.unwrap());
        exec.list(pb::ExecServiceListRequest::default()).await.unwrap().into_inner().execs
    }

    async fn audit(&self) -> Vec<pb::AuditEntry> {
        let mut grants = GrantServiceClient::new(self.channel().await.unwrap());
        grants.list_audit(pb::ListAuditRequest::default()).await.unwrap().into_inner().entries
    }
}

/// A broker for Ann and Ben.
async fn system() -> Broker {
    system_with(&[]).await
}

async fn system_with(more: &[(&str, &str)]) -> Broker {
    let allowed = format!("{},{}", ANN.uid, BEN.uid);
    let group = GROUP.to_string();
    let env = [("LONGSHORE_SYSTEM_GROUP", &*group), ("LONGSHORE_SYSTEM_ALLOWED_USERS", &*allowed)];
    let env = env.into_iter().chain([("LONGSHORE_SYSTEM_ALLOWED_GROUPS", "")]).chain(more.iter().copied());
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Broker::start_with(BrokerOptions { args: vec!["--system".into()], env, ..Default::default() }).await
}

/// An extension in a directory, which everybody may read, with a program and a UI.
fn directory(broker: &Broker) -> (String, PathBuf, pb::Source) {
    let name = unique("dir");
    let root = broker.scratch().join(&name);
    fs::create_dir_all(root.join("ui")).unwrap();
    fs::create_dir(root.join("host")).unwrap();
    let metadata = r#"{
        "ui": {"dashboard-tab": {"title": "Test", "root": "ui", "src": "index.html"}},
        "host": {"binaries": [{"linux": [{"path": "/host/tool"}]}]}
    }"#;
    fs::write(root.join("metadata.json"), metadata).unwrap();
    fs::write(root.join("ui/index.html"), "<h1>hello</h1>").unwrap();
    fs::write(root.join("host/tool"), "#!/bin/sh\necho tool\n").unwrap();
    // Whoever may write it in the package may not in what is installed.
    fs::set_permissions(root.join("host/tool"), fs::Permissions::from_mode(0o777)).unwrap();
    let source = directory_source(&root, &name);
    (format!("longshore-test/{name}"), root, source)
}

fn directory_source(root: &Path, name: &str) -> pb::Source {
    let path = root.display().to_string();
    let source = pb::DirectorySource { path, reference: format!("longshore-test/{name}:1") };
    pb::Source { source: Some(pb::source::Source::Directory(source)) }
}

/// Waits until it is so.
async fn eventually(is_so: impl AsyncFn() -> bool) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited).await.expect("it comes to be so");
}

const PROGRAMS: [&str; 2] = ["host.exec:any", "host.exec:tool"];

fn lives(pid: i64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn each_user_sees_what_is_its_own() {
    let mut broker = system().await;
    let (id, _, source) = directory(&broker);
    let (ann, ben) = (ANN.at(&broker), BEN.at(&broker));
    ann.install(source.clone(), &PROGRAMS, false).await.unwrap();

    assert_eq!(ann.list().await.unwrap(), std::slice::from_ref(&id));
    assert_eq!(ben.list().await.unwrap(), Vec::<String>::new());
    assert_eq!(ROOT.at(&broker).list().await.unwrap(), Vec::<String>::new(), "root's own, of which there is none");
    assert_eq!(reason(&ben.extension(&id).await.unwrap_err()), "EXTENSION_NOT_FOUND");
    assert_eq!(reason(&ben.run(&id, &["tool"]).await.unwrap_err()), "EXTENSION_NOT_FOUND");

    let mut open = SessionServiceClient::new(ann.channel().await.unwrap());
    let mut session = open.open(pb::OpenRequest { extension: id.clone() }).await.unwrap().into_inner();
    let token = session.message().await.unwrap().unwrap().token;
    let with_token = || {
        let mut request = Request::new(pb::ExtensionServiceGetRequest { extension: id.clone() });
        request.metadata_mut().insert("longshore-session", token.parse().unwrap());
        request
    };
    ExtensionServiceClient::new(ann.channel().await.unwrap()).get(with_token()).await.unwrap();
    let refused = ExtensionServiceClient::new(ben.channel().await.unwrap()).get(with_token()).await.unwrap_err();
    assert_eq!(reason(&refused), "SESSION_UNKNOWN");
    let mut sessions = SessionServiceClient::new(ben.channel().await.unwrap());
    let listed = sessions.list(pb::SessionServiceListRequest::default()).await.unwrap().into_inner();
    assert!(listed.sessions.is_empty());

    let (started, _told) = ann.start(&id).await;
    assert_eq!((ann.execs().await.len(), ben.execs().await.len()), (1, 0));
    let action = Some(pb::signal_request::Action::Signal("KILL".into()));
    let signal = pb::SignalRequest { exec_id: started.exec_id.clone(), action };
    let refused = ExecServiceClient::new(ben.channel().await.unwrap()).signal(signal).await.unwrap_err();
    assert_eq!(reason(&refused), "EXEC_NOT_FOUND");
    let mut ownership = OwnershipServiceClient::new(ben.channel().await.unwrap());
    let owned = pb::ListResourcesRequest { owned_only: true, ..Default::default() };
    assert!(ownership.list_resources(owned).await.unwrap().into_inner().resources.is_empty());
    assert!(lives(started.pid));
    assert!(!ann.audit().await.is_empty() && ben.audit().await.is_empty());

    assert_eq!(reason(&ben.install(source, &[], false).await.unwrap_err()), "GRANTS_REQUIRED", "Ann's are not his");
    for (who, uid) in [(ANN, 20_001), (BEN, 20_002), (ROOT, 0)] {
        let mut system = SystemServiceClient::new(who.at(&broker).channel().await.unwrap());
        let info = system.get_info(pb::GetInfoRequest {}).await.unwrap().into_inner();
        assert_eq!((info.user_id, info.uid, info.is_for_several_users), (uid, 0, true));
    }

    // Each finds its own again, and what a killed broker ran has ended.
    broker.kill();
    broker.restart().await;
    assert_eq!(ANN.at(&broker).list().await.unwrap(), [id]);
    assert_eq!(BEN.at(&broker).list().await.unwrap(), Vec::<String>::new());
    eventually(async || !lives(started.pid)).await;
}

#[tokio::test]
async fn who_is_not_allowed_is_told_what_to_change() {
    let broker = system().await;
    let refused = EVE.at(&broker).list().await.unwrap_err();
    assert_eq!((reason(&refused).as_str(), refused.code()), ("CALLER_REFUSED", tonic::Code::PermissionDenied));
    assert!(refused.message().contains("20003") && refused.message().contains("system.allowed_users"), "{refused:?}");
    STRANGER.at(&broker).channel().await.expect_err("the socket is closed to others");
    let found = fs::metadata(broker.socket()).unwrap();
    assert_eq!((found.mode() & 0o777, found.gid()), (0o660, GROUP));
    // Who was refused has nothing there.
    assert!(!broker.data_dir().join("users/20003").exists());
    let started = Command::new("setpriv")
        .args(["--reuid=20004", "--regid=20004", "--clear-groups"])
        .arg(broker.binary())
        .args(["serve", "--system"])
        .env_clear()
        .output()
        .unwrap();
    assert!(!started.status.success());
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(said.contains("--system: only root can work for several users"), "{said}");
}

#[tokio::test]
async fn programs_run_as_their_user_and_reach_nobody_elses() {
    let broker = system().await;
    let (id, _, source) = directory(&broker);
    let (ann, ben) = (ANN.at(&broker), BEN.at(&broker));
    let installed = ann.install(source.clone(), &PROGRAMS, false).await.unwrap();
    ben.install(source, &PROGRAMS, false).await.unwrap();

    let place = broker.scratch().join("place");
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o1777)).unwrap();
    let script = format!("id -u; id -g; id -G; echo $HOME $USER $LOGNAME; tool; touch {}/made", place.display());
    assert_eq!(ann.output(&id, &script).await, "20001\n20001\n20001 20101\n/ 20001 20001\ntool");
    let made = fs::metadata(place.join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (20_001, 20_001));
    assert_eq!(ben.output(&id, "id -u; id -G").await, "20002\n20002");
    let status = ann.output(&id, "grep -E '^(CapPrm|CapEff|CapInh|CapAmb|NoNewPrivs)' /proc/self/status").await;
    assert!(status.lines().filter(|line| line.starts_with("Cap")).all(|line| line.ends_with("0000000000000000")));
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    // A program that is marked to run as root does not.
    let marked = place.join("marked");
    fs::copy("/usr/bin/id", &marked).unwrap();
    fs::set_permissions(&marked, fs::Permissions::from_mode(0o4755)).unwrap();
    assert_eq!(ann.output(&id, &format!("{} -u", marked.display())).await, "20001");

    let mut system = SystemServiceClient::new(ann.channel().await.unwrap());
    let info = system.get_info(pb::GetInfoRequest {}).await.unwrap().into_inner();
    let mut system = SystemServiceClient::new(ROOT.at(&broker).channel().await.unwrap());
    let of_root = system.get_info(pb::GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.host_containment, of_root.host_containment, "as well held as those of root");

    // Ann's programs cannot end Ben's, nor look into them, nor call as Ann.
    let (of_ben, _told) = ben.start(&id).await;
    let script = format!(
        "(kill -9 {} || echo refused; cat /proc/{}/environ || echo closed) 2>/dev/null",
        of_ben.pid, of_ben.pid
    );
    assert_eq!(ann.output(&id, &script).await, "refused\nclosed");
    assert!(lives(of_ben.pid));
    let script = format!("{} --socket {} ls 2>&1", broker.binary().display(), broker.socket().display());
    assert!(ann.output(&id, &script).await.contains("the caller is a program of an extension"));

    // What is installed for Ann is hers to read, nobody's but root's to write, and closed to Ben.
    let ui = installed.ui.unwrap();
    let index = Path::new(&ui.root_dir).join("index.html");
    let generation = Path::new(&ui.root_dir).parent().unwrap();
    let own = generation.ancestors().find(|path| path.ends_with("20001")).unwrap();
    let tool = generation.join("host/tool");
    for (who, allowed) in [(ANN, true), (BEN, false)] {
        assert_eq!(who.shell(&format!("cat {}", index.display())).0, allowed, "{who:?}");
        assert_eq!(who.shell(&tool.display().to_string()).0, allowed, "{who:?}");
    }
    for closed in ["longshore.db", "longshore.db-wal", "key", "lock"] {
        assert!(!ANN.shell(&format!("cat {}", own.join(closed).display())).0, "{closed}");
    }
    for closed in [tool.clone(), index.clone()] {
        assert!(!ANN.shell(&format!("echo x >> {}", closed.display())).0, "{closed:?}");
    }
    let extension = generation.parent().unwrap().parent().unwrap();
    for directory in [own, &own.join("extensions"), extension, generation, &generation.join("host")] {
        assert!(!ANN.shell(&format!("touch {}/x", directory.display())).0, "{directory:?}");
    }
    // A container's root may leave a program there that makes root of whoever runs it.
    let guest = extension.join("hidden/guest");
    assert!(guest.is_dir() && !ANN.shell(&format!("ls {}", guest.display())).0);
    assert!(!ANN.shell(&format!("stat {}", guest.display())).0);
}

#[tokio::test]
async fn files_are_read_with_the_rights_of_who_names_them() {
    let broker = system().await;
    let ann = ANN.at(&broker);
    let (_, root, source) = directory(&broker);
    fs::write(root.join("ui/secret"), "secret").unwrap();
    fs::set_permissions(root.join("ui/secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let denied = |status: Status| status.message().contains("ermission denied");
    assert!(denied(ann.install(source.clone(), &PROGRAMS, false).await.unwrap_err()));
    fs::remove_file(root.join("ui/secret")).unwrap();
    ann.install(source, &PROGRAMS, false).await.unwrap();

    let (_, root, source) = directory(&broker);
    fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(reason(&ann.install(source.clone(), &PROGRAMS, false).await.unwrap_err()), "SOURCE_UNREADABLE");
    chown(&root, Some(20_001), None).unwrap();
    ann.install(source, &PROGRAMS, false).await.unwrap();

    // What is in an archive may bear names that others trust.
    assert_eq!(reason(&ann.install(closed_archive(&broker), &[], false).await.unwrap_err()), "GRANT_RESERVED");

    // The socket that a process on the host has named is dialled as Ann, who may not use root's.
    let id = ann.list().await.unwrap().remove(0);
    let socket = ann.extension(&id).await.unwrap().registration_socket;
    let endpoint =
        |path: String| pb::Endpoint { name: "http".into(), protocol: pb::EndpointProtocol::Http1.into(), socket: path };
    let of_root = broker.scratch().join("root.sock");
    let listener = tokio::net::UnixListener::bind(&of_root).unwrap();
    fs::set_permissions(&of_root, fs::Permissions::from_mode(0o600)).unwrap();
    let endpoints = vec![endpoint(of_root.display().to_string())];
    let hello = pb::Hello { instance: unique("instance"), endpoints, ..Default::default() };
    let _lease = Lease::begin(Path::new(&socket), hello).await.unwrap();
    let fetch = pb::FetchRequest { extension: id, path: "/".into(), ..Default::default() };
    let channel = ann.channel().await.unwrap();
    let refused = pb::backend_service_client::BackendServiceClient::new(channel).fetch(fetch).await.unwrap_err();
    assert_eq!(reason(&refused), "BACKEND_UNREACHABLE");
    drop(listener);
}

/// An archive that root alone may read.
fn closed_archive(broker: &Broker) -> pb::Source {
    let path = broker.scratch().join("archive.tar");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let archive = pb::ArchiveSource { path: path.display().to_string(), ..Default::default() };
    pb::Source { source: Some(pb::source::Source::Archive(archive)) }
}

#[tokio::test]
async fn what_reaches_others_is_not_a_users_to_grant() {
    let broker = system().await;
    let (id, _, source) = directory(&broker);
    let ann = ANN.at(&broker);
    for grant in ["engine.read", "engine.full", "engine.bind:/etc", "backend.privileged"] {
        let refused = ann.install(source.clone(), &[grant, "host.exec:tool"], false).await.unwrap_err();
        assert_eq!(reason(&refused), "GRANT_RESERVED", "{grant}");
        assert!(refused.message().contains("system.trust_users"), "{refused:?}");
    }
    assert_eq!(reason(&ann.install(source.clone(), &[], true).await.unwrap_err()), "GRANT_RESERVED");
    ann.install(source.clone(), &["host.exec:tool"], false).await.unwrap();
    let request = pb::GrantServiceSetRequest { extension: id, allow: vec!["engine.full".into()], deny: vec![] };
    let mut grants = GrantServiceClient::new(ann.channel().await.unwrap());
    assert_eq!(reason(&grants.set(request).await.unwrap_err()), "GRANT_RESERVED");
    let audit = ann.audit().await;
    let refused = audit.iter().filter(|entry| entry.decision == "GRANT_RESERVED" && entry.result.is_empty());
    assert_eq!(
        refused.map(|entry| entry.act.as_str()).collect::<Vec<_>>(),
        ["grants", "install", "install", "install", "install", "install"]
    );
    // Root is root in any case.
    ROOT.at(&broker).install(source, &[], true).await.unwrap();

    let broker = system_with(&[("LONGSHORE_SYSTEM_TRUST_USERS", "true")]).await;
    let (id, _, source) = directory(&broker);
    let ann = ANN.at(&broker);
    ann.install(source, &[], true).await.unwrap();
    let refused = ann.install(closed_archive(&broker), &[], false).await.unwrap_err();
    assert!(refused.message().contains("ermission denied"), "{refused:?}");
    // The docker command line runs as Ann too, and what it keeps is hers.
    for _ in 0..2 {
        let mut told = ann.run_on(pb::ExecTarget::Docker, &id, &["info", "--format", "{{.OSType}}"]).await.unwrap();
        assert_eq!(Ran::of(&mut told).await.unwrap().stdout(), "linux");
    }
    let config = broker.data_dir().join("users/20001/extensions").join(id.replace('/', "_")).join("docker-config");
    assert_eq!(fs::metadata(config).unwrap().uid(), 20_001);
}

/// A container's root may leave there a program that makes root of whoever runs it, or a device.
#[tokio::test]
async fn what_containers_write_is_out_of_reach_of_their_user() {
    let broker = system().await;
    let file = "services: {app: {image: '${DESKTOP_PLUGIN_IMAGE}', volumes: ['.:/all']}}";
    let manifest = r#"{"vm": {"composefile": "compose/compose.yaml", "exposes": {"socket": "backend.sock"}}}"#;
    let image =
        Image::hello().file("metadata.json", manifest, 0o644).file("compose/compose.yaml", file, 0o644).build().await;
    let ann = ANN.at(&broker);
    let installed = ann.install(image_source(&image.reference), &[], false).await.unwrap();
    let directory = broker.data_dir().join("users/20001/extensions").join(installed.id.replace('/', "_"));
    let compose = directory.join("generations/1/hidden/compose");
    let hidden = compose.parent().unwrap();
    assert_eq!(fs::metadata(hidden).unwrap().mode() & 0o777, 0o700);
    let filter = format!("label=dev.longshore.extension={}", installed.id);
    let container = docker(&["ps", "-aq", "--filter", &filter]);
    let mounts = docker(&["inspect", "--format", "{{range .Mounts}}{{.Source}} {{end}}", container.trim()]);
    assert!(mounts.contains(&compose.display().to_string()), "{mounts}");
    assert!(!mounts.split(' ').any(|source| Path::new(source) == hidden), "{mounts}");
    // As open as a container's root can make it.
    fs::set_permissions(&compose, fs::Permissions::from_mode(0o777)).unwrap();
    fs::create_dir(compose.join("d")).unwrap();
    fs::copy("/usr/bin/id", compose.join("d/id")).unwrap();
    fs::set_permissions(compose.join("d/id"), fs::Permissions::from_mode(0o4755)).unwrap();
    for who in [ANN, BEN] {
        assert!(!who.shell(&format!("stat {}", compose.display())).0, "{who:?}");
        assert!(!who.shell(&format!("{} -u", compose.join("d/id").display())).0, "{who:?}");
    }
    let mut extensions = ExtensionServiceClient::new(ann.channel().await.unwrap());
    extensions.uninstall(pb::UninstallRequest { extension: installed.id, volumes: true }).await.unwrap();
}

#[tokio::test]
async fn on_one_engine_users_do_not_meet() {
    let mut broker = system().await;
    let image = Image::hello().build().await;
    let (ann, ben) = (ANN.at(&broker), BEN.at(&broker));
    let installed = ann.install(image_source(&image.reference), &[], false).await.unwrap();
    let id = installed.id.clone();
    let container = docker(&["ps", "-q", "--no-trunc", "--filter", &format!("label=dev.longshore.extension={id}")]);
    let container = container.trim().to_owned();
    assert_eq!(container.len(), 64, "{container}");

    let taken = ben.install(image_source(&image.reference), &[], false).await.unwrap_err();
    assert_eq!(reason(&taken), "PROJECT_NAME_TAKEN");
    for secret in ["20001", "ann", &container] {
        assert!(!taken.message().contains(secret), "{taken:?}");
    }
    assert_eq!(ben.list().await.unwrap(), Vec::<String>::new());
    for (who, owner) in [(&ann, Some(id.clone())), (&ben, None)] {
        let mut ownership = OwnershipServiceClient::new(who.channel().await.unwrap());
        let found = ownership.get_owner(pb::GetOwnerRequest { id: container.clone(), ..Default::default() }).await;
        let resource = found.unwrap().into_inner().resource.unwrap();
        assert_eq!(resource.owner.map(|owner| owner.extension), owner);
    }

    broker.kill();
    broker.restart().await;
    let (ann, ben) = (ANN.at(&broker), BEN.at(&broker));
    ben.list().await.unwrap();
    eventually(async || ann.extension(&id).await.unwrap().state() == pb::ExtensionState::Ready).await;
    let still = docker(&["ps", "-q", "--no-trunc", "--filter", &format!("id={container}")]);
    assert_eq!(still.trim(), container, "nobody's recovery takes what is another's");
    let fetch = pb::FetchRequest { extension: id.clone(), path: "/".into(), ..Default::default() };
    let mut backends = pb::backend_service_client::BackendServiceClient::new(ann.channel().await.unwrap());
    backends.fetch(fetch.clone()).await.unwrap();
    let mut backends = pb::backend_service_client::BackendServiceClient::new(ben.channel().await.unwrap());
    assert_eq!(reason(&backends.fetch(fetch).await.unwrap_err()), "EXTENSION_NOT_FOUND");

    let mut extensions = ExtensionServiceClient::new(ann.channel().await.unwrap());
    extensions.uninstall(pb::UninstallRequest { extension: id.clone(), volumes: true }).await.unwrap();
    // Now the name is free.
    ben.install(image_source(&image.reference), &[], false).await.unwrap();
    let mut extensions = ExtensionServiceClient::new(ben.channel().await.unwrap());
    extensions.uninstall(pb::UninstallRequest { extension: id, volumes: true }).await.unwrap();
}
