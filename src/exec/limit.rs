//! What cannot be made.

use std::io;

use crate::model::error::{Error, Reason};

/// What cannot be made for want of descriptors or memory.
pub(super) fn limit(error: io::Error) -> Error {
    Error::new(Reason::LimitReached, "", format!("descriptors or memory ran short: {error}")).caused_by(error)
}
