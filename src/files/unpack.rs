//! Takes files out of an image, or out of a directory, without letting anything land outside the destination.
//!
//! The rules (docker-extensions W15): names are checked before they are used, directories are opened one by one without
//! following links, devices, sockets and pipes are refused, links that leave the tree or lead nowhere are left out with
//! a warning, setuid and setgid are dropped, and there are limits.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use cap_std::fs::Dir;
use tar::{Archive, Entry, EntryType};

use super::{
    account::unreadable,
    copy,
    meter::Metered,
    name::{Placer, checked, os_name, refused},
    tree::Tree,
};
use crate::{
    model::error::{Error, Reason, Result},
    user::User,
};

/// Bytes that headers of one entry may take: names, extended attributes, maps of sparse files.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// Zero bytes that end an archive, at least.
const END_BYTES: u64 = 512;

/// Bounds of what is taken; passing one is `UNSAFE_FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together. Default 8 GiB.
    pub max_bytes: u64,
    /// Files, directories and links together. Default 500,000.
    pub max_entries: u64,
    /// Components of one path. Default 512.
    pub max_depth: usize,
    /// Bytes of one path, and of one link's target. Default 3,072, which leaves room for the data directory's own path.
    pub max_path_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_bytes: 8 << 30, max_entries: 500_000, max_depth: 512, max_path_bytes: 3_072 }
    }
}

/// Where things go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Every name as it is, directly below the destination.
    AsIs,
    /// The top entry, file or directory, under this name (one component).
    Into(String),
}

/// What the top entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Top {
    /// A file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link with this target; it was not followed and nothing was written.
    Symlink(PathBuf),
}

/// What was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// What was left out and why, one line each, at most about a hundred.
    pub warnings: Vec<String>,
    /// What the top entry is.
    pub top: Top,
}

/// Takes trees of files. Blocks while it works.
#[derive(Debug, Clone)]
pub struct Unpacker {
    limits: Limits,
    placement: Placement,
    image_path: Option<PathBuf>,
    reader: Option<Arc<User>>,
}

impl Unpacker {
    /// With the default limits.
    pub fn new(placement: Placement) -> Self {
        Unpacker { limits: Limits::default(), placement, image_path: None, reader: None }
    }

    /// With other limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Says where the top entry lies in the image (`/ui`), so that links that name something inside by an absolute
    /// path, or by way of a directory above, can be rewritten; else they are left out.
    #[must_use]
    pub fn image_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.image_path = Some(path.into());
        self
    }

    /// Reads a directory with the rights of that user, where they are not our own.
    #[must_use]
    pub fn read_by(mut self, reader: Option<Arc<User>>) -> Self {
        self.reader = reader;
        self
    }

    /// Unpacks a tar stream, such as `GET /containers/{id}/archive` gives. What was there under a name is replaced.
    ///
    /// # Errors
    /// `UNSAFE_FILE` for what may not be taken; `SOURCE_UNREADABLE` if the stream is no archive or breaks off;
    /// `FILE_FAILED` if the destination cannot be written. After an error the destination holds a part.
    pub fn unpack(&self, archive: impl Read, destination: &Dir) -> Result<Unpacked> {
        self.check()?;
        let (metered, meter) = Metered::new(archive);
        let mut archive = Archive::new(metered);
        let mut entries = archive.entries().map_err(|error| unreadable("", error))?;
        let mut run = Run::new(self, destination)?;
        let mut last = Vec::new();
        loop {
            meter.allow(MAX_HEADER_BYTES);
            let next = entries.next();
            let exhausted = meter.is_exhausted();
            meter.allow(u64::MAX);
            match next {
                None => break,
                Some(Ok(mut entry)) => {
                    last = entry.path_bytes().into_owned();
                    run.tar_entry(&mut entry, &last)?;
                }
                Some(Err(_)) if exhausted => {
                    return Err(refused(&last, "the header of the entry after it is larger than 1 MiB"));
                }
                Some(Err(error)) => return Err(unreadable(&behind(&last), error)),
            }
        }
        if last.is_empty() && run.is_empty {
            return Err(Error::new(Reason::SourceUnreadable, "", "the archive is empty"));
        }
        if meter.trailing_zeros() < END_BYTES {
            let text = format!("cannot read the source: {}: the archive is cut off", behind(&last));
            return Err(Error::new(Reason::SourceUnreadable, "", text));
        }
        run.finish()
    }

    /// Takes `path` (a file or a directory; `.` is all) out of a directory, by the same rules. Links on the way to
    /// `path` are followed inside `source` only; if `path` itself is a link, the report says so and nothing is written.
    ///
    /// # Errors
    /// As for [`Unpacker::unpack`].
    pub fn copy_tree(&self, source: &Dir, path: &Path, destination: &Dir) -> Result<Unpacked> {
        self.check()?;
        let mut run = Run::new(self, destination)?;
        copy::copy(source, path, &self.limits, self.reader.as_deref(), &mut run)?;
        run.finish()
    }

    fn check(&self) -> Result<()> {
        match &self.placement {
            Placement::Into(name) if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." => {
                Err(Error::bug(format!("{name:?} is no file name")))
            }
            _ => Ok(()),
        }
    }
}

/// One entry, from whichever source.
pub(super) enum Item<'a> {
    /// Permission bits.
    Dir(u32),
    /// Permission bits, size in bytes, content.
    File(u32, u64, &'a mut dyn Read),
    /// Target.
    Symlink(PathBuf),
    /// The raw name that it repeats.
    Hardlink(Vec<u8>),
}

/// One copying under way.
pub(super) struct Run<'a> {
    unpacker: &'a Unpacker,
    tree: Tree<'a>,
    placer: Placer<'a>,
    is_empty: bool,
    top_is_link: bool,
}

impl<'a> Run<'a> {
    fn new(unpacker: &'a Unpacker, destination: &Dir) -> Result<Self> {
        let tree = Tree::new(destination, &unpacker.limits)?;
        Ok(Run { unpacker, tree, placer: Placer::new(&unpacker.placement), is_empty: true, top_is_link: false })
    }

    /// Takes one entry by its raw name.
    pub(super) fn item(&mut self, raw: &[u8], item: Item<'_>) -> Result<()> {
        self.tree.account.count_entry(raw)?;
        let name = checked(raw, &self.unpacker.limits)?;
        let (path, is_top) = self.placer.place(&name)?;
        self.is_empty = false;
        if is_top {
            self.top_is_link = false;
        } else if self.top_is_link {
            return Err(refused(raw, "lies below a symbolic link"));
        }
        match item {
            Item::Dir(mode) => self.tree.dir(&path, mode),
            Item::File(mode, size, content) => {
                if is_top {
                    self.tree.account.set_top(Top::File);
                }
                self.tree.file(&path, mode, size, content)
            }
            Item::Symlink(target) if is_top => {
                self.top_is_link = true;
                self.tree.account.set_top(Top::Symlink(target));
                Ok(())
            }
            Item::Symlink(target) => self.tree.symlink(&path, &target),
            Item::Hardlink(existing) => match checked(&existing, &self.unpacker.limits) {
                Ok(name) => match self.placer.place_existing(&name) {
                    Some(existing) => self.tree.hardlink(&path, &existing),
                    None => self.skip(&path, "left out: a hard link to what was not taken before"),
                },
                Err(_) => self.skip(&path, "left out: a hard link to a place outside"),
            },
        }
    }

    fn skip(&mut self, path: &Path, why: &str) -> Result<()> {
        self.tree.account.warn(path, why);
        Ok(())
    }

    fn tar_entry(&mut self, entry: &mut Entry<'_, impl Read>, raw: &[u8]) -> Result<()> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return self.drain(entry, raw);
        }
        let mode = entry.header().mode().map_err(|error| unreadable(&behind(raw), error))?;
        let size = entry.size();
        let item = match kind {
            // Archives from before POSIX mark a directory by the slash alone.
            EntryType::Regular | EntryType::Continuous if raw.ends_with(b"/") => Item::Dir(mode),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                if has_sparse_map(entry) {
                    return Err(refused(raw, "sparse files in the PAX form are not read; make the archive without"));
                }
                return self.item(raw, Item::File(mode, size, entry));
            }
            EntryType::Directory => Item::Dir(mode),
            EntryType::Symlink => {
                let target = link_name(entry, raw)?;
                Item::Symlink(os_name(&target).ok_or_else(|| refused(raw, "its target is no text"))?.into())
            }
            EntryType::Link => Item::Hardlink(link_name(entry, raw)?),
            other => return Err(refused(raw, special(other))),
        };
        self.item(raw, item)?;
        self.drain(entry, raw)
    }

    /// Reads past content that nobody wants; it counts, or an archive without end would keep the broker busy.
    fn drain(&mut self, entry: &mut Entry<'_, impl Read>, raw: &[u8]) -> Result<()> {
        self.tree.account.count_bytes(raw, entry.size())?;
        io::copy(entry, &mut io::sink()).map_err(|error| unreadable(&behind(raw), error))?;
        Ok(())
    }

    fn finish(self) -> Result<Unpacked> {
        self.tree.finish(self.placer.base(), self.unpacker.image_path.as_deref())
    }
}

fn link_name(entry: &Entry<'_, impl Read>, raw: &[u8]) -> Result<Vec<u8>> {
    match entry.link_name_bytes() {
        Some(name) if !name.contains(&0) => Ok(name.into_owned()),
        _ => Err(refused(raw, "a link without a target")),
    }
}

fn has_sparse_map(entry: &mut Entry<'_, impl Read>) -> bool {
    let is_map = |key: &[u8]| key.starts_with(b"GNU.sparse.");
    match entry.pax_extensions() {
        Ok(Some(extensions)) => extensions.flatten().any(|extension| is_map(extension.key_bytes())),
        _ => false,
    }
}

/// Why an entry that is neither file nor directory nor link is refused.
fn special(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Block | EntryType::Char => "devices are not taken out of an image",
        EntryType::Fifo => "named pipes are not taken out of an image",
        _ => "neither a file nor a directory nor a link",
    }
}

fn behind(name: &[u8]) -> String {
    if name.is_empty() { String::new() } else { format!("at {:?}", String::from_utf8_lossy(name)) }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
