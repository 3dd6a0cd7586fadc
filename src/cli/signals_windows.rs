//! What asks this program to end, for commands that have to clear up behind themselves.

use std::io;

use tokio::signal::windows::{CtrlBreak, CtrlC, ctrl_break, ctrl_c};

/// The number that shells elsewhere give to what Ctrl-C does.
const INTERRUPT: u8 = 2;

/// Ctrl-C and Ctrl-Break. From when it is made they no longer end the process.
pub(super) struct EndSignals(CtrlC, CtrlBreak);

impl EndSignals {
    /// Listens from now on.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(EndSignals(ctrl_c()?, ctrl_break()?))
    }

    /// Waits for one of them and tells its number.
    pub(super) async fn any(&mut self) -> u8 {
        tokio::select! {
            _ = self.0.recv() => INTERRUPT,
            _ = self.1.recv() => INTERRUPT,
        }
    }
}

/// Changes of the terminal's size, of which nothing tells here.
pub(super) struct SizeChanges(());

impl SizeChanges {
    /// Listens from now on.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(SizeChanges(()))
    }

    /// Waits for one.
    pub(super) async fn next(&mut self) -> Option<()> {
        std::future::pending().await
    }
}
