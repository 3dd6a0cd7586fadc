//! The control socket: bound safely, or taken over from systemd (design section 3).

use std::{
    fs::{self, File},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use tokio::net::{UnixListener, UnixSocket};

use super::activation;
use crate::{
    local::{Stream, next_client},
    model::{
        error::{Error, Reason, Result},
        platform::MAX_SOCKET_PATH_BYTES,
    },
    user::access::Access,
};

pub use super::admitted::Admitted;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// The control socket, listening. A socket that we bound is removed with it.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    /// Where it is.
    path: PathBuf,
    /// What we bound there; `None` when systemd passed it.
    bound: Option<FileId>,
}

impl Admitted {
    /// Lets them in: mode 0660, and an access control list where the socket's group is not all.
    fn to(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::lchown(path, None, self.group)?;
        let group = if self.group.is_some() { 6 } else { 0 };
        let named = |ids: &[u32]| ids.iter().map(|id| (*id, 6)).collect::<Vec<_>>();
        let others: Vec<u32> = self.groups.iter().copied().filter(|id| Some(*id) != self.group).collect();
        if self.users.is_empty() && others.is_empty() {
            return fs::set_permissions(path, fs::Permissions::from_mode(0o600 | group << 3));
        }
        let access = Access { owner: 6, group: group as u16, users: named(&self.users), groups: named(&others) };
        access.set(path)
    }
}

/// Device and inode.
type FileId = (u64, u64);

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Not one that somebody else has put there since.
        if self.bound.is_some() && file_id(&self.path).ok() == self.bound {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl ControlSocket {
    /// Takes the socket that systemd passed, else binds `path`: bind, then mode 0600, then listen, so that nobody can
    /// connect in between, in a directory that only we may enter. A stale socket is removed after it was probed.
    ///
    /// # Errors
    ///
    /// `ALREADY_RUNNING`, `CONFIG_INVALID`, `FILE_FAILED`.
    pub fn open(path: &Path, admitted: Option<&Admitted>) -> Result<Self> {
        if let Some((passed, passed_path)) = activation::passed_socket()? {
            let listener = UnixListener::from_std(passed.into());
            let listener = listener.map_err(|e| failed(&passed_path, "taking it over", e))?;
            return Ok(ControlSocket { listener, path: passed_path, bound: None });
        }
        Self::bind(path, "--socket", admitted)
    }

    /// Binds `path`, which an argument chooses, in the same way, whatever systemd passed.
    ///
    /// # Errors
    ///
    /// Those of [`ControlSocket::open`].
    pub fn bind(path: &Path, argument: &str, admitted: Option<&Admitted>) -> Result<Self> {
        check_length(path, argument)?;
        let directory = prepare_directory(path, admitted.is_some())?;
        // Brokers that start at the same time would take each other's new socket for a stale one.
        let _turn = take_turn(&directory)?;
        remove_stale(path)?;
        let socket = UnixSocket::new_stream().map_err(|e| failed(path, "making the socket", e))?;
        socket.bind(path).map_err(|e| match e.kind() {
            io::ErrorKind::AddrInUse => already_running(path),
            _ => failed(path, "binding it", e),
        })?;
        let closed = fs::set_permissions(path, fs::Permissions::from_mode(0o600));
        let admit = |()| admitted.map_or(Ok(()), |admitted| admitted.to(path));
        closed.and_then(admit).map_err(|e| failed(path, "setting its mode", e))?;
        let bound = file_id(path).map_err(|e| failed(path, "looking at it", e))?;
        let listener = socket.listen(BACKLOG).map_err(|e| failed(path, "listening", e))?;
        Ok(ControlSocket { listener, path: path.to_owned(), bound: Some(bound) })
    }

    /// The next client.
    pub async fn accept(&self) -> Stream {
        next_client(self.path.display(), || self.listener.accept()).await.0
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn file_id(path: &Path) -> io::Result<FileId> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Waits until no other broker is binding a socket in that directory; until the returned value is dropped none will.
/// In a directory that everybody writes to, anybody could hold this up for ever: nothing is waited for there.
fn take_turn(directory: &Path) -> Result<Option<File>> {
    let taken = File::open(directory).and_then(|opened| {
        if opened.metadata()?.mode() & 0o022 != 0 {
            return Ok(None);
        }
        flock(&opened, FlockOperation::LockExclusive)?;
        Ok(Some(opened))
    });
    taken.map_err(|e| failed(directory, "locking the directory", e))
}

fn check_length(path: &Path, argument: &str) -> Result<()> {
    let length = path.as_os_str().len();
    if length <= MAX_SOCKET_PATH_BYTES {
        return Ok(());
    }
    let message = format!(
        "the socket's path has {length} bytes and the system allows {MAX_SOCKET_PATH_BYTES}: {}; choose a shorter one \
         with {argument}",
        path.display()
    );
    Err(Error::new(Reason::ConfigInvalid, "socket", message))
}

/// Makes the socket's directory, 0700, or 0711 where others pass through; one that exists must be ours and closed to
/// writing by others, and keeps its mode.
fn prepare_directory(path: &Path, is_passed: bool) -> Result<PathBuf> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let is_new = !directory.exists();
    make_directory(directory)?;
    if is_passed && is_new {
        let set = fs::set_permissions(directory, fs::Permissions::from_mode(0o711));
        set.map_err(|e| failed(directory, "letting its users in", e))?;
    }
    if is_passed {
        check_is_passed(directory)?;
    }
    Ok(directory.to_owned())
}

/// Makes a directory for sockets of the broker's, 0700; one that exists must be ours and closed to writing by others.
///
/// # Errors
///
/// `CONFIG_INVALID`, `FILE_FAILED`.
pub fn make_directory(directory: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|e| failed(directory, "making the directory", e))?;
    check_directory(directory)
}

/// Whether anybody but its owner may pass through a directory.
fn check_is_passed(directory: &Path) -> Result<()> {
    let found = fs::metadata(directory).map_err(|e| failed(directory, "looking at the directory", e))?;
    if found.mode() & 0o011 != 0 {
        return Ok(());
    }
    let message = format!(
        "nobody else can pass through {0} (mode {1:04o}), so no user would reach the socket in it; `chmod 711 {0}`, or \
         choose another place",
        directory.display(),
        found.mode() & 0o7777
    );
    Err(Error::new(Reason::ConfigInvalid, "socket", message))
}

/// Whether a directory may hold the control socket: it is ours, and closed to writing by others.
///
/// # Errors
///
/// `CONFIG_INVALID`, `FILE_FAILED`.
pub fn check_directory(directory: &Path) -> Result<()> {
    let found = fs::metadata(directory).map_err(|e| failed(directory, "looking at the directory", e))?;
    let ours = found.uid() == rustix::process::geteuid().as_raw() || found.uid() == 0;
    let writable_by_others = found.mode() & 0o022 != 0;
    // A sticky directory such as /tmp lets nobody else replace our socket.
    let sticky = found.mode() & 0o1000 != 0;
    if !ours || (writable_by_others && !sticky) {
        let message = format!(
            "{} can be changed by other users; the broker's sockets need a directory of your own, mode 0700",
            directory.display()
        );
        return Err(Error::new(Reason::ConfigInvalid, "socket", message));
    }
    Ok(())
}

/// Removes a socket that nobody listens on; anything else at that place is left alone.
fn remove_stale(path: &Path) -> Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| failed(path, "looking at it", e))?,
    };
    if !found.file_type().is_socket() {
        let message = format!("{} exists and is not a socket; it was left alone", path.display());
        return Err(Error::new(Reason::ConfigInvalid, "socket", message));
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(already_running(path)),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|e| failed(path, "removing a stale socket", e))
        }
        Err(e) => Err(failed(path, "probing it", e)),
    }
}

fn already_running(path: &Path) -> Error {
    let message = format!("a broker is listening on {} already; use it, or choose another socket", path.display());
    Error::new(Reason::AlreadyRunning, path.display().to_string(), message)
}

pub(super) fn failed(path: &Path, doing: &str, error: io::Error) -> Error {
    let message = format!("{}: {doing}: {error}", path.display());
    Error::new(Reason::FileFailed, path.display().to_string(), message).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_owner_may_connect_and_the_socket_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/x.sock");
        let socket = ControlSocket::open(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(ControlSocket::open(&path, None).unwrap_err().reason(), Reason::AlreadyRunning);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_of_somebody_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let first = ControlSocket::open(&path, None).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = ControlSocket::open(&path, None).unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        ControlSocket::open(&path, None).unwrap();
        fs::write(&path, "mine").unwrap();
        assert_eq!(ControlSocket::open(&path, None).unwrap_err().reason(), Reason::ConfigInvalid);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[tokio::test]
    async fn a_directory_that_exists_keeps_its_mode_and_one_that_is_made_for_several_users_lets_them_pass() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let all = Admitted { group: None, users: vec![1], groups: vec![] };
        let made = ControlSocket::open(&dir.path().join("made/x.sock"), Some(&all)).unwrap();
        assert_eq!(mode(made.path().parent().unwrap()), 0o711);
        let closed = dir.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let error = ControlSocket::open(&closed.join("x.sock"), Some(&all)).unwrap_err();
        assert!(error.message().contains("chmod 711"), "{error}");
        assert_eq!((error.reason(), mode(&closed)), (Reason::ConfigInvalid, 0o700));
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o750)).unwrap();
        ControlSocket::open(&closed.join("x.sock"), Some(&all)).unwrap();
        assert_eq!(mode(&closed), 0o750);
    }

    #[tokio::test]
    async fn a_long_path_and_an_open_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        let error = ControlSocket::open(&long, None).unwrap_err();
        assert!(error.message().contains("107"), "{error}");
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(ControlSocket::open(&open.join("x.sock"), None).unwrap_err().reason(), Reason::ConfigInvalid);
    }
}
