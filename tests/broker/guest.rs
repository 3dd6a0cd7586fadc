//! The directory that a container shares with the broker, in the hands of a container that means harm.

use std::{
    fs,
    os::unix::net::UnixListener as StdListener,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use longshore::pb::{self, FetchRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

use crate::support::{BrokerOptions, Image, Stage, as_both, docker, metadata, program, reason, trusting};

const SOCKET: &str = "/run/guest-services/backend.sock";

as_both!(
    a_link_is_never_followed,
    a_swap_under_calls_reaches_nothing_foreign,
    what_is_no_socket_is_refused,
    a_socket_mounted_over_the_name_is_refused,
    a_flood_of_files_changes_nothing,
    the_container_sees_only_what_is_its_own,
);

/// A socket that must never be reached.
struct Canary {
    listener: StdListener,
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Canary {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = StdListener::bind(&path).unwrap();
        for (path, mode) in [(directory.path(), 0o755), (&path, 0o777)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        listener.set_nonblocking(true).unwrap();
        Canary { listener, _directory: directory, path }
    }

    fn assert_untouched(&self) {
        assert!(self.listener.accept().is_err(), "a foreign socket was connected to");
    }
}

/// Does something in the container, as its root.
fn within(stage: &Stage, script: &str) -> String {
    docker(&["exec", &stage.container("service"), "/bin/sh", "-c", script])
}

async fn fetch(stage: &Stage) -> Result<String, String> {
    let told = stage.fetch(FetchRequest { path: "/".into(), ..Default::default() }).await;
    told.map(|told| String::from_utf8_lossy(&told.body).into_owned()).map_err(|status| reason(&status))
}

fn refused() -> Result<String, String> {
    Err("GUEST_PATH_UNSAFE".into())
}

/// Answers every request with `good`.
fn serve(listener: UnixListener) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").await;
            });
        }
    })
}

async fn a_link_is_never_followed(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let other = Image::hello().build().await;
    stage.broker.install(trusting(&other.reference)).await.unwrap();
    let id: longshore::model::reference::ExtensionId = other.id.parse().unwrap();
    let canary = Canary::new();
    let targets = [
        "/var/run/docker.sock".to_owned(),
        stage.broker.socket().display().to_string(),
        format!("../../{}/guest/backend.sock", id.slug()),
        stage.broker.data_dir().join("extensions").join(id.slug()).join("guest/backend.sock").display().to_string(),
        canary.path.display().to_string(),
        "backend.sock".to_owned(),
        "/nowhere".to_owned(),
        "own.sock".to_owned(),
    ];
    let own = StdListener::bind(stage.guest_dir().join("own.sock")).unwrap();
    own.set_nonblocking(true).unwrap();
    let mut told = Vec::new();
    for target in &targets {
        within(&stage, &format!("ln -sfn '{target}' {SOCKET}"));
        told.push((target, fetch(&stage).await));
    }
    stage.broker.uninstall(&other.id, false).await.unwrap();
    for (target, told) in told {
        assert_eq!(told, refused(), "{target}");
    }
    canary.assert_untouched();
    assert!(own.accept().is_err());
    // The directory itself cannot be made a link to elsewhere, since the container cannot reach its name.
    assert!(stage.guest_dir().symlink_metadata().unwrap().is_dir());
}

async fn a_swap_under_calls_reaches_nothing_foreign(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let serving = serve(stage.listen());
    let canary = Canary::new();
    let guest = stage.guest_dir();
    // One that the container can follow as well, where the broker connects from within.
    let inner = StdListener::bind(guest.join("inner.sock")).unwrap();
    inner.set_nonblocking(true).unwrap();
    let done = AtomicBool::new(false);
    let (good, bad) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let directory = fs::File::open(&guest).unwrap();
            for round in 0_u32.. {
                if done.load(Ordering::Acquire) {
                    break;
                }
                let target = if round.is_multiple_of(2) { canary.path.as_path() } else { "inner.sock".as_ref() };
                let _ = fs::remove_file(guest.join("trap"));
                std::os::unix::fs::symlink(target, guest.join("trap")).unwrap();
                for _ in 0..2 {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(&directory, "backend.sock", &directory, "trap", flags).unwrap();
                    std::thread::yield_now();
                }
            }
        });
        let told = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(call_much(&stage)));
        done.store(true, Ordering::Release);
        told
    });
    serving.abort();
    canary.assert_untouched();
    assert!(inner.accept().is_err(), "a link was followed within the container");
    assert!(good > 0 && bad > 0, "{good} good, {bad} refused");
}

/// Calls the backend from many tasks at once: how many calls it answered, and how many were refused for an unsafe path.
async fn call_much(stage: &Stage) -> (usize, usize) {
    let client = stage.broker.backends().await;
    let request = FetchRequest { extension: stage.id(), path: "/".into(), ..Default::default() };
    let callers = (0..8).map(|_| {
        let (mut client, request) = (client.clone(), request.clone());
        tokio::spawn(async move {
            let (mut good, mut bad) = (0, 0);
            for _ in 0..250 {
                match client.fetch(request.clone()).await {
                    Ok(told) => {
                        assert_eq!(told.into_inner().body, "good");
                        good += 1;
                    }
                    Err(status) => {
                        assert_eq!(reason(&status), "GUEST_PATH_UNSAFE", "{status:?}");
                        bad += 1;
                    }
                }
            }
            (good, bad)
        })
    });
    let (mut good, mut bad) = (0, 0);
    for caller in callers.collect::<Vec<_>>() {
        let told = caller.await.unwrap();
        (good, bad) = (good + told.0, bad + told.1);
    }
    (good, bad)
}

async fn what_is_no_socket_is_refused(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let serving = serve(stage.listen());
    assert_eq!(fetch(&stage).await, Ok("good".into()));
    within(&stage, &format!("ln {SOCKET} /run/guest-services/second"));
    assert_eq!(fetch(&stage).await, refused(), "a hard link");
    within(&stage, "rm /run/guest-services/second");
    assert_eq!(fetch(&stage).await, Ok("good".into()));
    for (what, script) in [
        ("a directory", "mkdir $S"),
        ("a pipe", "/bin/busybox mkfifo -m 777 $S"),
        ("a file", "echo > $S"),
        ("a device", "/bin/busybox mknod $S c 1 3"),
    ] {
        within(&stage, &format!("S={SOCKET}; rm -rf $S; {script}"));
        assert_eq!(fetch(&stage).await, refused(), "{what}");
    }
    within(&stage, &format!("rm -rf {SOCKET}; chmod 0 /run/guest-services"));
    // A directory that is shut keeps nobody out but the container's own plain users.
    let told = fetch(&stage).await;
    assert!(["BACKEND_STARTING", "NO_SOCKET"].contains(&told.clone().unwrap_err().as_str()), "{told:?}");
    serving.abort();
}

async fn a_socket_mounted_over_the_name_is_refused(options: BrokerOptions) {
    let canary = Canary::new();
    let manifest =
        metadata().replace(r#""image": "${DESKTOP_PLUGIN_IMAGE}""#, r#""composefile": "docker-compose.yaml""#);
    let compose = format!(
        "services:\n  web:\n    image: ${{DESKTOP_PLUGIN_IMAGE}}\n    \
         command: ['/bin/sh', '-c', 'trap \"exit 0\" TERM; sleep 600 & wait']\n    \
         volumes: ['{}:{SOCKET}']\n",
        canary.path.display()
    );
    let image = Image::with_manifest(&manifest).busybox().file("docker-compose.yaml", compose, 0o644);
    let stage = Stage::without_wait(image, options).await;
    assert_eq!(fetch(&stage).await, refused());
    canary.assert_untouched();
}

async fn a_flood_of_files_changes_nothing(options: BrokerOptions) {
    let stage = Stage::install(Image::hello().busybox(), options).await;
    within(
        &stage,
        "cd /run/guest-services; i=0; while [ $i -lt 10000 ]; do : > file-$i; i=$((i+1)); done; \
         d=deep; i=0; while [ $i -lt 200 ]; do mkdir $d; cd $d; i=$((i+1)); done; chmod 0 /run/guest-services/deep",
    );
    assert_eq!(fs::read_dir(stage.guest_dir()).unwrap().count(), 10_002);
    let told = stage.broker.get(&stage.id(), "/hello").await.unwrap();
    assert_eq!(told.status, 200);
    stage.broker.uninstall(&stage.id(), false).await.unwrap();
    assert!(!stage.extension_dir().exists());
}

async fn the_container_sees_only_what_is_its_own(options: BrokerOptions) {
    let stage = Stage::install(Image::hello().busybox(), options).await;
    for script in [
        "echo x > /run/longshore/new",
        "rm /run/longshore/shim",
        "echo x > /run/longshore/shim",
        "chmod 777 /run/longshore",
        "mv /run/longshore/shim /run/longshore/other",
        "/bin/busybox mount -o remount,rw /run/longshore",
    ] {
        let told = within(&stage, &format!("{script} 2>/dev/null; echo $?"));
        assert_ne!(told, "0", "{script}");
    }
    for path in [stage.broker.socket(), stage.broker.data_dir(), stage.broker.runtime_dir(), stage.extension_dir()] {
        let told = within(&stage, &format!("test -e {}; echo $?", path.display()));
        assert_eq!(told, "1", "{}", path.display());
    }
    let mounts = within(&stage, "cat /proc/self/mountinfo");
    let broker_home = stage.broker.home().display().to_string();
    let ours: Vec<&str> =
        mounts.lines().filter(|line| line.contains(&broker_home)).map(|line| line.split(' ').nth(4).unwrap()).collect();
    assert!(ours.iter().all(|target| ["/run/longshore", "/run/guest-services"].contains(target)), "{mounts}");
    // Nothing but the program that runs there, and the door it knocks at.
    let ran = stage.broker.run(program(&stage.id(), pb::ExecTarget::Backend, &["/bin/id"])).await;
    assert!(!matches!(ran.outcome, Some(pb::exited::Outcome::StartFailure(_))), "{ran:?}");
    let names = within(&stage, "ls -A /run/longshore");
    assert!(names.lines().all(|name| name == "shim" || name.ends_with(".sock")), "{names}");
}
