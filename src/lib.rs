//! Longshore, a gRPC backend broker for container-desktop extensions.

pub mod engine;
pub mod model;
pub mod pb;
