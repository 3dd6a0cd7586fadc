//! A user of this machine: what `/etc/passwd` and `/etc/group` say, and acting as that user for a moment. Other sources of
//! users are not asked (a static program has no NSS); what those know of groups, the kernel says of who calls.

#[cfg(unix)]
pub mod access;
#[cfg_attr(windows, path = "acting_windows.rs")]
mod acting;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The variable that names the user's own directory.
pub const HOME: &str = if cfg!(windows) { "USERPROFILE" } else { "HOME" };

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
    #[cfg(unix)]
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
    pub fn act<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let _acting = acting::Acting::begin(self.uid, &self.groups())?;
        Ok(work())
    }
}

/// Where Docker's own tools keep the configuration of a user who has these variables. An empty one is none.
pub fn docker_config<P: Into<PathBuf>>(variable: impl Fn(&str) -> Option<P>) -> Option<PathBuf> {
    let directory = |name| variable(name).map(Into::into).filter(|path: &PathBuf| !path.as_os_str().is_empty());
    directory("DOCKER_CONFIG").or_else(|| directory(HOME).map(|home| home.join(".docker")))
}

/// The number of the user that this process runs as; where users have no numbers, 0.
pub fn own_uid() -> u32 {
    acting::own_uid()
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
    fn docker_has_its_configuration_where_it_is_told_or_at_home() {
        let found = |variables: &[(&str, &str)]| {
            docker_config(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, path)| (*path).to_owned()))
        };
        assert_eq!(found(&[("DOCKER_CONFIG", "/d"), (HOME, "/h")]), Some("/d".into()));
        assert_eq!(found(&[("DOCKER_CONFIG", ""), (HOME, "/h")]), Some(Path::new("/h").join(".docker")));
        assert_eq!(found(&[(HOME, "")]), None);
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
