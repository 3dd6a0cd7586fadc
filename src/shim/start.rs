//! Starting one program, and saying exactly why where that fails.
//!
//! The program is looked up here, in the PATH it will see, and not by the C library: so "not found", "not executable" and
//! "not for this machine" are told apart, and a file without a format is never handed to a shell.

use std::{
    collections::BTreeMap,
    env,
    ffi::{CString, OsStr, OsString},
    fs, io, mem,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    ptr,
};

use rustix::{
    fs::{Access, access},
    io::Errno,
    process::Pid,
};

use super::wire::{Start, StartReason};
use crate::model::platform::DEFAULT_PATH;

/// Why a program was not started, and what to tell.
pub(super) type Failure = (StartReason, String);

/// What a program has for standard descriptors.
#[derive(Debug)]
pub(super) enum Stdio {
    /// These three.
    Descriptors([OwnedFd; 3]),
    /// This terminal, three times, which also becomes the one that controls its session.
    Terminal(OwnedFd),
}

/// Starts the program in a session of its own, with all signals as the system has them.
pub(super) fn start(start: &Start, stdio: &Stdio) -> Result<Pid, Failure> {
    if let Some(cwd) = &start.cwd {
        enter(cwd)?;
    }
    let env = environment(start);
    let name = start.argv.first().ok_or_else(|| other("the argument list is empty"))?;
    let program = look_up(name, env.get(OsStr::new("PATH")).map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str))?;
    let argv = start.argv.iter().map(|arg| c_string(arg.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let envp = env
        .iter()
        .map(|(name, value)| c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<Result<Vec<_>, _>>()?;
    let path = c_string(program.as_os_str().as_bytes())?;
    spawn(&path, &argv, &envp, stdio).map_err(|error| explain(&program, error))
}

/// Changes this process's own directory: it serves one program only.
fn enter(cwd: &str) -> Result<(), Failure> {
    env::set_current_dir(cwd).map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StartReason::DirectoryNotFound,
            _ => StartReason::Other,
        };
        (reason, format!("{cwd}: {error}"))
    })
}

fn environment(start: &Start) -> BTreeMap<OsString, OsString> {
    let mut vars: BTreeMap<_, _> = if start.inherit_env { env::vars_os().collect() } else { BTreeMap::new() };
    if start.terminal.is_some() {
        vars.entry("TERM".into()).or_insert_with(|| "xterm".into());
    }
    vars.extend(start.env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
    vars
}

fn look_up(name: &str, path: &OsStr) -> Result<PathBuf, Failure> {
    if name.contains('/') {
        return executable(Path::new(name)).map_err(|error| explain(Path::new(name), error)).map(|()| name.into());
    }
    let mut denied = None;
    for dir in path.as_bytes().split(|byte| *byte == b':') {
        let dir = if dir.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(dir)) };
        let candidate = dir.join(name);
        match executable(&candidate) {
            Ok(()) if !name.is_empty() => return Ok(candidate),
            Err(Errno::ACCESS) => denied = denied.or(Some(candidate)),
            _ => {}
        }
    }
    match denied {
        Some(candidate) => Err(explain(&candidate, Errno::ACCESS)),
        None => Err((StartReason::ProgramNotFound, format!("{name}: not found in {}", path.display()))),
    }
}

/// Whether it is a file that this user may execute. What cannot be seen counts as denied, what is no file too.
fn executable(path: &Path) -> Result<(), Errno> {
    let meta = fs::metadata(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    if !meta.is_file() {
        return Err(Errno::ACCESS);
    }
    access(path, Access::EXEC_OK)
}

fn explain(program: &Path, error: Errno) -> Failure {
    let (reason, note) = match error {
        Errno::NOENT if program.exists() => {
            (StartReason::WrongFormat, ": the interpreter or loader that it names does not exist")
        }
        Errno::NOENT | Errno::NOTDIR => (StartReason::ProgramNotFound, ""),
        Errno::ACCESS | Errno::PERM if program.is_dir() => (StartReason::NotExecutable, ": it is a directory"),
        Errno::ACCESS | Errno::PERM => (StartReason::NotExecutable, ""),
        Errno::NOEXEC | Errno::LIBBAD => (StartReason::WrongFormat, ": it is no program for this machine"),
        Errno::TOOBIG => (StartReason::ArgumentsTooLong, ""),
        _ => (StartReason::Other, ""),
    };
    (reason, format!("{}: {}{note}", program.display(), io::Error::from(error)))
}

fn other(message: impl Into<String>) -> Failure {
    (StartReason::Other, message.into())
}

fn c_string(bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes.to_vec())
        .map_err(|error| other(format!("{}: holds a NUL byte", OsString::from_vec(error.into_vec()).display())))
}

/// `posix_spawn` and not `std::process::Command`: a session of its own would cost a fork there, and it keeps our blocked
/// signals.
fn spawn(path: &CString, argv: &[CString], envp: &[CString], stdio: &Stdio) -> Result<Pid, Errno> {
    let pointers = |list: &[CString]| -> Vec<*mut libc::c_char> {
        list.iter().map(|text| text.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    let mut pid = 0;
    // SAFETY: attributes and actions are initialised before use and destroyed once; every pointer (path, the two lists
    // and what they point to, the signal sets) outlives the call, and `posix_spawn` writes through none but `pid`.
    let result = unsafe {
        let mut attributes = mem::zeroed::<libc::posix_spawnattr_t>();
        let mut actions = mem::zeroed::<libc::posix_spawn_file_actions_t>();
        libc::posix_spawnattr_init(&raw mut attributes);
        libc::posix_spawn_file_actions_init(&raw mut actions);
        let (mut none, mut all) = (mem::zeroed::<libc::sigset_t>(), mem::zeroed::<libc::sigset_t>());
        libc::sigemptyset(&raw mut none);
        libc::sigfillset(&raw mut all);
        libc::posix_spawnattr_setsigmask(&raw mut attributes, &raw const none);
        libc::posix_spawnattr_setsigdefault(&raw mut attributes, &raw const all);
        let flags = i32::from(libc::POSIX_SPAWN_SETSID) | libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        libc::posix_spawnattr_setflags(&raw mut attributes, flags as libc::c_short);
        let mut result = add_stdio(&mut actions, stdio);
        if result == 0 {
            result = libc::posix_spawn(
                &raw mut pid,
                path.as_ptr(),
                &raw const actions,
                &raw const attributes,
                argv.as_ptr(),
                envp.as_ptr(),
            );
        }
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        libc::posix_spawnattr_destroy(&raw mut attributes);
        result
    };
    match (result, Pid::from_raw(pid)) {
        (0, Some(pid)) => Ok(pid),
        (0, None) => Err(Errno::SRCH),
        (error, _) => Err(Errno::from_raw_os_error(error)),
    }
}

/// # Safety
///
/// `actions` must be initialised.
unsafe fn add_stdio(actions: &mut libc::posix_spawn_file_actions_t, stdio: &Stdio) -> libc::c_int {
    let sources = match stdio {
        Stdio::Descriptors(fds) => [0, 1, 2].map(|n: usize| fds[n].as_raw_fd()),
        Stdio::Terminal(terminal) => {
            // Opened by the program itself, which leads its session by then: so it is controlled by it.
            let Ok(path) = CString::new(format!("/proc/self/fd/{}", terminal.as_raw_fd())) else { return libc::EINVAL };
            // SAFETY: as the caller promises; the path is copied.
            let added = unsafe { libc::posix_spawn_file_actions_addopen(actions, 0, path.as_ptr(), libc::O_RDWR, 0) };
            if added != 0 {
                return added;
            }
            [0; 3]
        }
    };
    for (target, source) in (0..).zip(sources) {
        // SAFETY: as the caller promises.
        let added = unsafe { libc::posix_spawn_file_actions_adddup2(actions, source, target) };
        if added != 0 {
            return added;
        }
    }
    0
}
