//! Tells the service manager that started this process how far it is: on Windows none asks.

/// Calls are answered from now on.
pub(super) fn ready() {}

/// It is stopping.
pub(super) fn stopping() {}
