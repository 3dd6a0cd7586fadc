//! The shim is a Linux program. Its words alone are used here.

pub mod caller;
#[path = "../wire.rs"]
pub mod wire;

use std::{ffi::OsString, process::ExitCode};

/// Says that there is none.
pub fn main(_args: impl IntoIterator<Item = OsString>) -> ExitCode {
    eprintln!("shim: there is none on Windows");
    ExitCode::FAILURE
}
