//! What the shim does in the directory that a container shares with the broker, as that container's user: connect to a
//! socket in it, and empty it. The container may have put anything there.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Component, Path},
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, renameat, unlinkat},
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use super::wire::ConnectReason;
use crate::beneath::{mount_of, open_dir};

/// How long a full queue of a listener is waited for.
const CONNECT_BOUND: Duration = Duration::from_secs(5);
/// How long emptying a directory may take: as long as a great many directories take on a busy disk.
pub(super) const SWEEP_BOUND: Duration = Duration::from_secs(600);

/// Why there is no connection, and what to tell.
type Failure = (ConnectReason, String);

/// Connects to the socket `name` below `dir` without following a link or leaving the directory's mount. Unlike the broker
/// (`files/guest`) it takes a socket with a second name as well: it has the rights of the container's own user, who can
/// reach whatever that leads to without us.
pub(super) fn connect_to(dir: &str, name: &str) -> Result<OwnedFd, Failure> {
    let target = open_socket(dir, name)?;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(explain)?;
    set_socket_timeout(&stream, Timeout::Send, Some(CONNECT_BOUND)).map_err(explain)?;
    // Through the descriptor, so that what was checked is what is connected to.
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", target.as_raw_fd())).map_err(explain)?;
    connect(&stream, &address).map_err(explain)?;
    set_socket_timeout(&stream, Timeout::Send, None).map_err(explain)?;
    Ok(stream)
}

fn open_socket(dir: &str, name: &str) -> Result<OwnedFd, Failure> {
    let not_a_socket = || (ConnectReason::NotASocket, format!("{name}: not a socket in {dir}"));
    let step = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = openat(CWD, dir, step | OFlags::DIRECTORY, Mode::empty()).map_err(explain)?;
    let mount = mount_of(&at).map_err(explain)?;
    let mut parts = Path::new(name).components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(part) = part else { return Err(not_a_socket()) };
        let kind = if parts.peek().is_some() { OFlags::DIRECTORY } else { OFlags::empty() };
        at = openat(&at, part, step | kind, Mode::empty()).map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => not_a_socket(),
            error => explain(error),
        })?;
        if mount_of(&at).map_err(explain)? != mount {
            return Err(not_a_socket());
        }
    }
    let is_socket = FileType::from_raw_mode(fstat(&at).map_err(explain)?.st_mode) == FileType::Socket;
    if is_socket { Ok(at) } else { Err(not_a_socket()) }
}

/// Removes the socket `name` below `dir`, if there is one. Nothing else is removed, and no link followed.
pub(super) fn unlink_socket(dir: &str, name: &str) -> io::Result<()> {
    if open_socket(dir, name).is_err() {
        return Ok(());
    }
    // Nobody is there who could put something else in its place: no container of the extension runs.
    Ok(unlinkat(CWD, Path::new(dir).join(name), AtFlags::empty())?)
}

fn explain(error: Errno) -> Failure {
    let why = match error {
        Errno::NOENT | Errno::NOTDIR => ConnectReason::Missing,
        Errno::CONNREFUSED => ConnectReason::Refused,
        Errno::ACCESS | Errno::PERM => ConnectReason::Denied,
        Errno::PROTOTYPE => ConnectReason::NotASocket,
        Errno::AGAIN | Errno::INPROGRESS => ConnectReason::Busy,
        _ => ConnectReason::Other,
    };
    (why, io::Error::from(error).to_string())
}

/// Empties `dir` within `bound`: no link is followed and no other mount entered. The directory itself stays. The broker's own
/// way (`files/remove`) names what stays and takes as long as it takes; here nobody hears names.
///
/// How many entries were removed, and how many are left.
pub(super) fn clear(dir: &str, bound: Duration) -> io::Result<(u64, u64)> {
    Ok(Clearing::of(dir, bound).and_then(Clearing::run)?)
}

/// Directories below the top one are moved up into it before they are emptied, so that no depth can exhaust anything.
struct Clearing {
    top: OwnedFd,
    mount: u64,
    removed: u64,
    moved: u64,
    /// The last number that a directory which was moved up was named by.
    number: u64,
    deadline: Instant,
}

impl Clearing {
    fn of(dir: &str, bound: Duration) -> Result<Self, Errno> {
        let top = open_dir(CWD, dir)?;
        let mount = mount_of(&top)?;
        Ok(Clearing { top, mount, removed: 0, moved: 0, number: 0, deadline: Instant::now() + bound })
    }

    /// How many entries were removed and how many are left.
    fn run(mut self) -> Result<(u64, u64), Errno> {
        loop {
            let (before, mut left) = (self.removed + self.moved, 0);
            for entry in Dir::read_from(&self.top)? {
                let entry = entry?;
                let name = entry.file_name();
                if !matches!(name.to_bytes(), b"." | b"..") && !self.remove(name)? {
                    left += 1;
                }
            }
            if self.removed + self.moved == before {
                return Ok((self.removed, left));
            }
            if Instant::now() >= self.deadline {
                // What was moved up is still there.
                return Ok((self.removed, left.max(1)));
            }
        }
    }

    /// Removes one entry of the top directory. False where it stays.
    fn remove(&mut self, name: &std::ffi::CStr) -> Result<bool, Errno> {
        match unlinkat(&self.top, name, AtFlags::empty()) {
            Ok(()) => self.removed += 1,
            Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                let Ok(dir) = open_dir(&self.top, name) else { return Ok(false) };
                if mount_of(&dir)? != self.mount {
                    return Ok(false);
                }
                self.lift(&dir)?;
                if unlinkat(&self.top, name, AtFlags::REMOVEDIR).is_err() {
                    return Ok(false);
                }
                self.removed += 1;
            }
            Err(_) => return Ok(false),
        }
        Ok(true)
    }

    /// Removes the files of a directory and moves its directories up. What resists stays and keeps the directory.
    fn lift(&mut self, dir: &OwnedFd) -> Result<(), Errno> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if unlinkat(dir, name, AtFlags::empty()).is_ok() {
                self.removed += 1;
            } else if self.move_up(dir, name) {
                self.moved += 1;
            }
        }
        Ok(())
    }

    /// Under a name that is not taken: one that was broken off before may have left some.
    fn move_up(&mut self, dir: &OwnedFd, name: &std::ffi::CStr) -> bool {
        loop {
            self.number += 1;
            match renameat(dir, name, &self.top, format!(".clearing-{}", self.number)) {
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                moved => return moved.is_ok(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix};

    use super::*;

    #[test]
    fn clearing_follows_no_link_and_takes_any_depth() {
        let temp = tempfile::tempdir().unwrap();
        let (outside, dir) = (temp.path().join("outside"), temp.path().join("guest"));
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("kept"), b"x").unwrap();
        fs::create_dir(&dir).unwrap();
        let mut deep = dir.clone();
        for _ in 0..300 {
            deep.push("dddddddd");
            fs::create_dir(&deep).unwrap();
        }
        fs::write(deep.join("file"), b"x").unwrap();
        unix::fs::symlink(&outside, dir.join("link")).unwrap();
        unix::fs::symlink(&outside, dir.join("dddddddd/link")).unwrap();
        let _listener = unix::net::UnixListener::bind(dir.join("a.sock")).unwrap();

        // Out of time it does not claim to be done.
        let (removed, left) = clear(dir.to_str().unwrap(), Duration::ZERO).unwrap();
        assert!(removed > 0 && left > 0);
        let answer = clear(dir.to_str().unwrap(), SWEEP_BOUND).unwrap();
        assert_eq!(answer, (304 - removed, 0));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn connecting_tells_what_is_wrong() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().to_str().unwrap();
        let listener = unix::net::UnixListener::bind(temp.path().join("a.sock")).unwrap();
        fs::create_dir(temp.path().join("sub")).unwrap();
        let _sub = unix::net::UnixListener::bind(temp.path().join("sub/b.sock")).unwrap();
        drop(unix::net::UnixListener::bind(temp.path().join("old.sock")).unwrap());
        fs::write(temp.path().join("file"), b"").unwrap();
        unix::fs::symlink("a.sock", temp.path().join("link.sock")).unwrap();
        unix::fs::symlink("sub", temp.path().join("way")).unwrap();
        let _datagram = unix::net::UnixDatagram::bind(temp.path().join("d.sock")).unwrap();

        let why = |name: &str| connect_to(dir, name).map(drop).map_err(|(why, _)| why);
        assert_eq!(why("a.sock"), Ok(()));
        assert_eq!(why("sub/b.sock"), Ok(()));
        assert_eq!(why("none.sock"), Err(ConnectReason::Missing));
        assert_eq!(why("old.sock"), Err(ConnectReason::Refused));
        for name in ["file", "link.sock", "way/b.sock", "../x", "/etc", "", ".", "sub", "d.sock"] {
            assert_eq!(why(name), Err(ConnectReason::NotASocket), "{name}");
        }
        drop(listener);
        assert_eq!(why("a.sock"), Err(ConnectReason::Refused));
    }
}
