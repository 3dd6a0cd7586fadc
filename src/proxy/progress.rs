//! How far one request came, told by the connection and read when something fails.

use std::sync::Arc;

use super::traffic::Traffic;

/// What moved on a connection since the last request on it began.
#[derive(Debug, Default)]
pub(super) struct Progress {
    sent_bytes: u64,
    read_bytes: u64,
    write_pending: bool,
    connected: bool,
    head_seen: bool,
    /// For good: the backend takes nothing any more.
    write_broken: bool,
    /// For good: the backend closed without reading all that it was sent.
    left_unread: bool,
    switched: bool,
    /// Where bytes are counted for all connections.
    traffic: Option<Arc<Traffic>>,
}

impl Progress {
    /// On a connection whose bytes are counted.
    pub(super) fn counted(traffic: Arc<Traffic>) -> Progress {
        Progress { traffic: Some(traffic), ..Progress::default() }
    }

    /// The next request begins on the same connection.
    pub(super) fn begin(&mut self) {
        (self.sent_bytes, self.read_bytes, self.write_pending, self.head_seen) = (0, 0, false, false);
    }

    /// The backend's kernel took `bytes`; `all` says whether that was everything there was to write.
    pub(super) fn wrote(&mut self, bytes: usize, all: bool) {
        self.sent_bytes += bytes as u64;
        if let Some(traffic) = &self.traffic {
            traffic.add_sent(bytes);
        }
        self.write_pending = !all;
    }

    /// The backend sent `bytes`.
    pub(super) fn read(&mut self, bytes: usize) {
        self.read_bytes += bytes as u64;
        if let Some(traffic) = &self.traffic {
            traffic.add_received(bytes);
        }
    }

    /// The backend takes nothing any more; what is written from now on goes nowhere.
    pub(super) fn write_broke(&mut self) {
        (self.write_pending, self.write_broken) = (false, true);
    }

    pub(super) fn is_write_broken(&self) -> bool {
        self.write_broken
    }

    /// The backend closed without reading all that it was sent: the kernel tells so by a reset.
    pub(super) fn was_left_unread(&mut self) {
        self.left_unread = true;
    }

    /// Whether the backend closed without a byte of answer and before it had read the request to its end.
    pub(super) fn is_ignored(&self) -> bool {
        self.left_unread && self.read_bytes == 0
    }

    /// The backend speaks another protocol from now on.
    pub(super) fn switched(&mut self) {
        self.switched = true;
    }

    /// The backend takes no bytes at present.
    pub(super) fn write_blocked(&mut self) {
        self.write_pending = true;
    }

    pub(super) fn connected(&mut self) {
        self.connected = true;
    }

    pub(super) fn head_seen(&mut self) {
        self.head_seen = true;
    }

    pub(super) fn is_head_seen(&self) -> bool {
        self.head_seen
    }

    /// Whether any byte of the request left.
    pub(super) fn sent(&self) -> bool {
        self.sent_bytes > 0
    }

    /// How many bytes moved, either way.
    pub(super) fn moved_bytes(&self) -> u64 {
        self.sent_bytes + self.read_bytes
    }

    /// Whether the last write could not place all its bytes.
    pub(super) fn write_pending(&self) -> bool {
        self.write_pending
    }

    /// What is being waited for, in words.
    pub(super) fn waiting_for(&self) -> &'static str {
        match (self.connected, self.head_seen) {
            _ if self.switched => "end the connection, or use it,",
            (false, _) => "accept the connection",
            (true, false) => "answer",
            (true, true) => "finish its response body",
        }
    }
}
