//! Images that come from a registry: Debian's `docker-registry` on loopback.

use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bollard::query_parameters::{RemoveImageOptionsBuilder, TagImageOptionsBuilder};
use longshore::pb::{self, InstallPhase};
use tempfile::TempDir;

use crate::support::{
    Broker, BrokerOptions, Image, PLAIN_UID, engine, eventually, has_image, local, metadata, no_traces, reason, shell,
    unique,
};

const USER: &str = "someone";
const PASSWORD: &str = "right-horse";

/// A registry of our own; it ends with the value.
struct Registry {
    process: Child,
    directory: TempDir,
    host: String,
}

impl Registry {
    /// Starts one, for everybody or for [`USER`] only.
    fn start(private: bool) -> Registry {
        let directory = tempfile::Builder::new().prefix("longshore-test-registry-").tempdir().unwrap();
        let root = directory.path();
        // Whoever takes the port in between makes the registry fail, and the next one is tried.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let host = format!("127.0.0.1:{port}");
            let mut config = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{host}'}}\n",
                root.join("data").display()
            );
            if private {
                let entry = Command::new("htpasswd").args(["-Bbn", USER, PASSWORD]).output();
                fs::write(root.join("users"), entry.expect("the tests need apache2-utils").stdout).unwrap();
                let users = root.join("users");
                config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", users.display()));
            }
            fs::write(root.join("config.yml"), config).unwrap();
            let log = fs::File::create(root.join("log")).unwrap();
            let mut process = Command::new("docker-registry")
                .arg("serve")
                .arg(root.join("config.yml"))
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .stdin(Stdio::null())
                .spawn()
                .expect("the tests need docker-registry; `make test` installs it");
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(20) && process.try_wait().unwrap().is_none() {
                if TcpStream::connect(&host).is_ok() {
                    return Registry { process, directory, host };
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("no registry: {}", fs::read_to_string(directory.path().join("log")).unwrap_or_default());
    }

    /// As one that is far away, at about 12 MB/s: the engine tells ten times a second how far a download is, and one from
    /// loopback is over by then.
    fn far_away(mut self) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = std::mem::replace(&mut self.host, listener.local_addr().unwrap().to_string());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&near) else { return };
                let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = io::copy(&mut up_from, &mut up_to);
                    let _ = up_to.shutdown(std::net::Shutdown::Write);
                });
                std::thread::spawn(move || trickle(server, client));
            }
        });
        self
    }

    /// Moves an image from the engine into the registry, and returns its new id.
    async fn take(&self, image: &Image) -> String {
        let id = format!("{}/{}", self.host, image.id);
        let options = TagImageOptionsBuilder::default().repo(&id).tag("1").build();
        engine().tag_image(&image.reference, Some(options)).await.unwrap();
        let config = self.directory.path().join("pusher");
        write_config(&config, &format!(r#"{{"auths": {{"{}": {{"auth": "{}"}}}}}}"#, self.host, basic(PASSWORD)));
        let mut push = Command::new("docker");
        push.arg("--config").arg(config).args(["push", "-q", &format!("{id}:1")]);
        let pushed = push.output().unwrap();
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
        let options = || Some(RemoveImageOptionsBuilder::default().force(true).build());
        engine().remove_image(&format!("{id}:1"), options(), None).await.unwrap();
        engine().remove_image(&image.reference, options(), None).await.unwrap();
        id
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn trickle(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 128 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

fn basic(password: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"))
}

fn write_config(directory: &Path, text: &str) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("config.json"), text).unwrap();
}

/// A broker whose user has this Docker configuration.
async fn broker_with(plain: bool, config: Option<String>, path: Option<&Path>) -> Broker {
    let path = path.map(|path| ("PATH".to_owned(), format!("{}:/usr/local/bin:/usr/bin:/bin", path.display())));
    let mut broker = Broker::prepare(BrokerOptions { plain, env: path.into_iter().collect(), ..Default::default() });
    if let Some(config) = config {
        write_config(&broker.home().join(".docker"), &config);
        fs::set_permissions(broker.home().join(".docker/config.json"), fs::Permissions::from_mode(0o600)).unwrap();
        if plain {
            for path in [broker.home().join(".docker"), broker.home().join(".docker/config.json")] {
                std::os::unix::fs::chown(path, Some(PLAIN_UID), Some(PLAIN_UID)).unwrap();
            }
        }
    }
    broker.restart().await;
    broker
}

fn pulling(id: &str) -> pb::Source {
    let image = pb::ImageSource { reference: format!("{id}:1"), pull: pb::PullPolicy::Missing.into() };
    pb::Source { source: Some(pb::source::Source::Image(image)) }
}

fn request(id: &str) -> pb::InstallRequest {
    pb::InstallRequest { source: Some(pulling(id)), trust: true, ..Default::default() }
}

/// An extension with some megabytes that do not compress, and that no engine has yet.
async fn big() -> Image {
    let mut bytes = vec![0_u8; 12 << 20];
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    let mut state = 88_172_645_463_325_252 ^ u64::from(since.subsec_nanos()) << 20;
    for byte in &mut bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state.to_le_bytes()[0];
    }
    Image::hello().file("ui/big", bytes, 0o644).build().await
}

#[tokio::test]
async fn a_pull_tells_how_far_it_is_and_goes_with_the_extension() {
    let registry = Registry::start(false).far_away();
    let id = registry.take(&big().await).await;
    for plain in [false, true] {
        let broker = broker_with(plain, None, None).await;
        let mut events = broker.extensions().await.install(request(&id)).await.unwrap().into_inner();
        let (mut phases, mut moved, mut installed) = (vec![], vec![], None);
        while let Some(event) = events.message().await.unwrap() {
            match event.event.unwrap() {
                pb::install_response::Event::Progress(progress) => {
                    phases.push(progress.phase());
                    if progress.message == "Downloading" {
                        assert!(progress.total_bytes > 12 << 20, "{progress:?}");
                        moved.push(progress.current_bytes);
                    }
                }
                pb::install_response::Event::Installed(extension) => installed = Some(extension),
            }
        }
        assert_eq!(installed.unwrap().id, id);
        assert!(phases.is_sorted(), "phases come in their order: {phases:?}");
        for phase in [
            InstallPhase::FetchingImage,
            InstallPhase::Reading,
            InstallPhase::Staging,
            InstallPhase::Starting,
            InstallPhase::Waiting,
        ] {
            assert!(phases.contains(&phase), "{phase:?}");
        }
        assert!(moved.len() > 1 && moved.is_sorted() && moved.last() > moved.first(), "{moved:?}");
        assert_eq!(broker.get(&id, "/hello").await.unwrap().status, 200);
        assert!(broker.uninstall(&id, false).await.unwrap().image_removed);
        assert!(!has_image(&format!("{id}:1")).await);
        no_traces(&broker, &id).await;
    }
}

#[tokio::test]
async fn what_was_pulled_goes_when_nothing_comes_of_it() {
    let registry = Registry::start(false);
    let manifest = metadata().replacen('{', r#"{"host": {"binaries": [{"linux": [{"path": "/tool.sh"}]}]},"#, 1);
    let tooled = Image::hello().file("metadata.json", manifest, 0o644).file("tool.sh", "#!/bin/sh\n", 0o755);
    let id = registry.take(&tooled.build().await).await;
    let name = format!("{id}:1");
    let broker = broker_with(false, None, None).await;
    let inspect = pb::InspectRequest { source: Some(pulling(&id)) };
    let inspected = broker.extensions().await.inspect(inspect).await.unwrap().into_inner();
    assert_eq!((&inspected.id, inspected.needed_grants.len()), (&id, 1));
    assert!(!has_image(&name).await);
    let subject = Some(pb::validate_request::Subject::Source(pulling(&id)));
    let validated = broker.extensions().await.validate(pb::ValidateRequest { subject }).await.unwrap().into_inner();
    assert!(validated.valid && !has_image(&name).await, "{validated:?}");
    let error = broker.install(pb::InstallRequest { trust: false, ..request(&id) }).await.unwrap_err();
    assert_eq!(reason(&error), "GRANTS_REQUIRED");
    assert!(!has_image(&name).await);
    // A caller who goes away in the middle of it all.
    for _ in 0..2 {
        let mut events = broker.extensions().await.install(request(&id)).await.unwrap().into_inner();
        let _ = events.message().await.unwrap();
        drop(events);
        let begun = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if !has_image(&name).await {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "the image stays\n{}", broker.log());
        }
        no_traces(&broker, &id).await;
    }
}

#[tokio::test]
async fn another_service_s_image_is_pulled_and_goes_too() {
    let registry = Registry::start(false);
    let other = registry.take(&Image::builder().busybox().build().await).await;
    let file = format!(
        "services:\n  web:\n    image: ${{DESKTOP_PLUGIN_IMAGE}}\n  db:\n    image: {other}:1\n    command: [/bin/sleep, '1000']\n    stop_signal: SIGKILL\n"
    );
    let manifest = r#"{"vm": {"composefile": "docker-compose.yml", "exposes": {"socket": "backend.sock"}}}"#;
    let image = Image::hello().file("metadata.json", manifest, 0o644).file("docker-compose.yml", file, 0o644);
    let id = registry.take(&image.build().await).await;
    for plain in [false, true] {
        let broker = broker_with(plain, None, None).await;
        broker.install(request(&id)).await.unwrap();
        assert!(has_image(&format!("{other}:1")).await);
        assert!(broker.uninstall(&id, false).await.unwrap().image_removed);
        assert!(!has_image(&format!("{other}:1")).await && !has_image(&format!("{id}:1")).await);
        no_traces(&broker, &id).await;
    }
}

#[tokio::test]
async fn the_users_credentials_are_used() {
    let registry = Registry::start(true);
    let host = &registry.host;
    let ui = r#"{"ui": {"dashboard-tab": {"title": "Test", "root": "ui", "src": "index.html"}}}"#;
    let id = registry.take(&Image::hello().file("metadata.json", ui, 0o644).build().await).await;
    let auths = |password: &str| format!(r#"{{"auths": {{"{host}": {{"auth": "{}"}}}}}}"#, basic(password));
    for plain in [false, true] {
        let broker = broker_with(plain, Some(auths(PASSWORD)), None).await;
        broker.install(request(&id)).await.unwrap();
        broker.uninstall(&id, false).await.unwrap();
        no_traces(&broker, &id).await;
        for config in [Some(auths("wrong")), None] {
            let broker = broker_with(plain, config, None).await;
            let error = broker.install(request(&id)).await.unwrap_err();
            assert_eq!(reason(&error), "PULL_FAILED", "{}", error.message());
            let text = error.message();
            assert!(text.contains(&id) && (text.contains("unauthorized") || text.contains("no basic auth")), "{text}");
            assert!(text.contains("docker login"), "it says what to do: {text}");
            assert!(!broker.log().contains("wrong") && !text.contains(&basic("wrong")), "no secrets");
            no_traces(&broker, &id).await;
        }
        let absent = format!("{host}/{}", unique("absent"));
        let broker = broker_with(plain, Some(auths(PASSWORD)), None).await;
        let error = broker.install(request(&absent)).await.unwrap_err();
        assert_eq!(reason(&error), "IMAGE_NOT_FOUND", "{}", error.message());
    }
}

/// Puts a credential helper into a directory.
fn put_helper(dir: &Path, name: &str, script: &str) {
    // By another process, so that no descriptor of ours keeps it busy.
    let path = dir.join(format!("docker-credential-{name}"));
    let mut cat = Command::new("sh")
        .arg("-c")
        .arg("cat > \"$0\"; chmod 755 \"$0\"")
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    cat.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    assert!(cat.wait().unwrap().success());
}

/// A registry that wants a password, an extension there that has nothing but a page, and a place for credential helpers.
async fn behind_a_password() -> (Registry, String, tempfile::TempDir) {
    let registry = Registry::start(true);
    let ui = r#"{"ui": {"dashboard-tab": {"title": "Test", "root": "ui", "src": "index.html"}}}"#;
    let id = registry.take(&Image::hello().file("metadata.json", ui, 0o644).build().await).await;
    let bin = tempfile::Builder::new().prefix("longshore-test-bin-").tempdir().unwrap();
    fs::set_permissions(bin.path(), fs::Permissions::from_mode(0o755)).unwrap();
    (registry, id, bin)
}

#[tokio::test]
async fn what_a_credential_helper_left_running_is_not_a_programs() {
    let (registry, id, bin) = behind_a_password().await;
    let host = &registry.host;
    let (agent, answer) =
        (bin.path().join("agent"), format!(r#"{{"ServerURL":"{host}","Username":"{USER}","Secret":"{PASSWORD}"}}"#));
    let started = format!("setsid sh -c 'echo $$ >{}; exec sleep 300' </dev/null >/dev/null 2>&1 &", agent.display());
    put_helper(bin.path(), "agent", &format!("cat >/dev/null; {started} echo '{answer}'"));
    let broker = broker_with(false, Some(r#"{"credsStore": "agent"}"#.to_owned()), Some(bin.path())).await;
    let local = local(&broker).await;
    broker.install(request(&id)).await.unwrap();
    let agent: u32 = fs::read_to_string(agent).unwrap().trim().parse().unwrap();
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{agent}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split_once(' ').map(|(state, _)| state.to_owned())
    };
    assert_eq!(state().as_deref(), Some("S"));
    // The host's shim goes, and with it what it kept.
    let kill = "kill -9 $(sed -n 's/^PPid:\\t//p' /proc/$PPID/status); sleep 300";
    broker.run(shell(&local, pb::ExecTarget::Host, kill)).await;
    assert_eq!(broker.run(shell(&local, pb::ExecTarget::Host, "exit 7")).await.code(), 7);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(state().as_deref(), Some("S"));
    assert!(Command::new("kill").arg(agent.to_string()).status().unwrap().success());
    eventually(|| async { state().is_none().then_some(()) }).await;
    broker.uninstall(&id, false).await.unwrap();
}

#[tokio::test]
async fn a_credential_helper_is_asked() {
    let (registry, id, bin) = behind_a_password().await;
    let host = &registry.host;
    let helper = |name: &str, script: &str| put_helper(bin.path(), name, script);
    helper(
        "test",
        &format!(
            r#"[ "$1" = get ] && [ "$(cat)" = {host} ] && echo '{{"ServerURL":"{host}","Username":"{USER}","Secret":"{PASSWORD}"}}'"#
        ),
    );
    helper("locked", "cat > /dev/null; echo 'the keychain is locked' >&2; exit 1");
    for plain in [false, true] {
        for config in [format!(r#"{{"credHelpers": {{"{host}": "test"}}}}"#), r#"{"credsStore": "test"}"#.to_owned()] {
            let broker = broker_with(plain, Some(config), Some(bin.path())).await;
            broker.install(request(&id)).await.unwrap();
            broker.uninstall(&id, false).await.unwrap();
            no_traces(&broker, &id).await;
        }
        for (name, said) in [("locked", "the keychain is locked"), ("absent", "docker-credential-absent")] {
            let config = format!(r#"{{"credHelpers": {{"{host}": "{name}"}}}}"#);
            let broker = broker_with(plain, Some(config), Some(bin.path())).await;
            let error = broker.install(request(&id)).await.unwrap_err();
            assert_eq!(reason(&error), "PULL_FAILED", "{}", error.message());
            assert!(error.message().contains(said), "{}", error.message());
        }
    }
}

#[tokio::test]
async fn pulling_always_and_never() {
    let registry = Registry::start(false);
    let ui = r#"{"ui": {"dashboard-tab": {"title": "Test", "root": "ui", "src": "index.html"}}}"#;
    let id = registry.take(&Image::hello().file("metadata.json", ui, 0o644).build().await).await;
    let name = format!("{id}:1");
    let broker = broker_with(false, None, None).await;
    let with = |pull: pb::PullPolicy| {
        let image = pb::ImageSource { reference: name.clone(), pull: pull.into() };
        pb::Source { source: Some(pb::source::Source::Image(image)) }
    };
    let install = |pull| pb::InstallRequest { source: Some(with(pull)), trust: true, ..Default::default() };
    let error = broker.install(install(pb::PullPolicy::Never)).await.unwrap_err();
    assert_eq!(reason(&error), "IMAGE_NOT_FOUND");
    // Another image has that name here: always means the registry's, and Inspect gives the name back.
    let local = Image::hello().file("metadata.json", ui, 0o644).file("local", "", 0o644).build_as(&id).await;
    let mine = engine().inspect_image(&local.reference).await.unwrap().id;
    let inspect = pb::InspectRequest { source: Some(with(pb::PullPolicy::Always)) };
    let inspected = broker.extensions().await.inspect(inspect).await.unwrap().into_inner();
    assert_ne!(Some(&inspected.image_id), mine.as_ref());
    assert_eq!(engine().inspect_image(&name).await.unwrap().id, mine);
    assert!(!has_image(&inspected.image_id).await);
    let extension = broker.install(install(pb::PullPolicy::Always)).await.unwrap();
    assert_eq!(extension.image_id, inspected.image_id);
    broker.uninstall(&id, false).await.unwrap();
    no_traces(&broker, &id).await;
    let options = RemoveImageOptionsBuilder::default().force(true).build();
    let _ = engine().remove_image(&mine.unwrap(), Some(options), None).await;
}
