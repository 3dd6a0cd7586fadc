//! All trees of programs that live, by owner, so that an owner's can be ended together.

use std::{
    collections::HashMap,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::channel::Channel;

/// How many trees of one owner may outlive their programs.
const MAX_LEFT_OVER: usize = 256;
/// How long ended trees are waited for: a little longer than a keeper goes on killing.
const END_BOUND: Duration = Duration::from_secs(12);

/// The living trees.
#[derive(Debug, Default)]
pub(super) struct Trees(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    by_owner: HashMap<String, HashMap<u64, Tree>>,
}

#[derive(Debug)]
struct Tree {
    channel: Arc<Channel>,
    is_left_over: bool,
}

/// The entry of one tree; taken out when dropped.
#[derive(Debug)]
pub(super) struct Entry {
    trees: Arc<Trees>,
    owner: String,
    id: u64,
}

impl Trees {
    /// Enters a tree.
    pub(super) fn enter(self: &Arc<Self>, owner: &str, channel: Arc<Channel>) -> Entry {
        let mut state = self.lock();
        state.last_id += 1;
        let id = state.last_id;
        state.by_owner.entry(owner.to_owned()).or_default().insert(id, Tree { channel, is_left_over: false });
        Entry { trees: self.clone(), owner: owner.to_owned(), id }
    }

    /// Kills the trees of one owner, or of all, and waits until they are gone: how many are not.
    pub(super) async fn end(&self, owner: Option<&str>) -> usize {
        let channels: Vec<Arc<Channel>> = {
            let state = self.lock();
            let of_owner = |(name, _): &(&String, _)| owner.is_none_or(|owner| owner == *name);
            let trees = state.by_owner.iter().filter(of_owner).flat_map(|(_, trees)| trees.values());
            trees.map(|tree| tree.channel.clone()).collect()
        };
        if channels.is_empty() {
            return 0;
        }
        channels.iter().for_each(|channel| channel.kill());
        let count = channels.len();
        tokio::task::spawn_blocking(move || wait_until_gone(&channels)).await.unwrap_or(count)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Notes that the tree outlives its program and its call. False where its owner has too many of these already.
    pub(super) fn leave_over(&self) -> bool {
        let mut state = self.trees.lock();
        let Some(trees) = state.by_owner.get_mut(&self.owner) else { return false };
        if trees.values().filter(|tree| tree.is_left_over).count() >= MAX_LEFT_OVER {
            return false;
        }
        trees.get_mut(&self.id).map(|tree| tree.is_left_over = true).is_some()
    }

    /// Whose it is.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.trees.lock();
        if let Some(trees) = state.by_owner.get_mut(&self.owner) {
            trees.remove(&self.id);
            if trees.is_empty() {
                state.by_owner.remove(&self.owner);
            }
        }
    }
}

/// Waits for keepers to close their ends, which they do when their trees are gone: how many have not in time.
fn wait_until_gone(channels: &[Arc<Channel>]) -> usize {
    let deadline = Instant::now() + END_BOUND;
    let mut left: Vec<_> = channels.iter().map(|channel| channel.as_fd()).collect();
    while !left.is_empty() {
        let mut fds: Vec<_> = left.iter().map(|fd| PollFd::new(fd, PollFlags::empty())).collect();
        let timeout = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
        if !matches!(poll(&mut fds, timeout.as_ref()), Ok(1..) | Err(rustix::io::Errno::INTR)) {
            break;
        }
        let open: Vec<bool> = fds.iter().map(|fd| fd.revents().is_empty()).collect();
        let mut open = open.into_iter();
        left.retain(|_| open.next().unwrap_or(true));
    }
    left.len()
}
