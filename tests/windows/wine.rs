//! A place for a broker under Wine, and the broker in it.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

const TARGET: &str = "x86_64-pc-windows-gnu";
/// How long the broker may take to do something, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// The manifest of an extension that has a program for Windows.
const MANIFEST: &str = r#"{"icon": "icon.svg",
    "ui": {"dashboard-tab": {"title": "Test", "root": "ui", "src": "index.html"}},
    "host": {"binaries": [{"windows": [{"path": "/host/NAME.exe"}]}]}}"#;

/// A directory with the programs, on which nobody else works.
pub(crate) struct Place {
    directory: TempDir,
    prefix: PathBuf,
    /// The name of the extension's program without its ending: no other test's processes have it.
    pub(crate) tool: String,
    /// Has Wine's own services live on. Whoever comes first starts them, and they hold its output open for as long.
    stays: Option<Child>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut stays) = self.stays.take() {
            stays.kill().unwrap();
            stays.wait().unwrap();
        }
    }
}

/// A broker under Wine.
pub(crate) struct Broker<'a> {
    place: &'a Place,
    /// The name of its pipe.
    pub(crate) pipe: String,
    /// It, as this machine sees it.
    process: Child,
    ended: bool,
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("\r\n", "\n")
}

impl Place {
    /// Builds the programs. `None` where this machine cannot, which tests/setup/windows.sh has said.
    pub(crate) fn make() -> Option<Self> {
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors().find(|above| above.join("windows").is_dir());
        let windows = made.expect("tests/setup/windows.sh was not run; `make test` runs it").join("windows");
        if let Ok(why) = fs::read_to_string(windows.join("missing")) {
            eprintln!("LEFT OUT: {why}");
            return None;
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root).args(["build", "--quiet", "--bin", "longshore", "--target", TARGET]);
        cargo.env("CARGO_TARGET_DIR", windows.parent().unwrap());
        assert!(cargo.status().unwrap().success(), "the broker is not built for Windows");
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let built = windows.parent().unwrap().join(TARGET).join("debug/longshore.exe");
        fs::copy(built, at.join("longshore.exe")).unwrap();
        fs::copy(windows.join("bcryptprimitives.dll"), at.join("bcryptprimitives.dll")).unwrap();
        let tool = format!("tool{}", std::process::id());
        let programs = [("tool.c", &*format!("{tool}.exe")), ("pipe.c", "pipe.exe"), ("engine.c", "engine.exe")];
        for (source, program) in programs {
            let mut gcc = Command::new("x86_64-w64-mingw32-gcc");
            gcc.arg("-o").arg(at.join(program)).arg(root.join("tests/windows").join(source));
            gcc.args(["-ladvapi32", "-lws2_32"]);
            assert!(gcc.status().unwrap().success(), "{source}");
        }
        let mut place = Place { directory, prefix: windows.join("prefix"), tool, stays: None };
        let mut stays =
            place.start("pipe.exe", &["stay"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        stays.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
        place.stays = Some(stays);
        Some(place)
    }

    /// A path of this machine as Wine has it.
    fn path(&self, name: &str) -> String {
        format!("Z:{}", self.directory.path().join(name).display()).replace('/', "\\")
    }

    /// The broker's data directory.
    pub(crate) fn data(&self) -> String {
        self.path("data")
    }

    /// A program of the place, to be started.
    pub(crate) fn start(&self, program: &str, arguments: &[&str]) -> Command {
        let mut wine = Command::new("wine");
        wine.arg(self.directory.path().join(program)).args(arguments);
        wine.env("WINEPREFIX", &self.prefix).env("WINEDEBUG", "-all").env_remove("DISPLAY").stdin(Stdio::null());
        wine
    }

    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.start(program, arguments).output().unwrap()
    }

    /// Lays an extension with that program into a directory, which this machine has under the path that is told.
    pub(crate) fn lay_extension(&self) -> PathBuf {
        let root = self.directory.path().join("extension");
        for directory in ["ui", "host"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("metadata.json"), MANIFEST.replace("NAME", &self.tool)).unwrap();
        fs::write(root.join("ui/index.html"), "<h1>hello</h1>").unwrap();
        fs::write(root.join("icon.svg"), "<svg xmlns='http://www.w3.org/2000/svg'/>").unwrap();
        let tool = format!("{}.exe", self.tool);
        fs::copy(self.directory.path().join(&tool), root.join("host").join(&tool)).unwrap();
        root
    }

    /// How many processes of the extension's program run.
    fn count(&self) -> usize {
        let name = format!("{}.exe", self.tool);
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let is_one = |entry: &fs::DirEntry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(first).ends_with(&name)
        };
        processes.filter(is_one).count()
    }

    /// Waits until that many run.
    pub(crate) fn until_there_are(&self, count: usize) {
        let begun = Instant::now();
        while self.count() != count {
            assert!(begun.elapsed() < SOON, "{} processes run, not {count}", self.count());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl<'a> Broker<'a> {
    /// Starts one and waits until it answers.
    pub(crate) fn start(place: &'a Place) -> Self {
        Broker::start_with(place, &[])
    }

    /// The same with options of its own.
    pub(crate) fn start_with(place: &'a Place, options: &[&str]) -> Self {
        let pipe = format!(r"\\.\pipe\longshore-test-{}", place.tool);
        let log = fs::File::create(place.directory.path().join("log")).unwrap();
        let data = place.data();
        let mut process = place.start("longshore.exe", &["serve", "--socket", &pipe, "--data-dir", &data]);
        process.args(options);
        let process = process.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let broker = Broker { place, pipe, process, ended: false };
        let begun = Instant::now();
        while !broker.cli(&["ls"]).status.success() {
            assert!(begun.elapsed() < SOON, "{}", broker.log());
            std::thread::sleep(Duration::from_millis(200));
        }
        broker
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.place.directory.path().join("log")).unwrap_or_default()
    }

    /// A command, to be started.
    pub(crate) fn start_cli(&self, arguments: &[&str]) -> Command {
        let mut all = vec!["--socket", &self.pipe];
        let tool: Vec<&str> =
            arguments.iter().map(|one| if *one == "tool" { &*self.place.tool } else { *one }).collect();
        all.extend(tool);
        self.place.start("longshore.exe", &all)
    }

    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        self.start_cli(arguments).output().unwrap()
    }

    /// Installs an extension that has a program for this system, and tells its id.
    pub(crate) fn install(&self) -> String {
        self.place.lay_extension();
        let id = "longshore-test/windows".to_owned();
        self.install_from(&[&self.place.path("extension"), "--as", &format!("{id}:1")]);
        id
    }

    pub(crate) fn install_from(&self, source: &[&str]) {
        let output = self.cli(&[&["install", "--trust"], source].concat());
        assert!(output.status.success(), "{}{}{}", text(&output.stdout), text(&output.stderr), self.log());
    }

    /// Has it end as its user would: what Wine makes of this signal is Ctrl-C. The code that it ends with.
    pub(crate) fn stop(&mut self) -> i32 {
        assert!(Command::new("kill").args(["-INT", &self.process.id().to_string()]).status().unwrap().success());
        self.ended = true;
        self.process.wait().unwrap().code().unwrap_or(-1)
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.ended = true;
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Broker<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}
