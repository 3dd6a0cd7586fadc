//! What the kernel says of a process that calls: whether it still lives, and in which container; and the sockets that
//! containers call at.

mod caller;
pub mod socket;
mod stat;

use std::{
    collections::BTreeSet,
    fs, io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tokio::net::UnixStream;

pub use caller::Other;
pub use stat::Stat;

/// `SO_PEERPIDFD` of Linux 6.5.
const SO_PEERPIDFD: libc::c_int = 77;

/// The process at the other end.
///
/// # Errors
///
/// What the system says.
pub fn other(stream: &UnixStream) -> io::Result<Other> {
    let credentials = stream.peer_cred()?;
    let pid = credentials.pid().filter(|pid| *pid > 0);
    Ok(Other { uid: credentials.uid(), groups: groups_of(stream.as_fd()).ok(), pid })
}

/// Whether the process that connected still lives, so that its number has not gone to another. True where the kernel
/// cannot tell (before Linux 6.5).
pub fn is_there(stream: &UnixStream) -> bool {
    is_alive(stream.as_fd())
}

/// The user at the other end, by its number; one that nobody has where that is not known.
pub fn uid_of(stream: &UnixStream) -> u32 {
    stream.peer_cred().map_or(u32::MAX, |peer| peer.uid())
}

/// Whether a process lives in a container that we do not live in, by its cgroups (v1 and v2). `None` where it is gone,
/// ending, or cannot be looked at.
pub fn is_in_foreign_container(pid: i32) -> Option<bool> {
    place_of(pid).map(|place| place != Place::Host)
}

/// Where a process lives, as seen from where we do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Where we live.
    Host,
    /// In the container of this id: the outermost that we are not in.
    Container(String),
    /// In containers, and which of them is meant cannot be told.
    Unclear,
}

/// Where a process lives, by its cgroups (v1 and v2). `None` where it is gone, ending, or cannot be looked at.
pub fn place_of(pid: i32) -> Option<Place> {
    let read = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
    let (own, of_peer) = (read("self")?, read(&pid.to_string())?);
    // The cgroups of a process that is ending are those of nobody (v1).
    if Stat::of(pid)?.is_ending {
        return None;
    }
    Some(place_in(&of_peer, &containers_in(&own)))
}

/// The place that the text of a `/proc/<pid>/cgroup` names. What a container makes of its own part of the tree lies
/// behind its id, so the first one counts; hierarchies that contradict each other prove nothing.
fn place_in(cgroups: &str, own: &BTreeSet<&str>) -> Place {
    let foreign = |line: &'_ str| ids_in(line).find(|id| !own.contains(id)).map(ToOwned::to_owned);
    let found: BTreeSet<String> = cgroups.lines().filter_map(foreign).collect();
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (None, _) => Place::Host,
        (Some(id), None) => Place::Container(id),
        (Some(_), Some(_)) => Place::Unclear,
    }
}

/// The containers, by the 64 hexadecimal digits of their ids, in the text of `/proc/<pid>/cgroup`: more than one where
/// an engine runs in a container.
fn containers_in(cgroups: &str) -> BTreeSet<&str> {
    ids_in(cgroups).collect()
}

fn ids_in(text: &str) -> impl Iterator<Item = &str> {
    let is_id = |part: &&str| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(is_id)
}

/// The group of the process that connected, and its other groups, as they were when it did.
///
/// # Errors
///
/// What the system says.
pub fn groups_of(socket: BorrowedFd<'_>) -> io::Result<(u32, Vec<u32>)> {
    let own = rustix::net::sockopt::socket_peercred(socket)?.gid.as_raw();
    let mut others = vec![0_u32; 64];
    loop {
        let mut length = libc::socklen_t::try_from(mem::size_of_val(&others[..])).unwrap_or(libc::socklen_t::MAX);
        // SAFETY: the kernel writes no more than `length` bytes, which is what there is room for.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                others.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / mem::size_of::<u32>();
        match result {
            0 => {
                others.truncate(count);
                return Ok((own, others));
            }
            // It says how many there are.
            _ if Errno::from_io_error(&io::Error::last_os_error()) == Some(Errno::RANGE) && count > others.len() => {
                others.resize(count, 0);
            }
            _ => return Err(io::Error::last_os_error()),
        }
    }
}

/// Whether the process that connected still lives, so that its number has not gone to another. True where the kernel
/// cannot tell (before Linux 6.5).
pub fn is_alive(socket: BorrowedFd<'_>) -> bool {
    match peer_pidfd(socket) {
        Ok(process) => {
            let mut ended = [PollFd::new(&process, PollFlags::IN)];
            poll(&mut ended, Some(&Timespec::default())) == Ok(0)
        }
        Err(error) => error.raw_os_error() == Some(Errno::NOPROTOOPT.raw_os_error()),
    }
}

/// A descriptor of the process at the other end, which unlike its number never means another.
fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut process: libc::c_int = -1;
    let mut length = mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to where `process` lies, which holds that many.
    let failed = unsafe {
        let place = (&raw mut process).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PEERPIDFD, place, &mut length)
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(process) })
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsFd, unix::net::UnixListener};

    use super::*;

    #[test]
    fn containers_are_known_by_their_cgroup() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for line in [
            format!("9:name=systemd:/docker/{id}\n0::/"),
            format!("0::/system.slice/docker-{id}.scope"),
            format!("0::/user.slice/user-1000.slice/libpod-{id}.scope/container"),
        ] {
            assert_eq!(containers_in(&line), BTreeSet::from([id]), "{line}");
        }
        assert!(containers_in("0::/user.slice/user-1000.slice/session-2.scope").is_empty());
        let inner = id.replace('0', "f");
        assert_eq!(
            containers_in(&format!("0::/docker/{id}/docker/{inner}")).len(),
            2,
            "a container in ours is foreign"
        );
    }

    #[test]
    fn the_outermost_container_counts() {
        let [one, two, ours] = ["a", "b", "c"].map(|digit| digit.repeat(64));
        let own = BTreeSet::from([&*ours]);
        let place = |text: String| place_in(&text, &own);
        assert_eq!(place("0::/user.slice".into()), Place::Host);
        assert_eq!(place(format!("0::/docker/{ours}")), Place::Host);
        assert_eq!(place(format!("0::/docker/{ours}/docker/{one}")), Place::Container(one.clone()));
        assert_eq!(place(format!("5:pids:/docker/{one}/docker/{two}\n0::/")), Place::Container(one.clone()));
        assert_eq!(place(format!("12:pids:/docker/{one}/sub\n0::/")), Place::Container(one.clone()));
        assert_eq!(place(format!("5:pids:/docker/{one}\n4:cpu:/docker/{two}")), Place::Unclear);
        // What only looks like an id is none.
        for text in ["0::/docker".into(), format!("0::/docker/x{one}"), "0::/docker/abc".into()] {
            assert_eq!(place(text), Place::Host);
        }
    }

    #[test]
    fn a_process_that_has_ended_is_not_looked_at() {
        let own = std::process::id() as i32;
        assert_eq!(is_in_foreign_container(own), Some(false));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        // A zombie, since nobody has waited for it.
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
        assert_eq!(is_in_foreign_container(child.id() as i32), None);
        child.wait().unwrap();
        assert_eq!(is_in_foreign_container(child.id() as i32), None);
    }

    #[test]
    fn a_peer_that_is_gone_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("x.sock")).unwrap();
        let dial = "import socket,sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()";
        let mut child = std::process::Command::new("python3")
            .args(["-c", dial])
            .arg(dir.path().join("x.sock"))
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let peer = listener.accept().unwrap().0;
        assert!(is_alive(peer.as_fd()));
        child.kill().unwrap();
        child.wait().unwrap();
        let can_tell = peer_pidfd(peer.as_fd()).err().and_then(|e| e.raw_os_error()) != Some(libc::ENOPROTOOPT);
        assert_eq!(is_alive(peer.as_fd()), !can_tell);
    }
}
