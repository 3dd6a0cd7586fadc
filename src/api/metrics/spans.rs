//! What is counted of the spans that go to a collector.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What became of spans that were to be sent to a collector.
#[derive(Debug, Default)]
pub struct SpanCounts {
    sent: AtomicU64,
    full: AtomicU64,
    refused: AtomicU64,
}

impl SpanCounts {
    /// Some were sent, or were not taken.
    pub fn count_sent(&self, count: usize, were_taken: bool) {
        let counter = if were_taken { &self.sent } else { &self.refused };
        counter.fetch_add(count as u64, Relaxed);
    }

    /// One was dropped as too many waited.
    pub fn count_full(&self) {
        self.full.fetch_add(1, Relaxed);
    }

    /// How many the collector took.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// How many were dropped, by why.
    pub fn dropped(&self) -> [(&'static str, u64); 2] {
        [("full", self.full.load(Relaxed)), ("refused", self.refused.load(Relaxed))]
    }
}
