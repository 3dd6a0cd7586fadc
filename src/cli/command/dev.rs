//! `longshore dev`.

use std::{
    io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf, absolute},
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use crate::{
    backend::{self, Backend, Endpoint, Registration, Status, Statuses},
    cli::{
        NOT_EXECUTABLE, NOT_FOUND, Options, SIGNAL_BASE, connect::Connection, console::Console, failure::Failure,
        signals::EndSignals, source::path_text,
    },
    model::{platform::MAX_SOCKET_PATH_BYTES, shell},
    pb,
};
use clap::Args;
use rustix::{
    io::Errno,
    process::{Pid, Signal},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// Tells the process where to listen.
const BACKEND_SOCKET_VARIABLE: &str = "LONGSHORE_BACKEND_SOCKET";
/// In an argument, stands for the path of the socket.
const SOCKET_PLACEHOLDER: &str = "{socket}";
/// Time between asking a process to end and killing it.
const GRACE: Duration = Duration::from_secs(5);

/// Arguments of `dev`.
#[derive(Debug, Args)]
#[command(after_help = "\
While this runs, calls to the extension's backend go to the socket, and
`exec --backend` runs programs in the directory. In the command's arguments
{socket} becomes the path of the socket, which is in LONGSHORE_BACKEND_SOCKET
as well. Without a command, start the backend yourself.
The containers take over again when this ends: with the command, whose exit
code is passed on, or with Ctrl-C.")]
pub struct Dev {
    /// Extension whose backend to stand in for
    pub(super) extension: String,
    /// Socket that the process serves HTTP on [default: one in a new temporary directory]
    #[arg(long, value_name = "PATH")]
    backend_socket: Option<PathBuf>,
    /// Directory that `exec --backend` runs programs in
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Process that stands in, and its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    argv: Vec<String>,
}

/// What ended the attachment.
enum End {
    /// Ctrl-C, SIGTERM and their kin.
    Asked,
    /// The process ended by itself.
    Exited(ExitStatus),
    /// Nothing comes of it any more.
    Ended(Failure),
}

impl Dev {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        // Held to the end: dropping it removes the socket with its directory.
        let (socket, _directory) = self.socket()?;
        let socket_text = path_text(&socket)?;
        let broker = Connection::open(options).await?;
        // Listened for before anybody can see that it is registered: from then on a signal ends it in order.
        let mut signals = EndSignals::listen()?;
        let registration = self.register(&broker, &socket_text).await?;
        tokio::select! {
            registered = registration.registered() => registered.map_err(refused)?,
            // Calls may have come to it already, before we are told.
            _ = signals.any() => return finish(console, &self.extension, End::Asked).await,
        };
        report_attached(console, &self.extension, &socket_text).await?;
        let mut child = self.start(console, &socket_text).await?;
        let end = wait(console, &mut signals, registration.statuses(), child.as_mut()).await?;
        // First, so that calls stop going to a process that is being ended.
        drop(registration);
        if let Some(child) = child.as_mut() {
            stop(console, child).await?;
        }
        finish(console, &self.extension, end).await
    }

    fn socket(&self) -> Result<(PathBuf, Option<TempDir>), Failure> {
        let (socket, directory) = match &self.backend_socket {
            Some(path) => (absolute(path).map_err(|error| Failure::of_file(path, &error))?, None),
            None => {
                let made = tempfile::Builder::new().prefix("longshore-dev-").tempdir();
                let directory = made.map_err(|error| Failure::of_file(&std::env::temp_dir(), &error))?;
                (directory.path().join("backend.sock"), Some(directory))
            }
        };
        let length = socket.as_os_str().len();
        if length > MAX_SOCKET_PATH_BYTES {
            let text = format!("the socket's path has {length} bytes, {MAX_SOCKET_PATH_BYTES} is the most");
            return Err(Failure::with_advice(text, "name a shorter one with --backend-socket"));
        }
        Ok((socket, directory))
    }

    async fn register(&self, broker: &Connection, socket: &str) -> Result<Registration, Failure> {
        let directory = std::fs::canonicalize(&self.dir).map_err(|error| Failure::of_file(&self.dir, &error))?;
        let request = pb::ExtensionServiceGetRequest { extension: self.extension.clone() };
        let extension = broker.extensions().get(request).await?.into_inner().extension.unwrap_or_default();
        // What speaks both is asked for both.
        let backend = Backend::new(concat!("longshore-dev/", env!("CARGO_PKG_VERSION")))
            .at(extension.registration_socket)
            .offering(Endpoint::http1("http", socket))
            .offering(Endpoint::grpc("grpc", socket))
            .running_programs_in(path_text(&directory)?);
        Ok(backend.register())
    }

    /// Starts the process, if there is one. At a terminal it stays in our process group, so that a debugger can read
    /// from the terminal and Ctrl-C reaches it; elsewhere it gets a group of its own, so that its children end as well.
    async fn start(&self, console: &mut Console, socket: &str) -> Result<Option<Child>, Failure> {
        let argv: Vec<String> = self.argv.iter().map(|word| word.replace(SOCKET_PLACEHOLDER, socket)).collect();
        let Some((program, arguments)) = argv.split_first() else { return Ok(None) };
        let mut command = Command::new(program);
        command.args(arguments).env(BACKEND_SOCKET_VARIABLE, socket).kill_on_drop(true);
        if !console.reads_terminal() {
            command.process_group(0);
        }
        if !console.wants_json() {
            let words: Vec<_> = argv.iter().map(|word| shell::word(word)).collect();
            console.note(&format!("running {}", words.join(" "))).await?;
        }
        let child = command.spawn().map_err(|error| not_started(program, &error))?;
        Ok(Some(child))
    }
}

/// A program that could not be started, with the exit code that a shell has for that.
fn not_started(program: &str, error: &io::Error) -> Failure {
    let code = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR) => NOT_FOUND,
        Some(Errno::ACCESS | Errno::PERM | Errno::NOEXEC | Errno::ISDIR) => NOT_EXECUTABLE,
        _ => 1,
    };
    Failure::of_file(Path::new(program), error).exiting(code)
}

/// Why there is no registration, and what to do.
fn refused(failure: backend::Failure) -> Failure {
    match failure.reason.as_str() {
        "REGISTRATION_SUPERSEDED" => Failure::new("another process stands in for it now"),
        _ => Failure::new(failure.message),
    }
}

/// Waits for whatever comes first: a signal, the end of the process, the end of the registration. One that is lost for a
/// while, as when the broker is restarted, is none.
async fn wait(
    console: &mut Console,
    signals: &mut EndSignals,
    mut statuses: Statuses,
    child: Option<&mut Child>,
) -> Result<End, Failure> {
    let exited = async {
        match child {
            Some(child) => child.wait().await,
            None => std::future::pending().await,
        }
    };
    let ended = async {
        loop {
            match statuses.next().await {
                Status::Ended(failure) => return Ok(refused(failure)),
                Status::Trying(why) => console.note(&format!("not registered just now: {why}")).await?,
                Status::Registered(_) | Status::StopComing(_) => {}
            }
        }
    };
    Ok(tokio::select! {
        _ = signals.any() => End::Asked,
        status = exited => End::Exited(status?),
        failure = ended => End::Ended(failure.map_err(|error: io::Error| error)?),
    })
}

/// Ends the process: asked first, killed after the grace time.
async fn stop(console: &Console, child: &mut Child) -> Result<(), Failure> {
    let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else { return Ok(()) };
    let send = |signal| match console.reads_terminal() {
        true => rustix::process::kill_process(pid, signal),
        false => rustix::process::kill_process_group(pid, signal),
    };
    // It may have ended meanwhile, which is what is wanted.
    let _ = send(Signal::TERM);
    if timeout(GRACE, child.wait()).await.is_err() {
        let _ = send(Signal::KILL);
        child.wait().await?;
    }
    Ok(())
}

async fn report_attached(console: &mut Console, extension: &str, socket: &str) -> Result<(), Failure> {
    if console.wants_json() {
        let value = json!({ "event": "attached", "extension": extension, "socket": socket });
        return Ok(console.print_json(&value).await?);
    }
    Ok(console.note(&format!("calls to {extension} go to {socket} until this ends (Ctrl-C)")).await?)
}

async fn finish(console: &mut Console, extension: &str, end: End) -> Result<ExitCode, Failure> {
    let code = match end {
        End::Asked => 0,
        End::Exited(status) => {
            let code = status.code().or(status.signal().map(|number| i32::from(SIGNAL_BASE) + number)).unwrap_or(1);
            code.try_into().unwrap_or(1)
        }
        End::Ended(failure) => return Err(failure),
    };
    if console.wants_json() {
        console.print_json(&json!({ "event": "detached", "extension": extension, "exit_code": code })).await?;
    } else {
        console.note(&format!("calls to {extension} no longer go to it")).await?;
    }
    Ok(ExitCode::from(code))
}
