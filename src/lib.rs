#![doc = include_str!("../README.md")]
#![deny(clippy::unwrap_used, clippy::expect_used)]

pub mod api;
pub mod app;
pub mod backend;
pub mod cli;
pub mod client;
pub mod config;
pub mod core;
pub mod engine;
pub mod exec;
pub mod files;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod model;
pub mod pb;
pub mod peer;
pub mod proxy;
mod random;
pub mod shim;
pub mod store;
pub mod tally;
pub mod user;
