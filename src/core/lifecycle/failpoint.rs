//! Places where the tests let a broker die: before and after the effect of every step in the journal. Release builds have
//! none.

use crate::model::{extension::Installed, journal::Step};

/// A step stands in the journal, and nothing of its effect has happened.
pub(super) fn begun(step: Step) {
    reached(step, "");
}

/// The effect of a step has happened, and the journal does not say so yet.
pub(super) fn done(step: Step) {
    reached(step, "/done");
}

/// The effect of the step that a change is at has happened.
pub(super) fn current_done(installed: &Installed) {
    if let Some(change) = &installed.change {
        done(change.step);
    }
}

#[cfg(debug_assertions)]
fn reached(step: Step, side: &str) {
    let Ok(wanted) = std::env::var("FAILPOINT") else { return };
    if wanted.strip_prefix(step.as_str()) != Some(side) {
        return;
    }
    tracing::warn!(%wanted, "the broker dies, as a test asked it to");
    #[cfg(unix)]
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}

#[cfg(not(debug_assertions))]
fn reached(_step: Step, _side: &str) {}
