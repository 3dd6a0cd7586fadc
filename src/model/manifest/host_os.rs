//! The operating systems that a manifest tells apart.

use std::fmt;

/// The operating system of the machine that the broker runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostOs {
    /// Linux, and every other Unix.
    Linux,
    /// macOS.
    MacOs,
    /// Windows.
    Windows,
}

impl HostOs {
    /// What this broker was built for.
    pub const CURRENT: HostOs = if cfg!(windows) {
        HostOs::Windows
    } else if cfg!(target_os = "macos") {
        HostOs::MacOs
    } else {
        HostOs::Linux
    };

    /// All of them, in the order of their keys.
    pub const ALL: [HostOs; 3] = [HostOs::MacOs, HostOs::Linux, HostOs::Windows];

    /// Its key in `host.binaries`.
    pub fn key(self) -> &'static str {
        match self {
            HostOs::Linux => "linux",
            HostOs::MacOs => "darwin",
            HostOs::Windows => "windows",
        }
    }

    /// Whether its file systems take `a` and `A` for one name.
    pub fn folds_case(self) -> bool {
        self != HostOs::Linux
    }

    /// The endings under which a program called without one is found. Real extensions rely on it: they declare
    /// `send-payload.sh` and `send-payload.bat` and call `send-payload`.
    pub fn program_endings(self) -> &'static [&'static str] {
        match self {
            HostOs::Linux | HostOs::MacOs => &[".sh"],
            HostOs::Windows => &[".exe", ".cmd", ".bat"],
        }
    }
}

impl fmt::Display for HostOs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}
