//! The rights of one thread. The C library's own functions change those of all threads, so the kernel is asked itself.

use std::{io, marker::PhantomData};

use super::Groups;

/// Given back when dropped.
pub(super) struct Acting {
    before: Vec<libc::gid_t>,
    group_before: libc::gid_t,
    /// It belongs to the thread that began it.
    _thread: PhantomData<*const ()>,
}

impl Acting {
    pub(super) fn begin(uid: u32, groups: &Groups) -> io::Result<Self> {
        check(uid, groups.own)?;
        // SAFETY: neither of them has conditions.
        if unsafe { libc::geteuid() } != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // SAFETY: as above.
        let group_before = unsafe { libc::getegid() };
        let acting = Acting { before: current()?, group_before, _thread: PhantomData };
        set_groups(&groups.others)?;
        set_group(groups.own)?;
        // Last: it takes away the right to the others.
        set_user(uid)?;
        Ok(acting)
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        // First: it gives back the right to the others.
        let restored = set_user(0).and_then(|()| set_group(self.group_before)).and_then(|()| set_groups(&self.before));
        if restored.is_err() {
            // Nothing may go on with the rights of another.
            std::process::abort();
        }
    }
}

/// Allocates nothing, takes no lock: it is called between fork and exec.
pub(super) fn become_for_good(uid: libc::uid_t, own: libc::gid_t, others: &[libc::gid_t]) -> io::Result<()> {
    check(uid, own)?;
    set_groups(others)?;
    // SAFETY: these take numbers.
    unsafe {
        answered(libc::syscall(libc::SYS_setresgid, own, own, own))?;
        answered(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
        answered(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())
    }
}

fn current() -> io::Result<Vec<libc::gid_t>> {
    // SAFETY: with a size of 0 nothing is written.
    let count = unsafe { libc::getgroups(0, std::ptr::null_mut()) };
    let mut groups = vec![0; usize::try_from(count).map_err(|_| io::Error::last_os_error())?];
    // SAFETY: there is room for as many as are announced.
    let count = unsafe { libc::getgroups(count, groups.as_mut_ptr()) };
    groups.truncate(usize::try_from(count).map_err(|_| io::Error::last_os_error())?);
    Ok(groups)
}

fn set_groups(groups: &[libc::gid_t]) -> io::Result<()> {
    // SAFETY: the kernel reads as many as are announced.
    answered(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
}

/// To the kernel this number means that nothing is to change.
fn check(uid: libc::uid_t, own: libc::gid_t) -> io::Result<()> {
    if uid == u32::MAX || own == u32::MAX { Err(io::Error::from_raw_os_error(libc::EINVAL)) } else { Ok(()) }
}

fn set_group(gid: libc::gid_t) -> io::Result<()> {
    // SAFETY: it takes numbers; -1 leaves the others as they are.
    answered(unsafe { libc::syscall(libc::SYS_setresgid, -1, gid, -1) })
}

fn set_user(uid: libc::uid_t) -> io::Result<()> {
    // SAFETY: as above.
    answered(unsafe { libc::syscall(libc::SYS_setresuid, -1, uid, -1) })
}

fn answered(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(super) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
