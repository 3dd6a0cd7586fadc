//! Longshore, a gRPC backend broker for container-desktop extensions.

pub mod exec;
pub mod model;
pub mod pb;
pub mod shim;
