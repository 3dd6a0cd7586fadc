//! Waits for an engine that is away. No system call tells of a pipe that appears: it is tried from time to time.

use std::{path::Path, time::Duration};

/// How long a pipe is not looked for again, at most.
const PAUSE: Duration = Duration::from_secs(2);

/// Tells when it is time to try again.
#[derive(Debug)]
pub struct SocketWatch(());

impl SocketWatch {
    pub(super) fn of(_pipe: &Path) -> SocketWatch {
        SocketWatch(())
    }

    /// Completes after `pause`, or sooner; true where something may have changed.
    pub async fn changed(&mut self, pause: Duration) -> bool {
        tokio::time::sleep(pause.min(PAUSE)).await;
        pause > PAUSE
    }
}
