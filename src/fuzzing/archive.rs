//! A tar stream, as the engine sends one of an image: nothing of it may land outside, or be what it may not be.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use cap_std::{ambient_authority, fs::Dir};

use crate::{
    files::unpack::{Limits, Placement, Unpacked, Unpacker},
    model::error::{Reason, Result},
};

/// Bytes of a block.
const BLOCK: usize = 512;
/// Where a header has its sum, and its size.
const SUM: std::ops::Range<usize> = 148..156;
const SIZE: std::ops::Range<usize> = 124..136;
/// What lies beside the destination, and must stay.
const WITNESS: &str = "unharmed";

/// Unpacks it as it is and with the sums of its headers set right: damage else goes no further than these.
pub(super) fn enter(bytes: &[u8]) {
    for archive in [bytes.to_vec(), mended(bytes.to_vec())] {
        for placement in [Placement::AsIs, Placement::Into("it".into())] {
            if let Err(error) = unpack(&archive, placement) {
                use Reason::{FileFailed, SourceUnreadable, UnsafeFile};
                assert!(matches!(error.reason(), UnsafeFile | SourceUnreadable | FileFailed), "{error:?}");
            }
        }
    }
}

/// Unpacks it into a directory and looks at what became of that, and of what lies beside it.
pub(super) fn unpack(archive: &[u8], placement: Placement) -> Result<Unpacked> {
    let place = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let (to, outside) = (place.path().join("to"), place.path().join("outside"));
    let prepared = fs::create_dir(&to).and_then(|()| fs::create_dir(&outside));
    prepared.and_then(|()| fs::write(outside.join("witness"), WITNESS)).unwrap_or_else(|error| panic!("{error}"));
    let destination = Dir::open_ambient_dir(&to, ambient_authority()).unwrap_or_else(|error| panic!("{error}"));
    let limits = Limits { max_bytes: 1 << 20, max_entries: 1_000, ..Limits::default() };
    // In pieces, as it comes from a socket.
    let report = Unpacker::new(placement).limits(limits).image_path("/ui").unpack(Pieces(archive), &destination);
    let bytes = look(&to, &to, report.is_ok()).unwrap_or_else(|error| panic!("{error}"));
    assert!(bytes <= 1 << 20, "{bytes} bytes are more than was allowed");
    let beside: Vec<_> = fs::read_dir(place.path()).into_iter().flatten().collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
    assert_eq!(fs::read_to_string(outside.join("witness")).ok().as_deref(), Some(WITNESS));
    assert_eq!(fs::read_dir(outside).map_or(0, Iterator::count), 1);
    report
}

/// Looks at everything in a directory, and tells how many bytes lie there. Links of what is `whole` lead inside.
fn look(directory: &Path, root: &Path, is_whole: bool) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let found = fs::symlink_metadata(&path)?;
        let kind = found.file_type();
        assert!(kind.is_file() || kind.is_dir() || kind.is_symlink(), "{path:?} is {kind:?}");
        if kind.is_symlink() {
            let end = fs::canonicalize(&path);
            let is_inside = end.is_ok_and(|end| fs::canonicalize(root).is_ok_and(|root| end.starts_with(root)));
            assert!(!is_whole || is_inside, "{path:?} leads to {:?}", fs::read_link(&path));
            continue;
        }
        assert_eq!(found.permissions().mode() & 0o7000, 0, "{path:?}");
        bytes += if kind.is_dir() { look(&path, root, is_whole)? } else { found.len() };
    }
    Ok(bytes)
}

/// Sets the sum of every header right that can be found.
fn mended(mut archive: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + BLOCK) {
        let size = std::str::from_utf8(&header[SIZE]).ok();
        let size = size.and_then(|text| usize::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()).unwrap_or(0);
        if header.iter().any(|byte| *byte != 0) {
            header[SUM].fill(b' ');
            let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
            header[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        at += BLOCK + size.min(archive.len()).next_multiple_of(BLOCK);
    }
    archive
}

/// Gives few bytes at a time.
struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(700);
        self.0.read(&mut buffer[..most])
    }
}
