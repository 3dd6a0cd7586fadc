//! How many bytes went to backends and came from them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes on connections to backends, heads and framing included.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Bytes that backends were sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Bytes that backends sent.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    pub(super) fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
    }
}
