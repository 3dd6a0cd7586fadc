//! Programs run through the real shim: on this machine, and in containers of the engine at `/var/run/docker.sock`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot run fails loudly")]

mod container;
mod engine;
mod facts;
mod host;
mod kill;
mod stdio;
mod support;
