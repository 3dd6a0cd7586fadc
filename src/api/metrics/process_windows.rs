//! What the system says of this process: here it is not asked.

/// What this process has; `None` for what the system does not say.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) descriptors: Option<u64>,
    pub(super) most_descriptors: Option<u64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
}

impl Process {
    pub(super) fn now() -> Self {
        Process { descriptors: None, most_descriptors: None, resident_bytes: None, cpu_seconds: None }
    }
}
