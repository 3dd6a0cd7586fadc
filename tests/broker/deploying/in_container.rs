//! The broker in a container, as `deploy/container` has it, on a base that is made here: no registry is asked.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{own, said, stripped};
use crate::{
    first_call::hello_extension,
    support::{EngineAt, Image, busybox, clear, docker, engine_traces, eventually, unique},
};

/// Longest time that the container may take to serve.
const START: Duration = Duration::from_secs(60);

/// The broker's container and all that was made for it; taken away however the test ends.
struct Shipped {
    directory: TempDir,
    project: String,
    base: String,
    image: String,
    /// The extension that it gets.
    extension: Image,
}

impl Shipped {
    fn start(extension: Image) -> Shipped {
        let directory = tempfile::Builder::new().prefix("longshore-test-").tempdir().unwrap();
        let name = unique("shipped");
        let (base, image) = (format!("longshore-test/{name}-base:1"), format!("longshore-test/{name}:1"));
        let shipped = Shipped { directory, project: format!("longshore-test-{name}"), base, image, extension };
        shipped.make_base();
        let context = shipped.path("context");
        fs::create_dir(&context).unwrap();
        stripped(&context);
        let mut build = shipped.docker();
        build.args(["build", "--build-arg", &format!("BASE={}", shipped.base), "--tag", &shipped.image]);
        // The old builder leaves nothing behind once the image is gone.
        said(build.arg("--file").arg(own("deploy/container/Dockerfile")).arg(&context).env("DOCKER_BUILDKIT", "0"));
        said(shipped.compose().args(["up", "--detach"]));
        let begun = Instant::now();
        while !shipped.longshore(&["info"]).status.success() {
            assert!(begun.elapsed() < START, "{}", said(shipped.compose().arg("logs")));
            std::thread::sleep(Duration::from_millis(100));
        }
        shipped
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An image with a shell, this machine's docker command line and its Compose.
    fn make_base(&self) {
        let root = self.path("base");
        let put = |from: &Path| {
            let to = root.join(from.strip_prefix("/").unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            said(Command::new("cp").arg("--dereference").arg(from).arg(to));
        };
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir_all(root.join("tmp")).unwrap();
        fs::write(root.join("bin/sh"), busybox()).unwrap();
        said(Command::new("chmod").arg("755").arg(root.join("bin/sh")));
        let cli = said(Command::new("sh").args(["-c", "command -v docker"]));
        let plugins = ["/usr/libexec", "/usr/lib", "/usr/local/libexec", "/usr/local/lib"];
        let plugins = plugins.map(|dir| Path::new(dir).join("docker/cli-plugins/docker-compose"));
        let compose = plugins.iter().find(|path| path.exists()).expect("`make setup` installs Compose");
        for program in [Path::new(cli.trim()), compose.as_path()] {
            put(program);
            for library in libraries(program) {
                put(&library);
            }
        }
        let archive = self.path("base.tar");
        said(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg("."));
        let mut import = self.docker();
        said(import.args(["import", "--change", "ENV PATH=/usr/bin:/bin:/usr/local/bin"]).arg(archive).arg(&self.base));
    }

    fn docker(&self) -> Command {
        EngineAt::default().cli(&[])
    }

    /// Compose on the file that is shipped.
    fn compose(&self) -> Command {
        let mut compose = self.docker();
        compose.arg("compose").arg("--file").arg(own("deploy/container/compose.yaml"));
        compose.args(["--project-name", &self.project]).env("BROKER_IMAGE", &self.image);
        compose.env("LONGSHORE_DATA_DIR", self.path("data")).env("LONGSHORE_RUNTIME_DIR", self.path("run"));
        compose
    }

    /// The command line, outside.
    fn longshore(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command.arg("--socket").arg(self.path("run/longshore.sock")).args(args);
        command.env_remove("LONGSHORE_SOCKET").stdin(Stdio::null()).output().unwrap()
    }

    /// What it says, which must not fail.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.longshore(args);
        assert!(output.status.success(), "{args:?}: {output:?}\n{}", said(self.compose().arg("logs")));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Shipped {
    fn drop(&mut self) {
        self.longshore(&["rm", "--volumes", &self.extension.id]);
        let _ = self.compose().args(["down", "--volumes", "--timeout", "5"]).output();
        clear(&EngineAt::default(), &self.extension.id);
        let _ = self.docker().args(["image", "rm", "--force", &self.image, &self.base]).output();
    }
}

/// What the loader brings for a program.
fn libraries(program: &Path) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

#[tokio::test]
async fn the_broker_works_in_a_container_as_it_is_shipped() {
    let shipped = Shipped::start(hello_extension().build().await);
    let image = &shipped.extension;
    let info: Value = serde_json::from_str(&shipped.ok(&["info", "--json"])).unwrap();
    let capability = |name: &str| {
        let all = info["capabilities"].as_array().unwrap();
        all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name} is not in {info}")).clone()
    };
    assert_eq!((&info["engine"]["reachable"], &capability("exec.host")["available"]), (&true.into(), &false.into()));
    assert!(capability("exec.host")["detail"].as_str().unwrap().contains("host_programs"), "{info}");
    assert_ne!(info["compose"]["version"], "");

    shipped.ok(&["install", &image.reference, "--pull", "never", "--yes"]);
    assert_eq!(shipped.ok(&["call", &image.id, "GET", "/hello?name=you"]).trim(), "Hello, you!");
    let who = shipped.ok(&["exec", &image.id, "--backend", "--", "/hello-backend", "whoami"]);
    assert!(who.contains("in the container"), "{who}");
    assert!(shipped.ok(&["ps", &image.id]).contains("created"));

    let refused = shipped.longshore(&["exec", &image.id, "--host", "--", "hello.sh"]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(125) && told.contains("host_programs is off"), "{refused:?}");
    assert!(shipped.ok(&["audit", &image.id]).contains("HOST_PROGRAMS_OFF"));

    // Its own doctor finds nothing that is wrong, and other containers are refused.
    let container = said(shipped.compose().args(["ps", "--quiet"]));
    let doctor = docker(&["exec", container.trim(), "/usr/bin/longshore", "doctor", "--json"]);
    assert!(doctor.contains(r#""healthy":true"#) && doctor.contains(r#""check":"broker","verdict":"ok""#), "{doctor}");
    assert!(doctor.contains("the broker runs no programs on the host"), "{doctor}");
    let run = format!("{}:/run/longshore", shipped.path("run").display());
    let line = ["run", "--rm", "--network", "none", "--volume", &run, "--entrypoint", "/usr/bin/longshore"];
    let other = shipped.docker().args(line).args([&shipped.image, "info"]).output().unwrap();
    assert!(String::from_utf8_lossy(&other.stderr).contains("the caller runs in a container"), "{other:?}");

    // What was installed outlives the container.
    said(shipped.compose().args(["restart", "--timeout", "20"]));
    let again = || async { shipped.longshore(&["call", &image.id, "GET", "/hello"]).status.success().then_some(()) };
    eventually(again).await;
    shipped.ok(&["rm", &image.id, "--volumes"]);
    assert_eq!(engine_traces(&image.id).await, [""; 0]);
}
