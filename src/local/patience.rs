//! Accepting, whatever becomes of a try.

use std::{fmt::Display, io, time::Duration};

/// Pauses after tries that failed: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// The next client at `place`, from what `accept` makes of a try. One that fails, for want of descriptors say, is told in
/// the log and waited out: trying again at once would spin (lessons 1.10).
pub async fn next_client<T, F>(place: impl Display, accept: impl Fn() -> F) -> T
where
    F: Future<Output = io::Result<T>>,
{
    let (mut pause, longest) = PAUSES;
    loop {
        match accept().await {
            Ok(client) => return client,
            Err(error) => {
                tracing::warn!(%error, %place, "cannot accept a client; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_and_not_at_once() {
        let (begun, tries) = (tokio::time::Instant::now(), AtomicU32::new(0));
        let accept = || async {
            match tries.fetch_add(1, Ordering::Relaxed) {
                10 => Ok("a client"),
                _ => Err(io::Error::other("too many open files")),
            }
        };
        assert_eq!(next_client("a socket", accept).await, "a client");
        // Eight that double, then the longest.
        assert_eq!(begun.elapsed(), Duration::from_millis(5 * 255 + 2 * 1000));
    }
}
