//! How far an install is.

use std::{fmt, sync::Arc};

/// A step of an install.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallPhase {
    /// An image is found, loaded or pulled.
    FetchingImage,
    /// Manifest, labels and compose file are read and checked.
    Reading,
    /// Files are copied out of the image.
    Staging,
    /// Containers are created and started.
    Starting,
    /// The backend is given time to become ready.
    Waiting,
}

/// How far one part of an install is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The step.
    pub phase: InstallPhase,
    /// What it is done to.
    pub item: String,
    /// What the engine says of it.
    pub message: String,
    /// Bytes done; 0 where unknown.
    pub current_bytes: i64,
    /// Bytes in all; 0 where unknown.
    pub total_bytes: i64,
}

/// Where progress is told; it never waits.
#[derive(Clone)]
pub(super) struct Report(Arc<dyn Fn(Progress) + Send + Sync>);

impl Report {
    pub(super) fn new(tell: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Report(Arc::new(tell))
    }

    /// For work that nobody watches.
    pub(super) fn silent() -> Self {
        Report::new(|_| {})
    }

    pub(super) fn send(&self, progress: Progress) {
        (self.0)(progress);
    }

    /// A step has begun on something.
    pub(super) fn phase(&self, phase: InstallPhase, item: &str) {
        let item = item.to_owned();
        self.send(Progress { phase, item, message: String::new(), current_bytes: 0, total_bytes: 0 });
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Report")
    }
}
