use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use longshore::{
    dockerd::Dockerd,
    exec::{ConnectReason, Cut, Event, Exit, Hub, InContainer, Link, Outcome, Reach, WindowSize},
    model::error::{Error, Reason},
    model::mounts::CONTAINER_DIR,
};

use crate::support::*;

const GUEST_DIR: &str = "/run/guest-services";

/// A container with the broker's and the guest directory mounted, removed when dropped.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) data: tempfile::TempDir,
    _image: Image,
}

/// An image, removed when dropped.
pub(crate) struct Image(pub(crate) String);

impl Container {
    /// Runs `image` with these options; the program sleeps.
    pub(crate) fn start(image: Image, options: &[&str]) -> Self {
        Container::start_program(image, options, &["sleep", "600"])
    }

    fn start_program(image: Image, options: &[&str], argv: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        for name in ["broker", "guest"] {
            std::fs::create_dir(data.path().join(name)).unwrap();
            std::fs::set_permissions(data.path().join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        let broker = format!("{}:{CONTAINER_DIR}:ro", data.path().join("broker").display());
        let guest = format!("{}:{GUEST_DIR}", data.path().join("guest").display());
        let mut args = vec!["run", "-d", "--network", "none", "-v", &broker, "-v", &guest];
        args.extend(options);
        args.push(&image.0);
        args.extend(argv);
        Container { id: docker(&args), data, _image: image }
    }

    pub(crate) fn broker_dir(&self) -> PathBuf {
        self.data.path().join("broker")
    }

    /// Where the kernel has its process limit. What an engine says of it is what it was told, if that.
    pub(crate) fn pids_limit(&self) -> PathBuf {
        let init = docker(&["inspect", "-f", "{{.State.Pid}}", &self.id]);
        let cgroups = std::fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
        let of = |controller: &str| cgroups.lines().find_map(|line| line.split_once(controller)).map(|(_, path)| path);
        match of(":pids:") {
            Some(path) => format!("/sys/fs/cgroup/pids{path}/pids.max"),
            None => format!("/sys/fs/cgroup{}/pids.max", of("0::").unwrap()),
        }
        .into()
    }

    pub(crate) async fn link(&self, hub: &Hub, user: Option<&str>) -> Result<Arc<Link>, Error> {
        link(hub, &dockerd(), &self.id, user, &self.broker_dir()).await
    }
}

/// This machine's engine.
pub(crate) fn dockerd() -> Dockerd {
    Dockerd::at("/var/run/docker.sock")
}

/// The link to the shim of a user in a container that shares a directory.
pub(crate) async fn link(
    hub: &Hub,
    dockerd: &Dockerd,
    container: &str,
    user: Option<&str>,
    broker_dir: &Path,
) -> Result<Arc<Link>, Error> {
    hub.container(InContainer { dockerd, container, user, reach: Reach::Shared(broker_dir) }).await
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-fv", &self.id]).output();
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", &self.0]).output();
    }
}

pub(crate) fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().unwrap();
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// States and command lines of all that runs in a container. Podman's `docker top` may answer with nothing.
fn processes(container: &Container) -> Vec<(String, String)> {
    let init = docker(&["inspect", "-f", "{{.State.Pid}}", &container.id]).parse().unwrap();
    in_namespace_of(init)
}

/// How many shims run in a container.
fn shims(container: &Container) -> usize {
    processes(container).iter().filter(|(_, command)| command.contains("shim container")).count()
}

/// An image of one static file, and for busybox links to it.
fn import(path: &str, source: &str) -> Image {
    let name = format!("longshore-test-exec:{}", marker());
    let mut child = Command::new("docker")
        // Podman's would be one image with another test's of the same content and second.
        .args(["import", "--message", &name, "-", &name])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut archive = tar::Builder::new(child.stdin.take().unwrap());
    let content = std::fs::read(source).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    archive.append_data(&mut header, path, content.as_slice()).unwrap();
    if path == "bin/busybox" {
        for applet in [
            "sh", "sleep", "cat", "id", "pwd", "env", "setsid", "nc", "yes", "true", "kill", "head", "tty", "stty",
            "tail", "sync", "wc", "test", "seq",
        ] {
            let mut link = tar::Header::new_gnu();
            link.set_entry_type(tar::EntryType::Symlink);
            link.set_size(0);
            archive.append_link(&mut link, format!("bin/{applet}"), "/bin/busybox").unwrap();
        }
    }
    archive.into_inner().unwrap().flush().unwrap();
    assert!(child.wait().unwrap().success());
    Image(name)
}

pub(crate) fn busybox() -> Image {
    import("bin/busybox", "/bin/busybox")
}

pub(crate) fn in_container(mut program: longshore::exec::Program) -> longshore::exec::Program {
    program.env.vars.retain(|(name, _)| name != "PATH");
    program.env.inherit = true;
    program
}

async fn run(link: &Link, argv: &[&str]) -> Told {
    told(link.run(&in_container(program(argv))).await.unwrap()).await
}

#[tokio::test]
async fn the_end_is_told_as_it_was() {
    let container = Container::start(busybox(), &["-e", "OF_THE_IMAGE=x", "-w", "/bin"]);
    let hub = hub();
    let begin = Instant::now();
    let link = container.link(&hub, None).await.unwrap();
    assert_eq!(run(&link, &["true"]).await.outcome, Outcome::Code(0));
    println!("cold: {:?}", begin.elapsed());
    let begin = Instant::now();
    for _ in 0..100 {
        let link = container.link(&hub, None).await.unwrap();
        assert_eq!(run(&link, &["true"]).await.outcome, Outcome::Code(0));
    }
    println!("warm: {:?}", begin.elapsed() / 100);
    let begin = Instant::now();
    docker(&["exec", &container.id, "true"]);
    println!("docker exec: {:?}", begin.elapsed());

    let seven = run(&link, &["sh", "-c", "exit 7"]).await;
    assert_eq!(seven.outcome, Outcome::Code(7));
    let cmdline = std::fs::read(format!("/proc/{}/cmdline", std::process::id())).unwrap();
    assert!(!cmdline.is_empty() && seven.pid.is_some());
    let killed = run(&link, &["sh", "-c", "kill -9 $$"]).await;
    assert!(matches!(killed.outcome, Outcome::Signal { number: 9, .. }), "{killed:?}");
    for (argv, expected) in [(&["nothing"], "PROGRAM_NOT_FOUND"), (&["/bin"], "NOT_EXECUTABLE")] {
        let told = run(&link, argv).await;
        assert!(matches!(told.outcome, Outcome::StartFailure { reason, .. } if reason == expected), "{told:?}");
    }
    let shown = run(&link, &["sh", "-c", "pwd; env"]).await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.starts_with("/bin\n") && shown.contains("OF_THE_IMAGE=x\n") && shown.contains("HOME=/"), "{shown}");
    let names = std::fs::read_dir(container.broker_dir()).unwrap().count();
    assert_eq!(names, 1, "only the copy stays");
}

#[tokio::test]
async fn the_process_id_is_this_machines() {
    let container = Container::start(busybox(), &[]);
    let hub = hub();
    let link = container.link(&hub, None).await.unwrap();
    let mut run = link.run(&in_container(program(&["sleep", "77"]))).await.unwrap();
    let Some(Event::Started { pid, .. }) = run.next().await else { panic!() };
    let cmdline = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(cmdline, "sleep\x0077\0");
}

#[tokio::test]
async fn it_runs_where_little_is_allowed() {
    let confined: &[&[&str]] = &[
        &["--user", "1000"],
        &["--user", "1000:1000", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
        &["--read-only"],
        &["--cap-drop", "ALL"],
        &["--pids-limit", "16"],
    ];
    for options in confined {
        let container = Container::start(busybox(), options);
        let hub = hub();
        let link = container.link(&hub, None).await.unwrap_or_else(|error| panic!("{options:?}: {error}"));
        let who = run(&link, &["id", "-u"]).await;
        let expected: &[u8] = if options[0] == "--user" { b"1000\n" } else { b"0\n" };
        assert_eq!((who.stdout.as_slice(), who.outcome), (expected, Outcome::Code(0)), "{options:?}");
        let mut seated = in_container(program(&["tty"]));
        seated.tty = Some(WindowSize { columns: 80, rows: 24 });
        let seated = told(link.run(&seated).await.unwrap()).await;
        assert!(seated.stdout.starts_with(b"/dev/pts/"), "{options:?}: {seated:?}");
        let marker = marker();
        let tree =
            in_container(with_env(shell("trap '' TERM; (setsid sleep 300 &); echo up; sleep 300"), "MARK", &marker));
        let mut tree = link.run(&tree).await.unwrap();
        wait_for(&mut tree, "up").await;
        wait_until_marked(&marker, 2).await;
        drop(tree);
        wait_until_none_marked(&marker).await;
    }
}

#[tokio::test]
async fn it_runs_in_an_image_of_one_program() {
    let image = import("program", SHIM);
    // The one program there is sits in a read of its standard input.
    let container = Container::start_program(image, &["-i"], &["/program", "shim", "container"]);
    let hub = hub();
    let link = container.link(&hub, None).await.unwrap();
    let told = run(&link, &["/program", "shim", "nonsense"]).await;
    assert_eq!(told.outcome, Outcome::Code(1), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stderr).contains("not by hand"));
}

#[tokio::test]
async fn dropping_a_run_ends_the_whole_tree() {
    let container = Container::start(busybox(), &[]);
    let hub = hub();
    let link = container.link(&hub, None).await.unwrap();
    for _ in 0..20 {
        let marker = marker();
        let mut tree = link.run(&in_container(with_env(shell(WILD_TREE), "MARK", &marker))).await.unwrap();
        wait_for(&mut tree, "up").await;
        wait_until_marked(&marker, 8).await;
        drop(tree);
        wait_until_none_marked(&marker).await;
    }
    let left = processes(&container);
    assert!(left.iter().all(|(state, _)| state != "Z"), "{left:?}");
}

#[tokio::test]
async fn dropping_the_hub_ends_all_in_the_container() {
    let container = Container::start(busybox(), &[]);
    let marker = marker();
    let hub = hub();
    let link = container.link(&hub, None).await.unwrap();
    let mut left_over = in_container(with_env(shell("sleep 300 & exit 0"), "MARK", &marker));
    left_over.drain_timeout = Duration::ZERO;
    told(link.run(&left_over).await.unwrap()).await;
    assert_eq!(count_marked(&marker), 1);
    drop(link);
    hub.shutdown().await;
    wait_until_none_marked(&marker).await;
    let begin = Instant::now();
    while shims(&container) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(5), "the shim stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_container_that_stops_is_told() {
    let container = Container::start(busybox(), &["--stop-timeout", "1"]);
    let hub = hub();
    let link = container.link(&hub, None).await.unwrap();
    let mut run = link.run(&in_container(shell("echo up; sleep 300"))).await.unwrap();
    wait_for(&mut run, "up").await;
    let id = container.id.clone();
    let stop = tokio::task::spawn_blocking(move || docker(&["kill", &id]));
    let events: Vec<_> = run.collect().await;
    stop.await.unwrap();
    // The keeper may see the program die before it dies itself.
    let [Event::Exited(Exit { outcome, .. }), Event::Drained(drained)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert!(matches!(outcome, Outcome::Unknown { .. } | Outcome::Signal { number: 9, .. }), "{outcome:?}");
    assert!(drained.cut.is_none_or(|cut| cut == Cut::BackendGone));
    println!("{outcome:?}, {:?}", drained.cut);

    assert!(!link.is_alive());
    let reason = async || container.link(&hub, None).await.unwrap_err().reason();
    assert_eq!(reason().await, Reason::BackendStopped);
    docker(&["start", &container.id]);
    let again = container.link(&hub, None).await.unwrap();
    assert_eq!(crate::container::run(&again, &["true"]).await.outcome, Outcome::Code(0));
    drop(again);
    hub.shutdown().await;
    docker(&["pause", &container.id]);
    assert_eq!(reason().await, Reason::ContainerPaused);
    docker(&["unpause", &container.id]);
    docker(&["rm", "-f", &container.id]);
    assert_eq!(reason().await, Reason::ResourceNotFound);
}

#[tokio::test]
async fn where_the_shim_cannot_run_it_says_so() {
    let image = busybox();
    let id = docker(&["run", "-d", "--network", "none", &image.0, "sleep", "600"]);
    let bare = Container { id, data: tempfile::tempdir().unwrap(), _image: image };
    std::fs::create_dir(bare.broker_dir()).unwrap();
    let error = bare.link(&hub(), None).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ShimUnavailable, "{error}");
    println!("{error}");
    let container = Container::start(busybox(), &[]);
    let error = container.link(&hub(), Some("no-such-user")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ShimUnavailable, "{error}");
    println!("{error}");
}

#[tokio::test]
async fn callers_at_once_share_one_shim() {
    let container = Container::start(busybox(), &[]);
    let hub = hub();
    let links = futures_util::future::join_all((0..8).map(|_| container.link(&hub, None))).await;
    let links: Vec<_> = links.into_iter().map(Result::unwrap).collect();
    assert!(links.iter().all(|link| Arc::ptr_eq(link, &links[0])));
    let other = container.link(&hub, Some("1000")).await.unwrap();
    assert_eq!(run(&other, &["id", "-u"]).await.stdout, b"1000\n");
    assert_eq!(shims(&container), 2);
}

/// A broker without privileges reaches the socket of a container's root, and empties its directory.
#[tokio::test]
async fn a_plain_user_reaches_what_belongs_to_root() {
    let container = Container::start(busybox(), &[]);
    let guest = container.data.path().join("guest");
    std::fs::set_permissions(container.data.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(container.broker_dir(), Some(65534), Some(65534)).unwrap();
    std::fs::create_dir_all(guest.join("a/b")).unwrap();
    std::fs::write(guest.join("a/b/c"), b"x").unwrap();
    let listener = tokio::net::UnixListener::bind(guest.join("ext.sock")).unwrap();
    std::fs::set_permissions(guest.join("ext.sock"), PermissionsExt::from_mode(0o755)).unwrap();
    let group = Command::new("stat").args(["-c", "%g", "/var/run/docker.sock"]).output().unwrap();
    let group = String::from_utf8(group.stdout).unwrap();
    let groups = format!("--groups={}", group.trim());
    // A copy, because a plain user may not enter where tests are built.
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let (exe, shim) = (place.path().join("broker"), place.path().join("shim"));
    std::fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    std::fs::copy(SHIM, &shim).unwrap();
    let child = tokio::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", &groups, "--"])
        .arg(&exe)
        .args(["--exact", "container::broker_of_a_plain_user", "--ignored", "--nocapture"])
        .env("LONGSHORE_TEST_CONTAINER", &container.id)
        .env("LONGSHORE_TEST_DATA", container.data.path())
        .env("LONGSHORE_TEST_SHIM", &shim)
        .current_dir("/")
        .output();
    let accept = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.writable().await.unwrap();
            stream.try_write(b"hello").unwrap();
        }
    };
    let output = tokio::select! { output = child => output.unwrap(), () = accept => unreachable!() };
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("REACHED"), "{said}");
}

/// Not a test: the broker of the one above.
#[tokio::test]
#[ignore = "started by a_plain_user_reaches_what_belongs_to_root"]
async fn broker_of_a_plain_user() {
    let Ok(id) = std::env::var("LONGSHORE_TEST_CONTAINER") else { return };
    let data = PathBuf::from(std::env::var("LONGSHORE_TEST_DATA").unwrap());
    let shim = std::env::var("LONGSHORE_TEST_SHIM").unwrap().into();
    let direct = tokio::net::UnixStream::connect(data.join("guest/ext.sock")).await;
    assert_eq!(direct.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    let hub = Hub::new(longshore::exec::HubOptions { shim, ..Default::default() });
    let link = link(&hub, &dockerd(), &id, Some("0"), &data.join("broker")).await.unwrap();
    let mut stream = link.connect(GUEST_DIR, "ext.sock").await.unwrap();
    let mut said = [0; 5];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut said).await.unwrap();
    assert_eq!(&said, b"hello");
    assert_eq!(link.connect(GUEST_DIR, "none").await.unwrap_err().why, Some(ConnectReason::Missing));
    assert_eq!(link.connect(GUEST_DIR, "a/b/c").await.unwrap_err().why, Some(ConnectReason::NotASocket));
    assert_eq!(link.connect(GUEST_DIR, "../longshore/shim").await.unwrap_err().why, Some(ConnectReason::NotASocket));
    println!("REACHED");
}

#[tokio::test]
async fn a_killed_broker_leaves_nothing() {
    let container = Container::start(busybox(), &[]);
    for _ in 0..5 {
        let marker = marker();
        let mut broker = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "container::broker_of_its_own", "--ignored", "--nocapture"])
            .env("LONGSHORE_TEST_MARK", &marker)
            .env("LONGSHORE_TEST_CONTAINER", &container.id)
            .env("LONGSHORE_TEST_DATA", container.data.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(broker.stdout.take().unwrap()));
        assert!(lines.any(|line| line.unwrap().contains("READY")));
        wait_until_marked(&format!("IN_TREE={marker}"), 8).await;
        broker.kill().unwrap();
        broker.wait().unwrap();
        wait_until_none_marked(&marker).await;
    }
}

/// Not a test: the broker that is killed by the one above.
#[tokio::test]
#[ignore = "started by a_killed_broker_leaves_nothing"]
async fn broker_of_its_own() {
    let Ok(id) = std::env::var("LONGSHORE_TEST_CONTAINER") else { return };
    let data = PathBuf::from(std::env::var("LONGSHORE_TEST_DATA").unwrap());
    let marker = std::env::var("LONGSHORE_TEST_MARK").unwrap();
    let hub = hub();
    let link = link(&hub, &dockerd(), &id, None, &data.join("broker")).await.unwrap();
    let mut run = link.run(&in_container(with_env(shell(WILD_TREE), "IN_TREE", &marker))).await.unwrap();
    wait_for(&mut run, "up").await;
    println!("READY");
    tokio::time::sleep(Duration::from_secs(60)).await;
}
