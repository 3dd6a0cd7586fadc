//! Directories and the control socket.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::FileTypeExt as _,
    path::Path,
};

use rustix::fs::{Access, AtFlags, CWD, StatVfsMountFlags, accessat, statvfs};
use tokio::{net::UnixStream, time::timeout};

use super::BOUND;
use crate::{
    api::listener::check_directory,
    files::layout::check_owner,
    model::{checkup::Check, error::Result, platform::MAX_SOCKET_PATH_BYTES},
};

/// Less than this on the disk and the store may not be written.
const LEAST_FREE: u64 = 64 << 20;
/// Less than this on the disk and an extension may not fit.
const GOOD_FREE: u64 = 1 << 30;

/// The name of what is said of the data directory.
const DATA: &str = "data directory";
/// The name of what is said of the runtime directory and that of the control socket.
const RUNTIME: &str = "runtime directory";
/// The name of what is said of the control socket.
const SOCKET: &str = "socket";

/// The data directory, or the place where the first start makes it.
pub(super) fn data_dir(path: &Path) -> Check {
    const ADVICE: &str = "name another with --data-dir or data_dir, or mend this one";
    if let Err(why) = usable(path, check_owner) {
        return Check::problem(DATA, why, ADVICE);
    }
    let shown = path.display();
    let Some(free) = statvfs(existing(path)).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)) else {
        return Check::warning(DATA, format!("{shown}: how much is free on its disk cannot be told"), ADVICE);
    };
    let mib = free >> 20;
    let (found, advice) = (format!("{shown}, {mib} MiB free"), "make room on its disk");
    match free {
        _ if free < LEAST_FREE => Check::problem(DATA, found, advice),
        _ if free < GOOD_FREE => Check::warning(DATA, found, advice),
        _ if path.exists() => Check::ok(DATA, found),
        _ => Check::ok(DATA, format!("{found}; the first start makes it")),
    }
}

/// The runtime directory, that of the control socket where it is another, and the length of the socket's path. Where
/// somebody listens the socket is there, perhaps systemd's, and its directory need not be made. A broker that `runs` needs
/// the runtime directory for updates alone; each start needs it.
pub(super) fn runtime_dir(directory: &Path, socket: &Path, is_listening: bool, runs: bool) -> Check {
    const ADVICE: &str = "name another with --runtime-dir or runtime_dir, or mend this one";
    let of_socket = socket.parent().unwrap_or(Path::new("/"));
    let placed = if of_socket == directory { Ok(()) } else { usable(of_socket, check_directory) };
    match (usable(directory, check_directory), placed) {
        (Err(why), _) if runs => {
            Check::warning(RUNTIME, format!("{why}; the socket is there, but updates have others in it"), ADVICE)
        }
        (Err(why), _) => Check::problem(RUNTIME, why, ADVICE),
        (Ok(()), Err(why)) if !is_listening => {
            Check::problem(RUNTIME, why, "name another place with --socket or socket, or mend this one")
        }
        (Ok(()), _) => {
            let length = socket.as_os_str().len();
            let path = directory.display();
            Check::ok(RUNTIME, format!("{path}; the socket's path has {length} of {MAX_SOCKET_PATH_BYTES} bytes"))
        }
    }
}

/// Whether a directory that is there is as it has to be and can be written, or can be made.
fn usable(path: &Path, check: impl Fn(&Path) -> Result<()>) -> std::result::Result<(), String> {
    if path.exists() {
        check(path).map_err(|error| error.message().to_owned())?;
    }
    let place = existing(path);
    let shown = place.display();
    match place.is_dir() {
        true => {}
        false if place == path => return Err(format!("{shown} is not a directory")),
        false => return Err(format!("{shown} is not a directory, so {} cannot be made", path.display())),
    }
    if statvfs(place).is_ok_and(|disk| disk.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return Err(format!("{shown} is mounted read-only"));
    }
    match accessat(CWD, place, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        Err(error) if place == path => Err(format!("{shown} cannot be written: {error}")),
        Err(error) => Err(format!("{} cannot be made in {shown}: {error}", path.display())),
    }
}

/// The path itself, or the nearest above it that is there.
pub(super) fn existing(path: &Path) -> &Path {
    path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"))
}

/// What became of a connection to the control socket.
pub(super) struct Reached {
    /// What to say of it.
    pub(super) check: Check,
    /// Whether somebody accepts there.
    pub(super) is_listening: bool,
}

/// Whether somebody listens on the control socket.
pub(super) async fn socket(path: &Path) -> Reached {
    const START: &str = "start one with: longshore serve";
    let shown = path.display();
    let is_listening = |check, is_listening| Reached { check, is_listening };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let found = format!("{shown} is there and no socket");
            return is_listening(Check::problem(SOCKET, found, "move it away; no broker starts over it"), false);
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return is_listening(Check::warning(SOCKET, format!("no broker listens on {shown}"), START), false);
        }
        _ => {}
    }
    let connected = timeout(BOUND, UnixStream::connect(path)).await;
    match connected.unwrap_or_else(|_| Err(io::Error::from(ErrorKind::TimedOut))) {
        Ok(_) => is_listening(Check::ok(SOCKET, format!("{shown}: somebody listens")), true),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            let found = format!("{shown} is stale: a broker that was killed left it");
            is_listening(Check::warning(SOCKET, found, format!("{START}; it takes the place of the old one")), false)
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let found = format!("{shown} belongs to another user");
            is_listening(Check::problem(SOCKET, found, "run this as that user, or name another with --socket"), false)
        }
        Err(error) => {
            let found = format!("{shown} does not accept: {error}");
            is_listening(
                Check::problem(SOCKET, found, "end the process that holds it, and start a broker again"),
                false,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::checkup::Verdict;

    #[test]
    fn a_directory_that_is_not_there_is_made_where_that_can_be() {
        let temp = tempfile::tempdir().unwrap();
        let deep = temp.path().join("a/b/c");
        assert_eq!(existing(&deep), temp.path());
        assert_ne!(data_dir(&deep).verdict, Verdict::Problem);
        fs::write(temp.path().join("a"), "").unwrap();
        let check = data_dir(&deep);
        assert_eq!(check.verdict, Verdict::Problem);
        assert!(check.found.contains("is not a directory"), "{check:?}");
    }

    #[test]
    fn the_runtime_directory_is_looked_at_wherever_the_socket_is() {
        let temp = tempfile::tempdir().unwrap();
        let (directory, socket) = (temp.path().join("run"), temp.path().join("other/x.sock"));
        let runtime_dir = |listens, runs| runtime_dir(&directory, &socket, listens, runs);
        assert_eq!(runtime_dir(false, false).verdict, Verdict::Ok);
        fs::write(temp.path().join("other"), "").unwrap();
        assert_eq!(runtime_dir(true, false).verdict, Verdict::Ok);
        let check = runtime_dir(false, false);
        assert!(check.verdict == Verdict::Problem && check.found.contains("other"), "{check:?}");
        fs::write(&directory, "").unwrap();
        assert_eq!(runtime_dir(true, true).verdict, Verdict::Warning);
        assert_eq!(runtime_dir(true, false).verdict, Verdict::Problem, "each start makes it");
        let check = runtime_dir(false, false);
        assert!(check.verdict == Verdict::Problem && check.found.contains("run"), "{check:?}");
    }

    #[tokio::test]
    async fn a_file_in_the_sockets_place_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("longshore.sock");
        assert_eq!(socket(&path).await.check.verdict, Verdict::Warning);
        fs::write(&path, "mine").unwrap();
        let reached = socket(&path).await;
        assert_eq!((reached.check.verdict, reached.is_listening), (Verdict::Problem, false));
    }
}
