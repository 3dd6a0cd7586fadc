//! Longshore, a gRPC backend broker for container-desktop extensions.

pub mod cli;
pub mod engine;
pub mod model;
pub mod pb;
pub mod proxy;
pub mod store;
