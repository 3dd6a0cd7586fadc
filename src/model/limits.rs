//! What calls and the configuration may ask for at most.

use std::time::Duration;

/// Largest body of an answer. The whole of it is held in memory.
pub const MAX_BODY_BYTES: u64 = 64 << 20;

/// Longest time limit that makes sense anywhere: a day.
pub const MAX_TIME_LIMIT: Duration = Duration::from_secs(24 * 3600);
