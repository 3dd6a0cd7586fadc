//! One cgroup (v2) per program: what is in it can be killed in one go, however it forks, and is known to be ours.
//!
//! Making a cgroup and moving a process into it are slow, so emptied ones are used again, and keepers are forked into
//! theirs. A keeper is in the cgroup with its program; it leaves only when it is about to kill all that is in it. One that
//! was killed is never used again: Linux (seen with 6.18) kills whatever is forked into such a cgroup, also much later.

use std::{
    cell::Cell,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    rc::Rc,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat},
    io::{Errno, read, write},
};

/// How many emptied ones are kept.
const MAX_FREE: usize = 64;
/// `CLONE_INTO_CGROUP` of Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// All cgroups of this shim's programs, below one that the broker made.
#[derive(Debug)]
pub(super) struct Cages {
    base: Rc<OwnedFd>,
    free: Vec<Cage>,
    made: u64,
}

/// One cgroup.
#[derive(Debug, Clone)]
pub(super) struct Cage {
    base: Rc<OwnedFd>,
    dir: Rc<OwnedFd>,
    name: String,
    /// Whether this process killed what is in it.
    was_killed: Cell<bool>,
}

impl Cages {
    /// Cages below `base`.
    pub(super) fn new(base: OwnedFd) -> Self {
        Cages { base: Rc::new(base), free: Vec::new(), made: 0 }
    }

    /// An empty one; `None` where none can be made.
    pub(super) fn take(&mut self) -> Option<Cage> {
        self.free.pop().or_else(|| self.make().ok())
    }

    fn make(&mut self) -> Result<Cage, Errno> {
        let name = format!("exec-{}", self.made);
        self.made += 1;
        match mkdirat(&self.base, &name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let dir = openat(&self.base, &name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Cage { base: self.base.clone(), dir: Rc::new(dir), name, was_killed: Cell::new(false) })
    }

    /// Takes back one whose keeper has ended, to use it again if that keeper left it `clean`. False where something is
    /// still in it, which is killed.
    pub(super) fn give_back(&mut self, cage: Cage, clean: bool) -> bool {
        let is_empty = !cage.is_populated();
        if !is_empty {
            let _ = cage.write("cgroup.kill", "1");
        }
        if is_empty && clean && self.free.len() < MAX_FREE {
            self.free.push(cage);
        } else {
            // One that something is still in stays; all go with the base.
            let _ = unlinkat(&self.base, &cage.name, AtFlags::REMOVEDIR);
        }
        is_empty
    }

    /// Removes all, and the base with them.
    pub(super) fn remove(self) {
        for number in 0..self.made {
            let _ = unlinkat(&self.base, format!("exec-{number}"), AtFlags::REMOVEDIR);
        }
        let link = format!("/proc/self/fd/{}", self.base.as_raw_fd());
        let path = std::fs::read_link(link).ok();
        let name = path.as_deref().and_then(|path| path.file_name());
        let above = openat(&self.base, "..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        if let (Some(name), Ok(above)) = (name, above) {
            let _ = unlinkat(above, name, AtFlags::REMOVEDIR);
        }
    }
}

impl Cage {
    /// Leaves it and kills all that is in it. False where that cannot be done.
    pub(super) fn kill(&self) -> bool {
        let left = open_write(&self.base, "cgroup.procs").and_then(|procs| write(procs, b"0"));
        let is_killed = left.is_ok() && self.write("cgroup.kill", "1").is_ok();
        self.was_killed.set(self.was_killed.get() || is_killed);
        is_killed
    }

    /// Whether this process killed what is in it.
    pub(super) fn was_killed(&self) -> bool {
        self.was_killed.get()
    }

    fn write(&self, file: &str, text: &str) -> Result<(), Errno> {
        write(open_write(&self.dir, file)?, text.as_bytes()).map(drop)
    }

    fn is_populated(&self) -> bool {
        let events = openat(&self.dir, "cgroup.events", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mut text = [0; 128];
        let Ok(len) = events.and_then(|events| read(events, &mut text)) else { return true };
        !String::from_utf8_lossy(&text[..len]).lines().any(|line| line == "populated 0")
    }

    /// Forks into it: 0 in the child, the child's process id in the parent.
    ///
    /// # Safety
    ///
    /// As `fork`: the process must have a single thread.
    pub(super) unsafe fn fork(&self) -> io::Result<libc::pid_t> {
        #[repr(C)]
        #[derive(Default)]
        struct CloneArgs {
            flags: u64,
            pidfd: u64,
            child_tid: u64,
            parent_tid: u64,
            exit_signal: u64,
            stack: u64,
            stack_size: u64,
            tls: u64,
            set_tid: u64,
            set_tid_size: u64,
            cgroup: u64,
        }
        let args = CloneArgs {
            flags: CLONE_INTO_CGROUP,
            exit_signal: libc::SIGCHLD as u64,
            cgroup: u64::try_from(self.dir.as_raw_fd()).unwrap_or_default(),
            ..CloneArgs::default()
        };
        // SAFETY: the structure is what the kernel expects, of the size that is said, and lives through the call; without
        // flags that share anything, this is a fork, which the caller may do.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
        if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(libc::pid_t::try_from(pid).unwrap_or_default()) }
    }
}

fn open_write(dir: impl AsFd, file: &str) -> Result<OwnedFd, Errno> {
    openat(dir, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}
