//! What `--json` prints, and what tables are made of. Own structures rather than the generated ones: names here are
//! a promise to scripts, and every field is always there.

pub(super) mod audit;
pub(super) mod exec;
pub(super) mod extension;
pub(super) mod grant;
pub(super) mod http;
pub(super) mod info;
pub(super) mod inspection;
pub(super) mod problem;
pub(super) mod progress;
pub(super) mod resource;
pub(super) mod session;
