//! The generated API, `longshore.v1`.
#![allow(missing_docs, clippy::too_many_lines, clippy::large_enum_variant, reason = "generated; documented in proto/")]

tonic::include_proto!("longshore.v1");

/// Servers without the methods that the broker serves without the library.
#[allow(unreachable_pub, reason = "generated")]
pub(crate) mod partial {
    tonic::include_proto!("partial/longshore.v1");
}

/// The compiled files with their comments, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/longshore.bin"));
