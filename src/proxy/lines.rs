//! Header lines that are on their way: when to look at them, and when there are too many.

use super::headers::MAX_HEADER_BYTES;

/// How far what was read was looked at.
#[derive(Debug, Default)]
pub(super) struct Lines {
    seen: usize,
}

impl Lines {
    /// Whether an empty line came since this was last asked, or it is asked for the first time. Lines that come byte by
    /// byte are not read anew with each.
    pub(super) fn may_be_whole(&mut self, received: &[u8]) -> bool {
        let seen = std::mem::replace(&mut self.seen, received.len());
        let more = received.get(seen.saturating_sub(2)..).unwrap_or_default();
        let is_empty_at = |at: usize| more[at..].starts_with(b"\n\n") || more[at..].starts_with(b"\n\r\n");
        let begins_empty = received.starts_with(b"\n") || received.starts_with(b"\r\n");
        let has_empty = || (0..more.len()).any(is_empty_at);
        received.len() > seen && (seen == 0 || begins_empty || self.is_too_long(received) || has_empty())
    }

    /// Whether lines that are not whole yet are longer than they may be.
    pub(super) fn is_too_long(&self, received: &[u8]) -> bool {
        received.len() > MAX_HEADER_BYTES
    }
}
