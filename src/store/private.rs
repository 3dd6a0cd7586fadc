//! A file that is nobody else's.

use std::{
    fs::{OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Grants and audit are nobody else's to read, whoever gets as far as the file. What SQLite keeps beside it has its mode.
pub(super) fn close_to_others(path: &Path) -> io::Result<()> {
    let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    made.set_permissions(Permissions::from_mode(0o600))
}
