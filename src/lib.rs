//! Longshore, a gRPC backend broker for container-desktop extensions.

pub mod config;
pub mod files;
pub mod model;
pub mod pb;
