//! For whom the broker works: the user that it runs as, or in system mode one of several, of whom it knows no more than
//! the machine does. What it does because such a user says so, it does with that user's rights.

use std::{io, path::PathBuf, sync::Arc};

use crate::{
    model::{
        error::{Error, Reason, Result},
        grant::{Decisions, Grant},
    },
    user::{self, HOME, User},
};

/// What of the broker's environment is nobody's in particular.
const COMMON: [&str; 4] = ["PATH", "LANG", "LC_ALL", "TZ"];

/// For whom a broker works.
#[derive(Debug, Clone)]
pub enum Behalf {
    /// The user that it runs as.
    Own,
    /// One of several.
    OneOfSeveral {
        /// Who.
        user: Arc<User>,
        /// Whether this user may accept grants that amount to root on the machine, or show what others have.
        is_trusted: bool,
    },
}

impl Behalf {
    /// Its uid.
    pub fn uid(&self) -> u32 {
        match self {
            Behalf::Own => user::own_uid(),
            Behalf::OneOfSeveral { user, .. } => user.uid,
        }
    }

    /// Whether brokers of others use the same engine, whose things are none of this user's business.
    pub fn is_one_of_several(&self) -> bool {
        matches!(self, Behalf::OneOfSeveral { .. })
    }

    /// Whether that user is another than the broker's own.
    pub fn acts_for_another(&self) -> bool {
        self.uid() != user::own_uid()
    }

    /// As whom its programs run, where that is not the broker's own user.
    pub fn run_as(&self) -> Option<Arc<User>> {
        self.reader().filter(|_| self.acts_for_another())
    }

    /// A variable of its environment.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        match self {
            Behalf::Own => std::env::var(name).ok(),
            Behalf::OneOfSeveral { .. } if COMMON.contains(&name) => std::env::var(name).ok(),
            Behalf::OneOfSeveral { user, .. } => user.variable(name),
        }
    }

    /// Its home directory.
    pub(super) fn home(&self) -> PathBuf {
        self.variable(HOME).unwrap_or_else(|| "/".into()).into()
    }

    /// Notes the groups of a process of this user.
    pub(super) fn learn(&self, groups: &(u32, Vec<u32>)) {
        if let Behalf::OneOfSeveral { user, .. } = self {
            user.learn(groups.0, groups.1.clone());
        }
    }

    /// Does something with this user's rights, and on this thread alone. It must not wait.
    ///
    /// # Errors
    ///
    /// What the system says, of the work or of why it is not begun.
    pub(super) fn act<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Behalf::Own => work(),
            Behalf::OneOfSeveral { user, .. } => user.act(work)?,
        }
    }

    /// Whose rights it is that files are read with, where they are not the broker's own.
    pub(super) fn reader(&self) -> Option<Arc<User>> {
        match self {
            Behalf::Own => None,
            Behalf::OneOfSeveral { user, .. } => Some(user.clone()),
        }
    }

    /// The user, where it is one of several and not trusted with the machine.
    fn untrusted(&self) -> Option<&User> {
        match self {
            Behalf::OneOfSeveral { is_trusted: false, user } => Some(user),
            _ => None,
        }
    }

    /// Whether all of them count.
    pub(super) fn counts_all(&self, decisions: &Decisions) -> bool {
        self.untrusted().is_none() || !decisions.allow.iter().any(Grant::reaches_others)
    }

    /// What counts of decisions: grants that reach others do for those alone who may accept them now.
    pub(super) fn counted(&self, mut decisions: Decisions) -> Decisions {
        if !self.counts_all(&decisions) {
            decisions.allow.retain(|grant| !grant.reaches_others());
        }
        decisions
    }

    /// Whether this user may bring images of its own making, under any name: all users of an engine take an image that is
    /// there by its name.
    ///
    /// # Errors
    ///
    /// `GRANT_RESERVED`.
    pub(super) fn check_archive(&self, path: &str) -> Result<()> {
        let Some(user) = self.untrusted() else { return Ok(()) };
        let message = format!(
            "an archive can bring images under names that other users of the engine trust: {} may install from an image's \
             name or a directory, or from archives where system.trust_users is on in the broker's configuration",
            user.name
        );
        Err(Error::new(Reason::GrantReserved, path, message))
    }

    /// Whether this user may accept grants.
    ///
    /// # Errors
    ///
    /// `GRANT_RESERVED`.
    pub(super) fn check_acceptance<'a>(&self, mut grants: impl Iterator<Item = &'a Grant>) -> Result<()> {
        let Some(user) = self.untrusted() else { return Ok(()) };
        let Some(grant) = grants.find(|grant| grant.reaches_others()) else { return Ok(()) };
        let message = format!(
            "{grant} amounts to root on this machine or shows what others have, and the broker works for several users: \
             {} may not accept it unless system.trust_users is on in the broker's configuration",
            user.name
        );
        Err(Error::new(Reason::GrantReserved, grant.to_string(), message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_accepted_counts_while_its_user_may_accept_it() {
        let user = Arc::new(User::find(0).unwrap());
        let held = || Decisions { allow: vec![Grant::EngineFull, Grant::HostExecAny], deny: vec![] };
        let counted = |is_trusted| Behalf::OneOfSeveral { user: user.clone(), is_trusted }.counted(held()).allow;
        assert_eq!(counted(true), held().allow);
        assert_eq!(counted(false), [Grant::HostExecAny]);
        assert_eq!(Behalf::Own.counted(held()).allow, held().allow);
    }
}
