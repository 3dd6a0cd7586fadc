//! What the broker is about, free of any library that talks to the outside: errors, names, grants, manifests, compose
//! files. Nothing here opens a file or a socket.

pub mod audit;
pub mod checkup;
pub mod compose;
pub mod docker;
pub mod error;
pub mod event;
pub mod extension;
pub mod grant;
pub mod journal;
pub mod labels;
pub mod limits;
pub mod manifest;
pub mod mounts;
pub mod platform;
pub mod problem;
pub mod reference;
pub mod registration;
pub mod shell;
pub mod signature;
pub mod token;
