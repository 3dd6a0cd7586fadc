//! The newest of what happens, held for those who watch: each reads at its own pace, and who falls behind is told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

/// Numbered entries, the newest of them held.
#[derive(Debug)]
pub(super) struct Ring<T> {
    most: usize,
    entries: Mutex<VecDeque<Arc<T>>>,
    /// The number of the newest entry; the first has 1.
    newest: watch::Sender<u64>,
}

/// Entries that a reader has not seen are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost;

impl<T> Ring<T> {
    /// Holds at most so many.
    pub(super) fn new(most: usize) -> Self {
        Ring { most, entries: Mutex::default(), newest: watch::channel(0).0 }
    }

    /// Adds an entry, which is made knowing its number.
    pub(super) fn push(&self, entry: impl FnOnce(u64) -> T) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.newest() + 1;
        entries.push_back(Arc::new(entry(number)));
        if entries.len() > self.most {
            entries.pop_front();
        }
        self.newest.send_replace(number);
    }

    /// The number of the newest entry; 0 where there was none.
    pub(super) fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// How many are told.
    pub(super) fn watchers(&self) -> usize {
        self.newest.receiver_count()
    }

    /// Tells whenever there is a new one.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The entry behind `seen`, if there is one yet.
    pub(super) fn after(&self, seen: u64) -> Result<Option<Arc<T>>, Lost> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.newest();
        if seen >= newest {
            return Ok(None);
        }
        let oldest = newest + 1 - entries.len() as u64;
        let place = (seen + 1).checked_sub(oldest).and_then(|place| usize::try_from(place).ok()).ok_or(Lost)?;
        Ok(entries.get(place).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reads_at_its_own_pace_and_who_falls_behind_is_told() {
        let ring = Ring::new(3);
        assert_eq!(ring.after(0), Ok(None));
        for _ in 0..3 {
            ring.push(|number| number * 10);
        }
        assert_eq!(ring.after(0).unwrap().as_deref(), Some(&10));
        assert_eq!(ring.after(2).unwrap().as_deref(), Some(&30));
        assert_eq!(ring.after(3), Ok(None));
        ring.push(|number| number * 10);
        assert_eq!((ring.after(0), ring.newest()), (Err(Lost), 4));
        assert_eq!(ring.after(1).unwrap().as_deref(), Some(&20));
    }
}
