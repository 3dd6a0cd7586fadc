//! A user of this machine: what `/etc/passwd` and `/etc/group` say, and acting as that user for a moment. Other sources of
//! users are not asked (a static program has no NSS); what those know of groups, the kernel says of who calls.

#[cfg(target_os = "linux")]
pub mod access;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Who is nobody in particular.
const NOBODY: u32 = 65_534;

/// A user.
#[derive(Debug)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its name; its number where it has none here.
    pub name: String,
    /// Its home directory; `/` where none is known.
    pub home: PathBuf,
    /// What the files say.
    listed: Option<Groups>,
    /// What the last caller had.
    learned: Mutex<Option<Groups>>,
}

/// The groups of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// The group of what it makes.
    pub own: u32,
    /// The others.
    pub others: Vec<u32>,
}

impl User {
    /// The user with that number.
    ///
    /// # Errors
    ///
    /// What the system says where the two files cannot be read.
    pub fn find(uid: u32) -> io::Result<User> {
        Ok(User::among(uid, &fs::read_to_string("/etc/passwd")?, &fs::read_to_string("/etc/group")?))
    }

    /// The same out of the texts of the two files.
    fn among(uid: u32, passwd: &str, group: &str) -> User {
        let found = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let found = found.into_iter().find(|fields| fields.len() >= 7 && fields[2].parse() == Ok(uid));
        let Some(fields) = found else {
            return User { uid, name: uid.to_string(), home: "/".into(), listed: None, learned: Mutex::default() };
        };
        let name = fields[0].to_owned();
        let home = Some(PathBuf::from(fields[5])).filter(|home| home.is_absolute()).unwrap_or_else(|| "/".into());
        let listed = fields[3].parse().ok().map(|own| Groups { own, others: groups_of(&name, group) });
        User { uid, name, home, listed, learned: Mutex::default() }
    }

    /// Notes the groups of a process of this user, for one that is not in the files: those of the last one hold.
    pub fn learn(&self, own: u32, others: Vec<u32>) {
        *self.learned.lock().unwrap_or_else(PoisonError::into_inner) = Some(Groups { own, others });
    }

    /// Its groups; those of nobody where none are known.
    pub fn groups(&self) -> Groups {
        let learned = || self.learned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.listed.clone().or_else(learned).unwrap_or(Groups { own: NOBODY, others: vec![] })
    }

    /// What of the environment is the user's; nothing of the broker's own is.
    pub fn variable(&self, name: &str) -> Option<String> {
        match name {
            "HOME" => Some(self.home.display().to_string()),
            "USER" | "LOGNAME" => Some(self.name.clone()),
            "XDG_RUNTIME_DIR" => Some(format!("/run/user/{}", self.uid)).filter(|path| Path::new(path).is_dir()),
            _ => None,
        }
    }

    /// What a new process does to become this user for good, once it is forked: it keeps no right of root's, and no program
    /// that it starts gets one, though it be marked for that (`no_new_privs`).
    #[cfg(target_os = "linux")]
    pub fn becoming(&self) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
        let (uid, Groups { own, others }) = (self.uid, self.groups());
        move || acting::become_for_good(uid, own, &others)
    }

    /// Does something with the rights of this user: the calling thread alone has them, for as long as `work` takes, which
    /// must not wait.
    ///
    /// # Errors
    ///
    /// What the system says where this process may not act as others; `work` is not begun then.
    #[cfg(target_os = "linux")]
    pub fn act<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let _acting = acting::Acting::begin(self.uid, &self.groups())?;
        Ok(work())
    }
}

/// The number of a user, which is given by number or by name.
pub fn user_id(text: &str, passwd: &str) -> Option<u32> {
    text.parse().ok().or_else(|| id_in(text, passwd))
}

/// The same of a group.
pub fn group_id(text: &str, group: &str) -> Option<u32> {
    text.parse().ok().or_else(|| id_in(text, group))
}

/// In both files the name is the first field and the number the third.
fn id_in(name: &str, file: &str) -> Option<u32> {
    let mut lines = file.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?)
}

/// The groups that list a user as a member.
fn groups_of(name: &str, group: &str) -> Vec<u32> {
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, number, members] = fields[..] else { return None };
        members.split(',').any(|member| member == name).then(|| number.parse().ok())?
    };
    group.lines().filter_map(of_line).collect()
}

/// The rights of one thread. The C library's own functions change those of all threads, so the kernel is asked itself.
#[cfg(target_os = "linux")]
mod acting {
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
            let restored =
                set_user(0).and_then(|()| set_group(self.group_before)).and_then(|()| set_groups(&self.before));
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:100:Ann:/home/ann:/bin/sh\nbad\nodd:x:7:x::rel:\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\naudio:x:29:bob,ann\nvideo:x:44:anna\nlong:x:9:\n";

    #[test]
    fn a_user_is_found_by_number() {
        let ann = User::among(1000, PASSWD, GROUP);
        assert_eq!((ann.name.as_str(), ann.home.as_path()), ("ann", "/home/ann".as_ref()));
        assert_eq!(ann.groups(), Groups { own: 100, others: vec![29] });
        ann.learn(0, vec![0]);
        assert_eq!(ann.groups().own, 100, "what the files say holds");
        let stranger = User::among(5, PASSWD, GROUP);
        assert_eq!((stranger.name.as_str(), stranger.groups().own), ("5", NOBODY));
        stranger.learn(5, vec![6]);
        assert_eq!(stranger.groups(), Groups { own: 5, others: vec![6] });
        stranger.learn(5, vec![]);
        assert_eq!(stranger.groups(), Groups { own: 5, others: vec![] }, "who called last is asked");
        let odd = User::among(7, PASSWD, GROUP);
        assert_eq!((odd.name.as_str(), odd.home.as_path(), odd.groups().own), ("odd", "/".as_ref(), NOBODY));
        assert_eq!(odd.variable("LOGNAME"), Some("odd".into()));
        assert_eq!(odd.variable("PATH"), None);
    }

    #[test]
    fn names_become_numbers() {
        assert_eq!(
            (user_id("ann", PASSWD), user_id("1234", PASSWD), user_id("an", PASSWD)),
            (Some(1000), Some(1234), None)
        );
        assert_eq!((group_id("audio", GROUP), group_id("", GROUP)), (Some(29), None));
    }

    #[test]
    fn no_number_is_taken_for_none() {
        let stranger = User::among(54_321, PASSWD, GROUP);
        stranger.learn(u32::MAX, vec![]);
        assert!(stranger.act(|| ()).is_err() && stranger.becoming()().is_err());
        assert!(User::among(u32::MAX, PASSWD, GROUP).act(|| ()).is_err());
    }

    #[test]
    fn acting_as_another_is_given_up_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stranger = User::among(54_321, PASSWD, GROUP);
        let opened = stranger.act(|| (fs::File::open(file.path()).is_ok(), rustix::process::geteuid().as_raw()));
        match rustix::process::geteuid().is_root() {
            true => assert_eq!(opened.unwrap(), (false, 54_321)),
            false => assert!(opened.is_err()),
        }
        assert!(fs::File::open(file.path()).is_ok());
        let unwound = std::panic::catch_unwind(|| stranger.act(|| panic!("inside")));
        assert!(unwound.is_err() || !rustix::process::geteuid().is_root());
        assert!(fs::File::open(file.path()).is_ok());
    }
}
