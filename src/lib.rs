//! Longshore, a gRPC backend broker for container-desktop extensions.

pub mod model;
pub mod pb;
pub mod proxy;
