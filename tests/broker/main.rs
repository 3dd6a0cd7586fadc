//! The broker as its users meet it: the real binary on a real socket, against a real engine.
//!
//! The engine at /var/run/docker.sock is shared with whoever else uses the machine. Every test makes objects of its own
//! names, removes them, and never looks at what is not its own; what an engine must bear is tried on a private one. A
//! test that cannot run fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests")]

mod backends;
mod caring;
mod carrying;
mod clients;
mod faults;
mod first_call;
mod guest;
mod hostile;
mod installing;
mod journal;
mod layering;
mod limits;
mod ownership;
mod passthrough;
mod programs;
mod recovery;
mod registry;
mod serving;
mod sessions;
mod support;
mod tolerance;
mod updating;
mod users;
mod watching;
