//! Reads a directory as a source of files, following no link out of it.

use std::path::{Path, PathBuf};

use cap_std::fs::Dir;

use super::{
    account::unreadable,
    name::refused,
    unpack::{Item, Limits, Run},
};
use crate::{model::error::Result, user::User};

/// What a directory and a file are, as modes: Windows has none.
const DIR_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o755;

/// Hands every entry at and below `path` to `run`. Nobody else's rights are taken here.
pub(super) fn copy(
    source: &Dir,
    path: &Path,
    limits: &Limits,
    _reader: Option<&User>,
    run: &mut Run<'_>,
) -> Result<()> {
    let Some(name) = path.file_name() else {
        run.item(b"./", Item::Dir(DIR_MODE))?;
        return directory(source, Path::new(""), limits, run);
    };
    let top = Path::new(name);
    if entry(source, path, top, run)? {
        let dir = source.open_dir(path).map_err(|error| unreadable(&path.display().to_string(), error))?;
        directory(&dir, top, limits, run)?;
    }
    Ok(())
}

/// Everything below an open directory whose entries are named `prefix/…`.
fn directory(root: &Dir, prefix: &Path, limits: &Limits, run: &mut Run<'_>) -> Result<()> {
    let mut pending = vec![PathBuf::new()];
    while let Some(at) = pending.pop() {
        let subject = prefix.join(&at).display().to_string();
        let here = if at.as_os_str().is_empty() { Path::new(".") } else { &at };
        for found in root.read_dir(here).map_err(|error| unreadable(&subject, error))? {
            let name = found.map_err(|error| unreadable(&subject, error))?.file_name();
            let path = at.join(name);
            if entry(root, &path, &prefix.join(&path), run)? {
                pending.push(path);
            }
            if pending.len() as u64 > limits.max_entries {
                return Err(refused(subject.as_bytes(), "too many directories"));
            }
        }
    }
    Ok(())
}

/// Hands over one entry. Whether it is a directory.
fn entry(root: &Dir, path: &Path, named: &Path, run: &mut Run<'_>) -> Result<bool> {
    let shown = named.display().to_string();
    let raw = shown.replace('\\', "/").into_bytes();
    let found = root.symlink_metadata(path).map_err(|error| unreadable(&shown, error))?;
    if found.is_dir() {
        run.item(&raw, Item::Dir(DIR_MODE))?;
        Ok(true)
    } else if found.is_file() {
        let mut file = root.open(path).map_err(|error| unreadable(&shown, error))?;
        run.item(&raw, Item::File(FILE_MODE, found.len(), &mut file))?;
        Ok(false)
    } else if found.is_symlink() {
        let target = root.read_link_contents(path).map_err(|error| unreadable(&shown, error))?;
        run.item(&raw, Item::Symlink(target))?;
        Ok(false)
    } else {
        Err(refused(&raw, "neither a file nor a directory nor a link"))
    }
}
