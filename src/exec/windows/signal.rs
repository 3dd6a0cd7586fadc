//! Names of signals. Windows has none: what ends a program there is called as it is elsewhere.

/// Ends a program at once.
pub(super) const KILL: i32 = 9;
/// Asks it to end, which here is the same.
const TERM: i32 = 15;

/// The name of a signal.
pub fn name(number: i32) -> String {
    match number {
        KILL => "SIGKILL".to_owned(),
        TERM => "SIGTERM".to_owned(),
        _ => format!("SIG{number}"),
    }
}

/// The number of a signal by its name, with or without `SIG`; `None` for all that Windows cannot send.
pub fn number(name: &str) -> Option<i32> {
    match name.strip_prefix("SIG").unwrap_or(name) {
        "KILL" => Some(KILL),
        "TERM" => Some(TERM),
        _ => None,
    }
}
