//! What a look at the machine found, before or without a broker.

use std::path::PathBuf;

/// The name of what is said of cgroups, which a running broker knows better.
pub const CGROUP: &str = "cgroup";

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// A broker works, and less well than it could or not in all.
    Warning,
    /// A broker does not start, or containers cannot be used.
    Problem,
}

impl Verdict {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What it is.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty where nothing is to be done.
    pub advice: String,
}

impl Check {
    /// All is well.
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Check { name, verdict: Verdict::Ok, found: found.into(), advice: String::new() }
    }

    /// It could be better.
    pub fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Check { name, verdict: Verdict::Warning, found: found.into(), advice: advice.into() }
    }

    /// It does not work.
    pub fn problem(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Check { name, verdict: Verdict::Problem, found: found.into(), advice: advice.into() }
    }
}

/// All that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkup {
    /// One after the other.
    pub checks: Vec<Check>,
    /// The broker that should run here; `None` where the configuration does not say.
    pub expected: Option<Expected>,
}

/// The broker that the configuration means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Its control socket.
    pub socket: PathBuf,
    /// Whether somebody listens on it.
    pub is_listening: bool,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Address of its engine.
    pub engine: String,
}
