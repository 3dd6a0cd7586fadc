//! The container engine and the tools that talk to it.

pub mod compose;
