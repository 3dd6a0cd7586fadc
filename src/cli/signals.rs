//! The signals that ask this program to end, for commands that have to clear up behind themselves.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM, SIGHUP and SIGQUIT. From when it is made they no longer end the process.
pub(super) struct EndSignals([(u8, Signal); 4]);

impl EndSignals {
    /// Listens from now on.
    pub(super) fn listen() -> io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
        let [interrupt, terminate, hangup, quit] =
            kinds.map(|kind| Ok::<_, io::Error>((kind.as_raw_value().try_into().unwrap_or(u8::MAX), signal(kind)?)));
        Ok(EndSignals([interrupt?, terminate?, hangup?, quit?]))
    }

    /// Waits for one of them and tells its number.
    pub(super) async fn any(&mut self) -> u8 {
        let EndSignals([interrupt, terminate, hangup, quit]) = self;
        tokio::select! {
            _ = interrupt.1.recv() => interrupt.0,
            _ = terminate.1.recv() => terminate.0,
            _ = hangup.1.recv() => hangup.0,
            _ = quit.1.recv() => quit.0,
        }
    }
}

/// Changes of the terminal's size.
pub(super) struct SizeChanges(Signal);

impl SizeChanges {
    /// Listens from now on.
    pub(super) fn listen() -> io::Result<Self> {
        signal(SignalKind::window_change()).map(SizeChanges)
    }

    /// Waits for one.
    pub(super) async fn next(&mut self) -> Option<()> {
        self.0.recv().await
    }
}
