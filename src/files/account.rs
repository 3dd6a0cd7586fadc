//! What is taken of a tree, held against its limits, and what is left out of it.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use super::{
    name::refused,
    unpack::{Limits, Top, Unpacked},
};
use crate::model::error::{Error, Reason, Result};

/// Warnings kept one by one; beyond them they are only counted.
const MAX_WARNINGS: usize = 100;
/// Bytes of names and targets of links that are kept in memory until the end.
const MAX_LINK_BYTES: usize = 32 << 20;
/// How much of a file is copied at a time, in bytes.
const COPY_BUFFER_BYTES: usize = 64 << 10;

/// The account of one tree.
pub(super) struct Account<'a> {
    limits: &'a Limits,
    entries: u64,
    bytes: u64,
    link_bytes: usize,
    unlisted_warnings: u64,
    taken: Unpacked,
}

impl<'a> Account<'a> {
    /// Nothing is taken yet.
    pub(super) fn new(limits: &'a Limits) -> Self {
        let taken = Unpacked { warnings: Vec::new(), top: Top::Dir };
        Account { limits, entries: 0, bytes: 0, link_bytes: 0, unlisted_warnings: 0, taken }
    }

    /// Counts one entry against the limit.
    pub(super) fn count_entry(&mut self, name: &[u8]) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.max_entries {
            return Err(refused(name, &format!("more than {} files; that is the limit", self.limits.max_entries)));
        }
        Ok(())
    }

    /// Counts bytes against the limit.
    pub(super) fn count_bytes(&mut self, name: &[u8], bytes: u64) -> Result<()> {
        match self.bytes.checked_add(bytes).filter(|total| *total <= self.limits.max_bytes) {
            Some(total) => self.bytes = total,
            None => {
                let why = format!("with it the files pass the limit of {} bytes in all", self.limits.max_bytes);
                return Err(refused(name, &why));
            }
        }
        Ok(())
    }

    /// Counts a link that is noted until the end.
    pub(super) fn count_link(&mut self, path: &Path, target: &Path) -> Result<()> {
        self.link_bytes += path.as_os_str().len() + target.as_os_str().len();
        if self.link_bytes > MAX_LINK_BYTES || target.as_os_str().len() > self.limits.max_path_bytes {
            return Err(refused(path.as_os_str().as_encoded_bytes(), "too many symbolic links, or too long a one"));
        }
        Ok(())
    }

    /// Says what the top entry turned out to be.
    pub(super) fn set_top(&mut self, top: Top) {
        self.taken.top = top;
    }

    /// Notes something that was left out.
    pub(super) fn warn(&mut self, path: &Path, why: &str) {
        if self.taken.warnings.len() < MAX_WARNINGS {
            self.taken.warnings.push(format!("{}: {why}", path.display()));
        } else {
            self.unlisted_warnings += 1;
        }
    }

    /// All of it.
    pub(super) fn close(mut self) -> Unpacked {
        if self.unlisted_warnings > 0 {
            self.taken.warnings.push(format!("and {} more", self.unlisted_warnings));
        }
        self.taken
    }
}

/// Copies at most `size` bytes; tells a source that cannot be read from a destination that cannot be written.
pub(super) fn copy(path: &Path, size: u64, from: &mut dyn Read, to: &mut impl Write) -> Result<u64> {
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    let mut copied = 0;
    while copied < size {
        let wanted = usize::try_from(size - copied).unwrap_or(usize::MAX).min(buffer.len());
        let count = match from.read(&mut buffer[..wanted]) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(&path.display().to_string(), error)),
        };
        to.write_all(&buffer[..count]).map_err(|error| failed(path, error))?;
        copied += count as u64;
    }
    Ok(copied)
}

/// A file of which less came than was said.
pub(super) fn cut_short(path: &Path, came: u64, size: u64) -> Error {
    let text = format!("{path:?}: the source ends after {came} of {size} bytes");
    Error::new(Reason::SourceUnreadable, path.display().to_string(), text)
}

/// The source could not be read.
pub(super) fn unreadable(subject: &str, error: impl Into<io::Error>) -> Error {
    let error = error.into();
    let text = if subject.is_empty() { error.to_string() } else { format!("{subject}: {error}") };
    Error::new(Reason::SourceUnreadable, subject, format!("cannot read the source: {text}")).caused_by(error)
}

/// The destination could not be written.
pub(super) fn failed(path: &Path, error: impl Into<io::Error>) -> Error {
    let error = error.into();
    // Its parts: joined with nothing, a path ends in a slash.
    let shown = path.components().collect::<PathBuf>().display().to_string();
    Error::new(Reason::FileFailed, shown.clone(), format!("cannot write {shown:?}: {error}")).caused_by(error)
}
