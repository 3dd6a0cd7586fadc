//! What is in `deploy`, tried for real: units, the Debian package, the container.

mod in_container;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use crate::support::{Broker, BrokerOptions};

/// Longest time that a word to the service manager may take.
const SOON: Duration = Duration::from_secs(20);

fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What a command says, which must not fail.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; `make setup` installs it"));
    let Output { status, stdout, stderr } = &output;
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(text));
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    format!("{stdout}{stderr}")
}

/// The program as it is shipped: without what only a debugger reads, which is most of it in a debug build.
fn stripped(directory: &Path) -> PathBuf {
    let binary = directory.join("longshore");
    said(Command::new("strip").arg("-o").arg(&binary).arg(env!("CARGO_BIN_EXE_longshore")));
    binary
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    for kind in ["user", "system"] {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for unit in fs::read_dir(own("deploy/systemd").join(kind)).unwrap() {
            let unit = unit.unwrap().path();
            if !matches!(unit.extension().and_then(|name| name.to_str()), Some("service" | "socket")) {
                continue;
            }
            // The program has to be there, and is not installed here.
            let text = fs::read_to_string(&unit).unwrap();
            let text = text.replace("=/usr/bin/longshore ", &format!("={} ", env!("CARGO_BIN_EXE_longshore")));
            let file = directory.path().join(unit.file_name().unwrap());
            fs::write(&file, text).unwrap();
            files.push(file);
        }
        assert!(files.len() > 1, "{files:?}");
        let mut verify = Command::new("systemd-analyze");
        verify.args([&format!("--{kind}"), "--man=no", "--generators=no", "verify"]).args(&files);
        verify.env("XDG_RUNTIME_DIR", directory.path()).env("SYSTEMD_LOG_LEVEL", "warning");
        // It warns of what it does not know, and succeeds.
        let said = said(&mut verify);
        assert!(!said.contains("longshore"), "{kind}: {said}");
    }
}

/// What comes of the steps under a systemd of its own, which has the units of that kind.
fn under_systemd(kind: &str, steps: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    // Other users pass through to what they share with the broker.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let scripts = own("tests/broker/deploying/units");
    let mut run = Command::new("unshare");
    run.args(["--mount", "bash"]).arg(scripts.join("manager.sh")).arg(directory.path());
    run.arg(env!("CARGO_BIN_EXE_longshore")).arg(own("deploy/systemd").join(kind)).arg(scripts.join(steps));
    said(&mut run)
}

#[test]
fn the_first_call_starts_the_users_unit_and_a_killed_one_starts_again() {
    assert_eq!(
        under_systemd("user", "user.sh"),
        "before: success inactive\n\
         programs: each in a cgroup of its own, which is killed as a whole\n\
         called: success active\n\
         again: 0\n\
         stopped: success inactive\n\
         the socket is gone\n",
    );
}

#[test]
fn the_unit_for_several_users_answers_those_who_are_named() {
    assert_eq!(
        under_systemd("system", "users.sh"),
        "started: success active\n\
         programs: each in a cgroup of its own, which is killed as a whole\n\
         longshore: no broker answers on /run/longshore/longshore.sock: permission denied\n  \
         that socket belongs to another user; name yours with --socket\n\
         another: 1\n\
         again: success active\n\
         touch: cannot touch '/usr/written': Read-only file system\n\
         stopped: success inactive\n"
    );
}

#[tokio::test]
async fn the_service_manager_is_told_when_it_is_ready_and_when_it_stops() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let env = vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string())];
    let mut broker = Broker::start_with(BrokerOptions { env, ..BrokerOptions::default() }).await;
    let next = || {
        let mut told = [0; 64];
        let length = manager.recv(&mut told).unwrap();
        String::from_utf8(told[..length].to_vec()).unwrap()
    };
    assert_eq!(next(), "READY=1");
    assert!(said(&mut broker.cli(&["info"])).contains("Broker:"));
    assert!(broker.stop().await.success());
    assert_eq!(next(), "STOPPING=1");
}

#[tokio::test]
async fn a_service_manager_in_the_abstract_namespace_is_told_and_one_that_is_gone_holds_nothing_up() {
    use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
    let name = crate::support::unique("longshore-notify");
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let env = vec![("NOTIFY_SOCKET".to_owned(), format!("@{name}"))];
    let mut broker = Broker::start_with(BrokerOptions { env, ..BrokerOptions::default() }).await;
    let mut told = [0; 64];
    let length = manager.recv(&mut told).unwrap();
    assert_eq!(&told[..length], b"READY=1");
    drop(manager);
    assert!(broker.stop().await.success());
    assert!(broker.log().contains("the service manager cannot be told"), "{}", broker.log());
}

#[test]
fn the_debian_package_installs_what_it_names_and_goes_again() {
    let directory = tempfile::tempdir().unwrap();
    let (binary, out, root) = (stripped(directory.path()), directory.path().join("out"), directory.path().join("root"));
    let mut build = Command::new(own("deploy/deb.sh"));
    build.arg("--binary").arg(&binary).arg("--out").arg(&out);
    // Small enough, and soon made.
    build.env("DPKG_DEB_COMPRESSOR_TYPE", "gzip").env("DPKG_DEB_COMPRESSOR_LEVEL", "1");
    said(&mut build);
    let version = env!("CARGO_PKG_VERSION");
    let package = fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
    let name = package.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(&format!("longshore_{version}_")), "{name}");
    let described = said(Command::new("dpkg-deb").arg("--info").arg(&package));
    assert!(described.contains(" Description: A gRPC backend broker for container-desktop extensions"), "{described}");

    let database = root.join("var/lib/dpkg");
    fs::create_dir_all(database.join("updates")).unwrap();
    fs::create_dir_all(database.join("info")).unwrap();
    fs::write(database.join("status"), "").unwrap();
    let dpkg = |args: &[&str]| {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", root.display())).args(["--force-not-root", "--log=/dev/null"]).args(args);
        said(dpkg.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
    };
    dpkg(&["--install", package.to_str().unwrap()]);
    let installed = root.join("usr/bin/longshore");
    assert_eq!(said(Command::new(&installed).arg("--version")), format!("longshore {version}\n"));
    assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o7777, 0o755);
    for file in [
        "usr/lib/systemd/user/longshore.service",
        "usr/lib/systemd/user/longshore.socket",
        "usr/lib/systemd/system/longshore.service",
        "usr/lib/systemd/system/longshore.socket",
        "usr/lib/systemd/system/longshore-users.service",
        "usr/lib/sysusers.d/longshore.conf",
        "etc/longshore/config.toml",
        "usr/share/bash-completion/completions/longshore",
        "usr/share/doc/longshore/copyright",
    ] {
        let mode = fs::metadata(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}")).permissions().mode();
        assert_eq!(mode & 0o7777, 0o644, "{file}");
    }
    has_what_its_readme_leads_to(&root.join("usr/share/doc/longshore"));
    // The configuration that it brings is one that is taken.
    let doctor = Command::new(&installed)
        .args(["doctor", "--json", "--config"])
        .arg(root.join("etc/longshore/config.toml"))
        .env_clear()
        .env("HOME", directory.path())
        .output()
        .unwrap();
    let doctor = String::from_utf8_lossy(&doctor.stdout);
    assert!(doctor.contains(r#"{"check":"configuration","verdict":"ok""#), "{doctor}");
    fs::write(root.join("etc/longshore/config.toml"), "# mine\n").unwrap();
    dpkg(&["--remove", "longshore"]);
    assert!(!installed.exists());
    assert_eq!(fs::read_to_string(root.join("etc/longshore/config.toml")).unwrap(), "# mine\n");
    dpkg(&["--purge", "longshore"]);
    assert!(!root.join("etc/longshore").exists());
}

/// Of what is text for people.
fn has_what_its_readme_leads_to(directory: &Path) {
    let readme = fs::read_to_string(directory.join("README.md")).unwrap();
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let texts: Vec<&str> = links.filter(|link| link.starts_with("docs/") || link.starts_with("deploy/")).collect();
    assert!(texts.contains(&"docs/operations.md"), "{texts:?}");
    for text in texts {
        assert!(directory.join(text).is_file(), "{text}");
    }
}

#[test]
fn what_was_never_run_says_so_in_its_first_lines() {
    for file in ["launchd/dev.longshore.plist", "windows/register.ps1"] {
        let text = fs::read_to_string(own("deploy").join(file)).unwrap();
        assert!(text.lines().take(2).any(|line| line.contains("UNTESTED")), "{file}");
    }
}
