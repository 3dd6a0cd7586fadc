//! Processes have one number on this machine.

use crate::shim::caller::Passed;

/// No process has another number elsewhere.
pub(super) fn pid_here(passed: Passed) -> Option<i64> {
    match passed {}
}
