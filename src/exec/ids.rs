//! Ids of execs.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::random;

/// Ids of execs: unique on this broker, and not those of its last run.
#[derive(Debug)]
pub(super) struct ExecIds {
    boot: u64,
    last: AtomicU64,
}

impl ExecIds {
    pub(super) fn new() -> Self {
        ExecIds { boot: random::number(), last: AtomicU64::new(0) }
    }

    pub(super) fn next(&self) -> String {
        format!("{:08x}-{}", self.boot as u32, self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }
}
