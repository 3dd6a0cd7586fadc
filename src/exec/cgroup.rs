//! The cgroup (v2) below which each program on the host gets its own.
//!
//! Where none can be made (version 1 only and no privilege, a plain user without a delegated one, a read-only mount)
//! programs are held together by their keepers alone.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::{
    fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, mkdirat, openat, unlinkat},
    io::Errno,
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

use super::ancestry::Process;
use crate::{beneath::open_dir, user::User};

/// How its name begins; then the process namespace, the broker, when it started, and a number.
const PREFIX: &str = "longshore";
/// Where the shim itself is that runs as another user than the broker.
const SHIM: &str = "shim";
/// How long what a dead shim left is given to end by itself.
const RETIRE_BOUND: Duration = Duration::from_secs(15);

/// A cgroup to make others in.
#[derive(Debug)]
pub(super) struct Base {
    /// The directory.
    pub(super) dir: OwnedFd,
    above: OwnedFd,
    name: String,
    /// Its path as `/proc/<pid>/cgroup` shows it.
    path: String,
}

impl Base {
    /// Makes one below the cgroup that this process is in, and removes those of brokers that died.
    ///
    /// # Errors
    ///
    /// What the system says about why there can be none.
    pub(super) fn make() -> io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (own_path, above) = above()?;
        let namespace = fs::metadata("/proc/self/ns/pid")?.ino();
        remove_dead(&above, namespace);
        let own = Process::of(std::process::id().cast_signed()).ok_or(io::ErrorKind::NotFound)?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{namespace}-{}-{}-{number}", own.pid, own.started_ticks);
        mkdirat(&above, &name, Mode::from_raw_mode(0o755))?;
        let made = open_dir(&above, &name).and_then(|dir| {
            accessat(&dir, "cgroup.kill", Access::WRITE_OK, AtFlags::EACCESS)?;
            Ok(dir)
        });
        match made {
            Ok(dir) => {
                let path = format!("{}/{name}", own_path.trim_end_matches('/'));
                Ok(Base { dir, above, name, path })
            }
            Err(error) => {
                let _ = unlinkat(&above, &name, AtFlags::REMOVEDIR);
                Err(error.into())
            }
        }
    }

    /// Has the user make and kill cgroups in it, for a shim that runs as this user, which is moved into it: whoever moves
    /// processes has to be let into what is above both places.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn hand_to(self, user: &User, shim: u32) -> io::Result<Self> {
        let handed = || {
            let uid = Some(rustix::process::Uid::from_raw(user.uid));
            for file in [".", "cgroup.procs", "cgroup.kill"] {
                rustix::fs::chownat(&self.dir, file, uid, None, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            mkdirat(&self.dir, SHIM, Mode::from_raw_mode(0o755))?;
            let procs =
                openat(&self.dir, format!("{SHIM}/cgroup.procs"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(procs, shim.to_string().as_bytes()).map(drop)
        };
        match handed() {
            Ok(()) => Ok(self),
            Err(error) => {
                self.discard();
                Err(error.into())
            }
        }
    }

    /// Removes it, unless something still runs in it.
    pub(super) fn discard(self) {
        remove(&self.above, &self.name);
    }

    /// Whether one can be made here.
    ///
    /// # Errors
    ///
    /// Those of [`Base::make`].
    pub(super) fn probe() -> io::Result<()> {
        Base::make()?.discard();
        Ok(())
    }

    /// Whether a process is in it or in one below it.
    pub(super) fn contains(&self, pid: i32) -> bool {
        let of_pid = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
        of_pid.as_deref().and_then(own_path).is_some_and(|path| {
            path.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// Removes it when what is in it has ended; kills what has not after a while.
    pub(super) async fn retire(self) {
        let begun = std::time::Instant::now();
        while !remove(&self.above, &self.name) {
            if begun.elapsed() > RETIRE_BOUND {
                kill(&self.above, &self.name);
            }
            if begun.elapsed() > RETIRE_BOUND * 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The cgroup that this process is in, where others may be made in it.
fn above() -> io::Result<(String, OwnedFd)> {
    let own_path = own_path(&fs::read_to_string("/proc/self/cgroup")?).ok_or(io::ErrorKind::NotFound)?;
    let above = open_own(&own_path)?;
    // Who is moved between cgroups needs this of the one above both.
    accessat(&above, "cgroup.procs", Access::WRITE_OK, AtFlags::EACCESS)?;
    Ok((own_path, above))
}

/// Whether programs on the host would get cgroups of their own from a broker that is started where this process runs.
/// Makes none.
///
/// # Errors
///
/// What the system says about why they would not.
pub fn check_cgroups() -> io::Result<()> {
    let (_, above) = above()?;
    Ok(accessat(&above, ".", Access::WRITE_OK, AtFlags::EACCESS)?)
}

/// The path in the one line that is about version 2.
fn own_path(cgroups: &str) -> Option<String> {
    cgroups.lines().find_map(|line| line.strip_prefix("0::")).map(ToOwned::to_owned)
}

/// The directory of the cgroup with this path: where version 2 is mounted, also beside version 1; else, with privilege, in
/// a mount of our own that nobody sees.
fn open_own(path: &str) -> io::Result<OwnedFd> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    for (root, point) in mounts.lines().filter_map(cgroup2_mount) {
        if let Some(below) = path.strip_prefix(root.trim_end_matches('/'))
            && let Ok(dir) = open_dir(CWD, Path::new(&point).join(below.trim_start_matches('/')))
        {
            return Ok(dir);
        }
    }
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    Ok(open_dir(&mount, Path::new(".").join(path.trim_start_matches('/')))?)
}

/// What of the hierarchy is mounted, and where. Fields are those of proc(5); blanks in paths are written `\040`, and no
/// cgroup is mounted at one.
fn cgroup2_mount(line: &str) -> Option<(String, PathBuf)> {
    let (before, after) = line.split_once(" - ")?;
    if after.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = before.split(' ').skip(3);
    Some((fields.next()?.to_owned(), fields.next()?.into()))
}

fn names(dir: &OwnedFd) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd())).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Removes what brokers of this process namespace left that are dead, and kills what still runs there.
fn remove_dead(above: &OwnedFd, namespace: u64) {
    for name in names(above) {
        if is_of_dead(&name, namespace) && !remove(above, &name) {
            kill(above, &name);
            remove(above, &name);
        }
    }
}

fn is_of_dead(name: &str, namespace: u64) -> bool {
    let mut parts = name.split('-');
    let is_ours = parts.next() == Some(PREFIX) && parts.next().is_some_and(|part| part == namespace.to_string());
    let (pid, ticks) =
        (parts.next().and_then(|pid| pid.parse().ok()), parts.next().and_then(|ticks| ticks.parse().ok()));
    match (is_ours, pid, ticks) {
        (true, Some(pid), Some(started_ticks)) => !Process { pid, started_ticks }.is_alive(),
        _ => false,
    }
}

/// Removes it and those in it. False where something still runs there.
fn remove(above: &OwnedFd, name: &str) -> bool {
    let Ok(dir) = open_dir(above, name) else { return true };
    for inner in names(&dir).iter().filter(|name| name.starts_with("exec-") || *name == SHIM) {
        let _ = unlinkat(&dir, inner, AtFlags::REMOVEDIR);
    }
    !matches!(unlinkat(above, name, AtFlags::REMOVEDIR), Err(Errno::BUSY | Errno::NOTEMPTY))
}

fn kill(above: &OwnedFd, name: &str) {
    let file = openat(above, format!("{name}/cgroup.kill"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    let _ = file.and_then(|file| rustix::io::write(file, b"1"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let line = "30 23 0:26 /a /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(cgroup2_mount(line), Some(("/a".into(), "/sys/fs/cgroup/unified".into())));
        assert_eq!(cgroup2_mount("30 23 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids"), None);
        assert_eq!(own_path("3:pids:/x\n0::/user.slice\n"), Some("/user.slice".into()));
    }

    #[test]
    fn only_what_dead_brokers_left_is_theirs() {
        let own = Process::of(std::process::id().cast_signed()).unwrap();
        let name = |pid: i32, ticks: u64| format!("{PREFIX}-7-{pid}-{ticks}-0");
        assert!(is_of_dead(&name(own.pid, own.started_ticks + 1), 7));
        assert!(!is_of_dead(&name(own.pid, own.started_ticks), 7));
        assert!(!is_of_dead(&name(own.pid, own.started_ticks + 1), 8));
        for stranger in ["longshore", "longshore-7", "longshore-7-x-y", "docker", "longshore.service"] {
            assert!(!is_of_dead(stranger, 7), "{stranger}");
        }
    }
}
