//! A terminal with somebody at it, and a shell in it that runs one command.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    },
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{InputModes, LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize},
};

/// Longest time that anything may take to show.
const LIMIT: Duration = Duration::from_secs(60);
/// Runs its arguments, tells their exit code, and stays until a line is typed: a terminal whose session has ended is
/// reset by the kernel. Ctrl-C is for the command.
const SCRIPT: &str = r#"trap : INT; "$@"; printf '[code %s]' $?; read line"#;

/// A terminal in which a command runs.
pub(crate) struct Pty {
    keyboard: File,
    screen: mpsc::Receiver<Vec<u8>>,
    /// What it has shown and nobody has looked at.
    shown: String,
    shell: Child,
    before: String,
}

impl Pty {
    /// Runs a command in a new terminal of that size.
    pub(crate) fn run(command: &[OsString], columns: u16, rows: u16) -> Pty {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = std::ffi::OsStr::from_bytes(name.as_bytes());
        let theirs = File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(theirs).unwrap();
        resize(&ours, columns, rows);
        // Not quite as it is by default, so that it cannot become so by chance.
        let mut modes = tcgetattr(&ours).unwrap();
        modes.input_modes |= InputModes::IXANY;
        modes.local_modes &= !LocalModes::ECHOK;
        tcsetattr(&ours, OptionalActions::Now, &modes).unwrap();
        let mut shell = Command::new("setsid");
        shell.args(["--ctty", "sh", "-c", SCRIPT, "sh"]).args(command).env("TERM", "vt220");
        let [stdin, stdout, stderr] = std::array::from_fn(|_| Stdio::from(theirs.try_clone().unwrap()));
        let shell = shell.stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
        let keyboard = File::from(ours);
        let screen = watch(keyboard.try_clone().unwrap(), theirs.into());
        Pty { before: told(&modes), keyboard, screen, shown: String::new(), shell }
    }

    /// Types these bytes.
    pub(crate) fn type_in(&mut self, bytes: &[u8]) {
        self.keyboard.write_all(bytes).unwrap();
    }

    /// Waits until the screen shows that text, and tells what it showed before.
    pub(crate) fn shows(&mut self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                let mut before = std::mem::replace(&mut self.shown, rest);
                before.truncate(at);
                return before;
            }
            let left = LIMIT.saturating_sub(begun.elapsed());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("it does not show {text:?}, but {:?}", self.shown),
            }
        }
    }

    /// Changes its size.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        resize(&self.keyboard, columns, rows);
    }

    /// Whether keys are passed on as they are.
    pub(crate) fn is_raw(&self) -> bool {
        let modes = self.modes().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits for the end of the command and tells its exit code. The terminal has to be as it was before.
    pub(crate) fn ends(&mut self) -> u8 {
        self.shows("[code ");
        let code = self.shows("]").parse().unwrap();
        assert_eq!(told(&self.modes()), self.before);
        code
    }

    /// The command in the shell.
    pub(crate) fn pid(&self) -> Pid {
        let shell = self.shell.id();
        let begun = Instant::now();
        loop {
            let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
            if let Some(pid) = children.split_whitespace().next().and_then(|pid| pid.parse().ok()) {
                return Pid::from_raw(pid).unwrap();
            }
            assert!(begun.elapsed() < LIMIT, "the shell runs nothing");
            std::thread::yield_now();
        }
    }

    /// Sends the command a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.keyboard).unwrap()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // Ends the shell, and with its session the terminal.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

fn resize(terminal: impl std::os::fd::AsFd, columns: u16, rows: u16) {
    tcsetwinsize(terminal, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

/// All that there is to a terminal's settings.
fn told(modes: &Termios) -> String {
    format!("{modes:?}")
}

/// Reads the screen for as long as somebody looks. A hold of the terminal's other side keeps it from ending with the
/// first of those that write to it.
fn watch(mut screen: File, other_side: OwnedFd) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let _held = other_side;
        let mut bytes = [0; 4096];
        loop {
            match screen.read(&mut bytes) {
                Ok(length) if length > 0 && sender.send(bytes[..length].to_vec()).is_ok() => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    });
    receiver
}
