//! Longshore, a gRPC backend broker for container-desktop extensions.

pub mod cli;
pub mod model;
pub mod pb;
