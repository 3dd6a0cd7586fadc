//! How far one request came, told by the wire and read when something fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Shared by a connection's wire and the call on it. One task touches it; atomics only because that task may move.
#[derive(Debug, Default)]
pub(super) struct Progress {
    sent_bytes: AtomicU64,
    read_bytes: AtomicU64,
    write_pending: AtomicBool,
    connected: AtomicBool,
    head_seen: AtomicBool,
    /// For good: the backend takes nothing any more.
    write_broken: AtomicBool,
    /// For good: the backend closed without reading all that it was sent.
    left_unread: AtomicBool,
    switched: AtomicBool,
}

impl Progress {
    /// The next request begins on the same connection.
    pub(super) fn begin(&self) {
        self.sent_bytes.store(0, Relaxed);
        self.read_bytes.store(0, Relaxed);
        self.write_pending.store(false, Relaxed);
        self.head_seen.store(false, Relaxed);
    }

    /// The backend's kernel took `bytes`; `all` says whether that was everything there was to write.
    pub(super) fn wrote(&self, bytes: usize, all: bool) {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
        self.write_pending.store(!all, Relaxed);
    }

    /// The backend sent `bytes`.
    pub(super) fn read(&self, bytes: usize) {
        self.read_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// The backend takes nothing any more; what is written from now on goes nowhere.
    pub(super) fn write_broke(&self) {
        self.write_pending.store(false, Relaxed);
        self.write_broken.store(true, Relaxed);
    }

    pub(super) fn is_write_broken(&self) -> bool {
        self.write_broken.load(Relaxed)
    }

    /// The backend closed without reading all that it was sent: the kernel tells so by a reset.
    pub(super) fn was_left_unread(&self) {
        self.left_unread.store(true, Relaxed);
    }

    /// Whether the backend closed without a byte of answer and before it had read the request to its end.
    pub(super) fn is_ignored(&self) -> bool {
        self.left_unread.load(Relaxed) && self.read_bytes.load(Relaxed) == 0
    }

    /// The backend speaks another protocol from now on.
    pub(super) fn switched(&self) {
        self.switched.store(true, Relaxed);
    }

    /// The backend takes no bytes at present.
    pub(super) fn write_blocked(&self) {
        self.write_pending.store(true, Relaxed);
    }

    pub(super) fn connected(&self) {
        self.connected.store(true, Relaxed);
    }

    pub(super) fn head_seen(&self) {
        self.head_seen.store(true, Relaxed);
    }

    pub(super) fn is_head_seen(&self) -> bool {
        self.head_seen.load(Relaxed)
    }

    /// Whether any byte of the request left.
    pub(super) fn sent(&self) -> bool {
        self.sent_bytes.load(Relaxed) > 0
    }

    /// How many bytes moved, either way.
    pub(super) fn moved_bytes(&self) -> u64 {
        self.sent_bytes.load(Relaxed) + self.read_bytes.load(Relaxed)
    }

    /// Whether the last write could not place all its bytes.
    pub(super) fn write_pending(&self) -> bool {
        self.write_pending.load(Relaxed)
    }

    /// What is being waited for, in words.
    pub(super) fn waiting_for(&self) -> &'static str {
        match (self.connected.load(Relaxed), self.head_seen.load(Relaxed)) {
            _ if self.switched.load(Relaxed) => "end the connection, or use it,",
            (false, _) => "accept the connection",
            (true, false) => "answer",
            (true, true) => "finish its response body",
        }
    }
}
