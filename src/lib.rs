#![doc = include_str!("../README.md")]
#![deny(clippy::unwrap_used, clippy::expect_used)]

pub mod api;
pub mod app;
pub mod backend;
#[cfg(unix)]
mod beneath;
pub mod cli;
pub mod client;
mod clock;
pub mod config;
pub mod core;
pub mod dockerd;
pub mod engine;
pub mod exec;
pub mod files;
#[cfg(all(unix, any(test, feature = "fuzzing")))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod local;
pub mod model;
pub mod pb;
#[cfg_attr(windows, path = "peer/windows.rs")]
pub mod peer;
pub mod proxy;
mod random;
#[cfg_attr(windows, path = "shim/windows/mod.rs")]
pub mod shim;
pub mod store;
pub mod times;
pub mod user;
