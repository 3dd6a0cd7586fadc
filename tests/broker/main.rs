//! The broker as its users meet it: the real binary on a real socket, against a real engine.
//!
//! The engine at /var/run/docker.sock is shared with whoever else uses the machine. Every test makes objects of its own
//! names, removes them, and never looks at what is not its own; what an engine must bear is tried on a private one. A
//! test that cannot run fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests")]

mod auditing;
mod backends;
mod caring;
mod carrying;
mod client_library;
mod clients;
mod deploying;
mod doctor;
mod documented;
mod execs;
mod exporting;
mod faults;
mod first_call;
mod gateway;
mod guest;
mod h2c;
mod hostile;
mod installing;
mod journal;
mod layering;
mod limits;
mod many;
mod observing;
mod ownership;
mod passthrough;
mod programs;
#[path = "../cli_process/pty.rs"]
mod pty;
mod reaching;
mod recovery;
mod registration;
mod registry;
mod repairing;
mod serving;
mod sessions;
mod soak;
mod stopping;
mod support;
mod system;
mod terminals;
mod tolerance;
mod tunnel;
mod updating;
mod users;
mod watching;
