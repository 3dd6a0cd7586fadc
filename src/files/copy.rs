//! Reads a directory as a source of files, following no link out of it.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};

use super::{
    account::unreadable,
    name::refused,
    unpack::{Item, Limits, Run},
};
use crate::{
    beneath::{open_dir, walk},
    model::error::Result,
    user::User,
};

/// Hands every entry at and below `path` to `run`.
pub(super) fn copy(source: &Dir, path: &Path, limits: &Limits, reader: Option<&User>, run: &mut Run<'_>) -> Result<()> {
    let subject = path.display().to_string();
    let Some(name) = path.file_name() else {
        // A `Dir` may be open for look-ups only.
        let root = by(reader, || Ok(open_dir(source.as_fd(), ".")?)).map_err(|error| unreadable(&subject, error))?;
        run.item(b"./", Item::Dir(0o755))?;
        return directory(&root, Path::new(""), limits, reader, run);
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = by(reader, || source.open_dir(parent)).map_err(|error| unreadable(&subject, error))?;
    let top = Path::new(name);
    if let Some(dir) = entry(parent.as_fd(), name, top, reader, run)? {
        directory(&dir, top, limits, reader, run)?;
    }
    Ok(())
}

/// Everything below an open directory whose entries are named `prefix/…`. Only one directory is open at a time.
fn directory(root: &OwnedFd, prefix: &Path, limits: &Limits, reader: Option<&User>, run: &mut Run<'_>) -> Result<()> {
    let mut pending = vec![PathBuf::new()];
    while let Some(at) = pending.pop() {
        let named = prefix.join(&at);
        let subject = named.display().to_string();
        let dir = by(reader, || walk(root.as_fd(), &at)).map_err(|error| unreadable(&subject, error))?;
        for found in rustix::fs::Dir::read_from(&dir).map_err(|error| unreadable(&subject, error))? {
            let found = found.map_err(|error| unreadable(&subject, error))?;
            let name = OsStr::from_bytes(found.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if entry(dir.as_fd(), name, &named.join(name), reader, run)?.is_some() {
                pending.push(at.join(name));
            }
            if pending.len() as u64 > limits.max_entries {
                return Err(refused(subject.as_bytes(), "too many directories"));
            }
        }
    }
    Ok(())
}

/// Opens something with a reader's rights, where they are not our own.
fn by<T>(reader: Option<&User>, open: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match reader {
        None => open(),
        Some(user) => user.act(open)?,
    }
}

/// Hands over one entry. Returns the directory if it is one.
fn entry(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    named: &Path,
    reader: Option<&User>,
    run: &mut Run<'_>,
) -> Result<Option<OwnedFd>> {
    let raw = named.as_os_str().as_bytes();
    let failed = |error: io::Error| unreadable(&named.display().to_string(), error);
    let changed = || refused(raw, "changed while it was read");
    let stat = by(reader, || Ok(statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?)).map_err(failed)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let dir = by(reader, || Ok(open_dir(parent, name)?)).map_err(failed)?;
            run.item(raw, Item::Dir(stat.st_mode))?;
            Ok(Some(dir))
        }
        FileType::RegularFile => {
            // Nonblocking: were it swapped for a pipe meanwhile, opening must not wait for a writer; nor make a terminal ours.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let fd = by(reader, || Ok(openat(parent, name, flags, Mode::empty())?)).map_err(failed)?;
            let stat = fstat(&fd).map_err(|error| failed(error.into()))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(changed());
            }
            let size = u64::try_from(stat.st_size).map_err(|_| changed())?;
            run.item(raw, Item::File(stat.st_mode, size, &mut std::fs::File::from(fd)))?;
            Ok(None)
        }
        FileType::Symlink => {
            let target = by(reader, || Ok(readlinkat(parent, name, Vec::new())?)).map_err(failed)?;
            run.item(raw, Item::Symlink(PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes()))))?;
            Ok(None)
        }
        _ => Err(refused(raw, "neither a file nor a directory nor a link")),
    }
}
