//! The shim: the process that stands between the broker and the programs it runs, so that "killed" means the whole tree.
//!
//! It is this same static binary, run as `longshore shim host` or, in a container, `shim container`. There it is
//! synchronous and has one thread. Per program it forks a keeper, a subreaper that starts the program, tells the broker over a
//! channel of its own how it went, and kills all that is left of it when that channel ends. Output goes from the program
//! into the broker's pipes, or into a terminal whose other side the broker holds; no byte of it passes through here.
//!
//! Where the engine shares no directory with the broker, `shim tunnel` is the far end of a tunnel beside it, which carries
//! all this, and has a runtime. In containers that the broker makes for the purpose, `shim sweep` empties a directory and
//! `shim unlink` removes a socket, as root.

mod cage;
pub mod caller;
mod channel;
mod felling;
mod guest;
mod keeper;
mod oom;
pub mod relay;
pub(crate) mod resident;
mod signals;
pub mod socket;
mod start;
mod terminal;
pub(crate) mod tree;
pub mod tunnel;
pub mod watch;
pub mod wire;

use std::{
    ffi::OsString,
    io::{self, BufRead, Read},
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
};

use rustix::{
    io::fcntl_dupfd_cloexec,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
    process::{Resource, Rlimit, getrlimit, setrlimit},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stdin},
};

use crate::model::mounts::{CONTAINER_DIR, GUEST_DIR};

/// How many bytes the nonce has that a shim in a container gets on its standard input and says on its link.
pub const NONCE_BYTES: usize = 32;
/// The longest name of a socket that a shim is told to dial, in bytes.
const MAX_NAME_BYTES: u64 = 64;

/// Runs the shim. `args` are what follows the word `shim`: `host` with, optionally, the soft limit of open files that
/// programs get; `container`; `tunnel`; or, in a container that is there for nothing else, `sweep` or `unlink` and a name. What goes wrong is told on standard error.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    close_inherited();
    let mut args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned());
    let result = match args.next().as_deref() {
        Some("host") => host(args.next().and_then(|limit| limit.parse().ok())),
        Some("container") => container(),
        Some("tunnel") => tunnel::main(),
        Some("unlink") => guest::unlink_socket(GUEST_DIR, &args.next().unwrap_or_default()).map(|()| ExitCode::SUCCESS),
        Some("sweep") => sweep().map(|()| ExitCode::SUCCESS),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "the shim is started by the broker, not by hand")),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("shim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Empties the guest directory, as the root of a container that is there for nothing else.
fn sweep() -> io::Result<()> {
    match guest::clear(GUEST_DIR, guest::SWEEP_BOUND)? {
        (_, 0) => Ok(()),
        (_, left) => Err(io::Error::other(format!("{GUEST_DIR} was not emptied: {left} entries are left"))),
    }
}

/// Closes all but the standard descriptors: what whoever started the broker forgot to close is not for programs.
fn close_inherited() {
    // SAFETY: the process has just begun and has opened nothing itself, so nothing in it relies on these descriptors.
    if unsafe { libc::close_range(3, u32::MAX, 0) } == 0 {
        return;
    }
    // Linux before 5.9.
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // SAFETY: as above; the directory that was read is closed already, and closing its number again does nothing.
        unsafe { libc::close(number) };
    }
}

/// The link is standard input.
fn host(max_open_files: Option<u64>) -> io::Result<ExitCode> {
    if let Some(current) = max_open_files {
        let limit = Rlimit { current: Some(current), maximum: getrlimit(Resource::Nofile).maximum };
        setrlimit(Resource::Nofile, limit)?;
    }
    let link = fcntl_dupfd_cloexec(stdin(), 3)?;
    resident::silence(dup2_stdin)?;
    resident::serve(link, true)
}

/// Standard input says where to dial and the nonce to say there; then the link is that connection, and the standard
/// descriptors, which belong to the engine, are let go.
fn container() -> io::Result<ExitCode> {
    let mut order = String::new();
    io::stdin().lock().take(NONCE_BYTES as u64 + MAX_NAME_BYTES).read_line(&mut order)?;
    let order = order.trim_ascii_end();
    let malformed = || io::Error::new(io::ErrorKind::InvalidInput, "the shim is started by the broker, not by hand");
    let (nonce, name) = order.split_at_checked(NONCE_BYTES).ok_or_else(malformed)?;
    if name.is_empty() || name.contains('/') {
        return Err(malformed());
    }
    let link = dial(name).map_err(|error| io::Error::new(error.kind(), format!("{CONTAINER_DIR}/{name}: {error}")))?;
    let sent = socket::send(link.as_fd(), nonce.as_bytes(), &[])?;
    if sent != nonce.len() {
        return Err(io::Error::new(io::ErrorKind::WriteZero, "the broker does not listen"));
    }
    resident::silence(dup2_stdin)?;
    resident::silence(dup2_stdout)?;
    resident::silence(dup2_stderr)?;
    // Where processes are counted, none is there but those of programs.
    resident::serve(link, false)
}

fn dial(name: &str) -> io::Result<OwnedFd> {
    let link = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    connect(&link, &SocketAddrUnix::new(format!("{CONTAINER_DIR}/{name}"))?)?;
    Ok(link)
}
