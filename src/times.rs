//! How long things take, counted without a lock: many write, and now and then somebody reads.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper ends of the lengths that are told apart, in microseconds.
const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000, 60_000_000,
];

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Times {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

/// The same at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// Upper ends in seconds, and how many were no longer than that and longer than the one before.
    pub buckets: Vec<(f64, u64)>,
    /// All together, in seconds.
    pub sum: f64,
    /// How many.
    pub count: u64,
}

impl Default for Counted {
    fn default() -> Self {
        Times::default().counted()
    }
}

impl Counted {
    /// Both together.
    #[must_use]
    pub fn and(mut self, other: &Counted) -> Self {
        for ((_, count), (_, more)) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        Counted { buckets: self.buckets, sum: self.sum + other.sum, count: self.count + other.count }
    }
}

impl Times {
    /// Counts one.
    pub fn count(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS.partition_point(|bound| *bound < us);
        self.counts[place].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// What was counted so far.
    pub fn counted(&self) -> Counted {
        let ends = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = ends.zip(&self.counts).map(|(end, count)| (end, count.load(Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Counted { buckets, sum: self.sum_us.load(Relaxed) as f64 / 1e6, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_where_it_belongs() {
        let times = Times::default();
        for us in [0, 100, 101, 60_000_000, 60_000_001] {
            times.count(Duration::from_micros(us));
        }
        let Counted { buckets, sum, count } = times.counted();
        let filled: Vec<(f64, u64)> = buckets.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.0001, 2), (0.00025, 1), (60.0, 1), (f64::MAX, 1)]);
        assert_eq!((count, (sum * 1e6).round()), (5, 120_000_202.0));
    }
}
