//! The brokers of this process: one for each user that it works for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::OnceCell;

use super::{Broker, Stats};
use crate::model::error::Result;

/// Opens the broker of the user with that uid.
pub type Opener = Box<dyn Fn(u32) -> BoxFuture<'static, Result<Arc<Broker>>> + Send + Sync>;

/// A broker that is there or being opened; who comes meanwhile shares it.
type Cell = Arc<OnceCell<Arc<Broker>>>;

/// Who may call, and whose broker answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callers {
    /// The user with that uid, and root on this user's behalf.
    One(u32),
    /// Each on its own behalf: root, these users, and the members of these groups.
    Several {
        /// Users.
        users: Vec<u32>,
        /// Groups.
        groups: Vec<u32>,
    },
}

/// One broker for each user.
pub struct Brokers {
    callers: Callers,
    all: Mutex<BTreeMap<u32, Cell>>,
    open: Opener,
}

impl Brokers {
    /// None yet; each is opened when it is first asked for.
    pub fn new(callers: Callers, open: Opener) -> Self {
        Brokers { callers, all: Mutex::default(), open }
    }

    /// Whose broker answers a caller.
    ///
    /// # Errors
    ///
    /// Why none does.
    pub fn whose(&self, uid: u32, groups: &[u32]) -> Result<u32, String> {
        match &self.callers {
            Callers::One(own) if uid == 0 || uid == *own => Ok(*own),
            Callers::One(_) => Err("this control socket belongs to another user".into()),
            Callers::Several { users, groups: allowed } => {
                let is_allowed = users.contains(&uid) || groups.iter().any(|group| allowed.contains(group));
                if uid == 0 || is_allowed {
                    return Ok(uid);
                }
                Err(format!(
                    "uid {uid} may not use this broker; whoever administers the machine can name it in \
                     system.allowed_users of the broker's configuration, or one of its groups in system.allowed_groups"
                ))
            }
        }
    }

    /// The broker of a user.
    ///
    /// # Errors
    ///
    /// Those of opening it, which is tried again the next time.
    pub async fn of(&self, uid: u32) -> Result<Arc<Broker>> {
        let cell = self.lock().entry(uid).or_default().clone();
        cell.get_or_try_init(|| (self.open)(uid)).await.cloned()
    }

    /// Those that are open, and whose they are.
    pub fn all(&self) -> Vec<(u32, Arc<Broker>)> {
        self.lock().iter().filter_map(|(uid, cell)| Some((*uid, cell.get()?.clone()))).collect()
    }

    /// Whether a process was started by one of them as some extension's program, or by such a program.
    pub fn is_extension_program(&self, pid: i32) -> bool {
        self.all().iter().any(|(_, broker)| broker.is_extension_program(pid))
    }

    /// How much there is now, of all together.
    pub async fn stats(&self) -> Stats {
        let all = self.all();
        let each = join_all(all.iter().map(|(_, broker)| broker.stats())).await;
        each.into_iter().reduce(Stats::and).unwrap_or_default()
    }

    /// Ends what must not outlive them, as [`Broker::shut_down`].
    pub async fn shut_down(&self, bound: Duration) {
        let all = self.all();
        join_all(all.iter().map(|(_, broker)| broker.shut_down(bound))).await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Cell>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
