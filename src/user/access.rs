//! Letting single users and groups into a file that is closed to others: its access control list.

use std::{io, path::Path};

use rustix::fs::{XattrFlags, lsetxattr};

/// Where Linux keeps the list.
const ATTRIBUTE: &str = "system.posix_acl_access";
/// Version of its form.
const VERSION: u32 = 2;
/// Kinds of its lines.
const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;
/// For lines that are about nobody by number.
const NOBODY_NAMED: u32 = u32::MAX;

/// Who may do what, as the last digit of a mode says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// What the owner may.
    pub owner: u16,
    /// What the file's group may.
    pub group: u16,
    /// What single users may.
    pub users: Vec<(u32, u16)>,
    /// What single groups may.
    pub groups: Vec<(u32, u16)>,
}

impl Access {
    /// Sets it for a file; others may do nothing. A link is not followed.
    ///
    /// # Errors
    ///
    /// What the system says, such as that the disk keeps no such lists.
    pub fn set(&self, path: &Path) -> io::Result<()> {
        Ok(lsetxattr(path, ATTRIBUTE, &self.encoded(), XattrFlags::empty())?)
    }

    fn encoded(&self) -> Vec<u8> {
        let sorted = |list: &[(u32, u16)]| {
            let mut list = list.to_vec();
            list.sort_unstable();
            list.dedup_by_key(|(id, _)| *id);
            list
        };
        let (users, groups) = (sorted(&self.users), sorted(&self.groups));
        let named = users.iter().chain(&groups).fold(self.group, |most, (_, may)| most | may);
        let mut bytes = VERSION.to_le_bytes().to_vec();
        let mut line = |kind: u16, may: u16, id: u32| {
            bytes.extend(kind.to_le_bytes());
            bytes.extend(may.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        };
        line(OWNER, self.owner, NOBODY_NAMED);
        users.iter().for_each(|(id, may)| line(USER, *may, *id));
        line(OWNING_GROUP, self.group, NOBODY_NAMED);
        groups.iter().for_each(|(id, may)| line(GROUP, *may, *id));
        line(MASK, named, NOBODY_NAMED);
        line(OTHERS, 0, NOBODY_NAMED);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::user::User;

    #[test]
    fn who_is_named_is_let_in_and_nobody_else() {
        let temp = tempfile::tempdir().unwrap();
        let access = Access { owner: 7, users: vec![(54_321, 1)], groups: vec![(54_322, 5)], ..Access::default() };
        access.set(temp.path()).unwrap();
        // What of the mode is about the group is the most that anybody named may.
        assert_eq!(temp.path().metadata().unwrap().permissions().mode() & 0o777, 0o750);
        if rustix::process::geteuid().is_root() {
            std::fs::write(temp.path().join("x"), "").unwrap();
            let enters = |uid| {
                let user = User::among(uid, "", "");
                user.act(|| temp.path().join("x").symlink_metadata().is_ok()).unwrap()
            };
            assert_eq!((enters(54_321), enters(54_323)), (true, false));
        }
    }
}
