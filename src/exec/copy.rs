//! The static copy of this binary that runs as the shim in containers.
//!
//! It lies in the extension's broker directory and is replaced by rename and only when it differs: a shim that runs keeps
//! the file it was started from, whatever is installed meanwhile.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{
    model::{
        error::{Error, Reason, Result},
        mounts::SHIM_NAME,
    },
    random,
};

/// What is compared at once, in bytes.
const BLOCK_BYTES: usize = 256 << 10;

/// A file as it was when it was checked; a later one with another identity is checked again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Checked(PathBuf, u64, u64, u64, i64, i64);

/// What the file at `path` is now.
pub(super) fn identity(path: &Path) -> Option<Checked> {
    let meta = fs::symlink_metadata(path).ok()?;
    let (changed, nanos) = (meta.ctime(), meta.ctime_nsec());
    Some(Checked(path.to_owned(), meta.dev(), meta.ino(), meta.len(), changed, nanos))
}

/// The binary, open, if it can run where there is nothing but the kernel.
///
/// # Errors
///
/// `SHIM_UNAVAILABLE` where it needs a loader or cannot be read.
pub(super) fn usable(source: &Path) -> Result<File> {
    let unusable = |why: String| Error::new(Reason::ShimUnavailable, source.display().to_string(), why);
    let original = File::open(source).map_err(|error| unusable(format!("{}: {error}", source.display())))?;
    match is_static(&original) {
        Ok(()) => Ok(original),
        Err(why) => Err(unusable(format!("longshore cannot run in containers: its binary {why}; a static one would"))),
    }
}

/// Makes sure that the copy of `source` lies in `dir`, executable for everybody.
///
/// # Errors
///
/// `SHIM_UNAVAILABLE` where `source` needs a loader or cannot be read, `FILE_FAILED` where the copy cannot be written.
pub(super) fn place(source: &Path, dir: &Path) -> Result<PathBuf> {
    let original = usable(source)?;
    let target = dir.join(SHIM_NAME);
    let write_failed = |error: io::Error| {
        Error::new(Reason::FileFailed, dir.display().to_string(), format!("{}: {error}", target.display()))
            .caused_by(error)
    };
    if !is_same(&original, &target) {
        replace(&original, dir, &target).map_err(write_failed)?;
    }
    Ok(target)
}

/// Whether `target` is a plain file, executable, with the same content.
fn is_same(original: &File, target: &Path) -> bool {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let open = OpenOptions::new().read(true).custom_flags(flags).open(target);
    let Ok(copy) = open else { return false };
    let (Ok(have), Ok(want)) = (copy.metadata(), original.metadata()) else { return false };
    have.is_file()
        && have.mode() & 0o7777 == 0o755
        && have.len() == want.len()
        && same_content(original, copy).unwrap_or(false)
}

fn same_content(original: &File, mut copy: File) -> io::Result<bool> {
    let (mut have, mut want) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    let mut offset = 0;
    loop {
        let len = copy.read(&mut have)?;
        if len == 0 {
            return Ok(true);
        }
        original.read_exact_at(&mut want[..len], offset)?;
        if have[..len] != want[..len] {
            return Ok(false);
        }
        offset += len as u64;
    }
}

fn replace(mut original: &File, dir: &Path, target: &Path) -> io::Result<()> {
    let fresh = dir.join(format!(".{SHIM_NAME}-{}", random::nonce()));
    let mut write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&fresh)?;
        io::copy(&mut original, &mut file)?;
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        drop(file);
        fs::rename(&fresh, target)
    };
    let result = write();
    if result.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    result
}

/// Whether the binary runs in an image that holds nothing else: a 64-bit ELF file that names no interpreter.
fn is_static(binary: &File) -> std::result::Result<(), &'static str> {
    const HEAD_BYTES: usize = 64;
    const MAX_TABLE_BYTES: usize = 64 << 10;
    let mut head = [0; HEAD_BYTES];
    binary.read_exact_at(&mut head, 0).map_err(|_| "is no program")?;
    let table = program_headers(&head).ok_or("is no 64-bit ELF file")?;
    let mut headers = vec![0; table.len_bytes().min(MAX_TABLE_BYTES)];
    binary.read_exact_at(&mut headers, table.offset).map_err(|_| "is cut off")?;
    if names_interpreter(&headers, table.entry_bytes) { Err("needs a loader") } else { Ok(()) }
}

/// Where the program headers are.
#[derive(Debug, Clone, Copy)]
struct HeaderTable {
    offset: u64,
    entry_bytes: usize,
    entries: usize,
}

impl HeaderTable {
    fn len_bytes(self) -> usize {
        self.entry_bytes * self.entries
    }
}

/// Fields of the ELF header: `e_phoff`, `e_phentsize`, `e_phnum` (System V ABI, chapter 4).
fn program_headers(head: &[u8]) -> Option<HeaderTable> {
    let little_64 = head.get(..6)? == b"\x7fELF\x02\x01";
    let short = |at: usize| Some(usize::from(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?)));
    let offset = u64::from_le_bytes(head.get(32..40)?.try_into().ok()?);
    let table = HeaderTable { offset, entry_bytes: short(54)?, entries: short(56)? };
    (little_64 && table.entry_bytes >= 4).then_some(table)
}

/// Whether one of the headers is a `PT_INTERP`.
fn names_interpreter(headers: &[u8], entry_bytes: usize) -> bool {
    const PT_INTERP: [u8; 4] = 3u32.to_le_bytes();
    headers.chunks(entry_bytes).any(|header| header.starts_with(&PT_INTERP))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_static_binary_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let error = place(Path::new("/bin/ls"), dir.path()).unwrap_err();
        assert_eq!(error.reason(), Reason::ShimUnavailable);
        assert!(error.message().contains("needs a loader"), "{error}");
        assert!(place(Path::new("/etc/passwd"), dir.path()).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_copy_is_replaced_only_when_it_differs() {
        let dir = tempfile::tempdir().unwrap();
        // The tests themselves are static.
        let own = Path::new("/proc/self/exe");
        let target = place(own, dir.path()).unwrap();
        let first = identity(&target).unwrap();
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o755);
        place(own, dir.path()).unwrap();
        assert_eq!(identity(&target), Some(first.clone()));

        let running = File::open(&target).unwrap();
        // Another byte than the one that is there, whichever that is.
        let mut byte = [0];
        running.read_exact_at(&mut byte, 1000).unwrap();
        OpenOptions::new().write(true).open(&target).unwrap().write_all_at(&[!byte[0]], 1000).unwrap();
        place(own, dir.path()).unwrap();
        assert_ne!(identity(&target), Some(first));
        assert_eq!(running.metadata().unwrap().nlink(), 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, b"kept").unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.path().join(SHIM_NAME)).unwrap();
        let target = place(Path::new("/proc/self/exe"), dir.path()).unwrap();
        assert!(fs::symlink_metadata(target).unwrap().is_file());
        assert_eq!(fs::read(elsewhere).unwrap(), b"kept");
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), magic in any::<bool>()) {
            let mut head = bytes;
            if magic && head.len() >= 6 {
                head[..6].copy_from_slice(b"\x7fELF\x02\x01");
            }
            if let Some(table) = program_headers(&head) {
                names_interpreter(&head, table.entry_bytes);
            }
        }
    }
}
