//! Whether the engine is there: one task knows, and whoever needs the engine waits for it. While it answers, one open
//! connection waits for its end; while it is away, its socket is watched.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::Broker;

/// Time between two tries while the engine is away and nothing changes where its socket is, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Whether the engine answers, as it was last seen.
#[derive(Debug)]
pub(super) struct Presence(watch::Sender<bool>);

impl Default for Presence {
    fn default() -> Self {
        Presence(watch::channel(false).0)
    }
}

impl Presence {
    /// Whether the engine answers.
    pub(super) fn is_there(&self) -> bool {
        *self.0.borrow()
    }

    /// Completes when the engine answers; at once where it does. What fails all the same is tried again after `pause`.
    pub(super) async fn back(&self, pause: Duration) {
        let mut answers = self.0.subscribe();
        if *answers.borrow_and_update() {
            // It may not be known yet that it has gone.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = answers.changed() => {}
            }
        }
        // The sender lives as long as we do.
        let _ = answers.wait_for(|answers| *answers).await;
    }
}

impl Broker {
    /// Begins to follow whether the engine answers.
    pub fn spawn_presence(self: &Arc<Self>) {
        let broker = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = broker.follow_presence() => {}
                () = broker.stopping.cancelled() => {}
            }
        });
    }

    /// Whether the engine answers, now and from now on.
    pub fn engine_presence(&self) -> watch::Receiver<bool> {
        self.presence.0.subscribe()
    }

    async fn follow_presence(&self) {
        let (first, most) = PAUSES;
        let mut pause = first;
        loop {
            // From before it is asked: what happens meanwhile is told.
            let mut socket = self.engine.watch_socket();
            if self.engine.answers().await {
                let since = Instant::now();
                self.presence.0.send_replace(true);
                self.engine.gone().await;
                self.presence.0.send_replace(false);
                // One that comes and goes is not asked without a pause.
                if since.elapsed() > most {
                    pause = first;
                }
            }
            pause = if socket.changed(pause).await { first } else { (pause * 2).min(most) };
        }
    }
}
