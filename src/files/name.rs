//! Names inside archives: which are taken, and where they lead.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use super::unpack::{Limits, Placement};
use crate::model::error::{Error, Reason, Result};

/// Longest file name that Linux file systems take.
const MAX_COMPONENT_BYTES: usize = 255;

/// A file that may not be taken, and why.
pub(super) fn refused(name: &[u8], why: &str) -> Error {
    let shown: String = String::from_utf8_lossy(name).chars().take(200).collect();
    Error::new(Reason::UnsafeFile, shown.clone(), format!("{shown:?}: {why}"))
}

/// The name as a relative path of ordinary components, `.` and doubled slashes left out. The top directory itself
/// (`./`) is the empty path.
pub(super) fn checked(raw: &[u8], limits: &Limits) -> Result<PathBuf> {
    let refuse = |why: &str| Err(refused(raw, why));
    if raw.is_empty() {
        return refuse("the archive holds an entry without a name");
    }
    if raw.contains(&0) {
        return refuse("a name may not hold a NUL byte");
    }
    if raw.starts_with(b"/") {
        return refuse("absolute names are not taken out of an archive");
    }
    if raw.len() > limits.max_path_bytes {
        return refuse(&format!("the path is {} bytes long; at most {} are taken", raw.len(), limits.max_path_bytes));
    }
    let mut path = PathBuf::with_capacity(raw.len());
    let mut depth = 0;
    for component in raw.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return refuse("a name may not hold `..`"),
            long if long.len() > MAX_COMPONENT_BYTES => return refuse("a file name is longer than 255 bytes"),
            name => path.push(os_name(name).ok_or_else(|| refused(raw, "the name is no text"))?),
        }
        depth += 1;
    }
    if depth > limits.max_depth {
        return refuse(&format!("{depth} directories deep; at most {} are taken", limits.max_depth));
    }
    Ok(path)
}

/// Bytes as a name of this system; `None` where they are none.
#[cfg(unix)]
pub(super) fn os_name(bytes: &[u8]) -> Option<&OsStr> {
    Some(std::os::unix::ffi::OsStrExt::from_bytes(bytes))
}

/// Bytes as a name of this system; `None` where they are none.
#[cfg(windows)]
pub(super) fn os_name(bytes: &[u8]) -> Option<&OsStr> {
    std::str::from_utf8(bytes).ok().map(OsStr::new)
}

/// Whether Windows has a file of that name: others mean a drive, a stream of a file or a device there, or lose their end.
#[cfg(any(windows, test))]
pub(super) fn is_one_on_windows(name: &str) -> bool {
    /// Whatever follows a dot.
    const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    let is_port = ["com", "lpt"]
        .iter()
        .any(|port| stem.strip_prefix(port).is_some_and(|number| number.chars().count() == 1 && number != "0"));
    !(name.contains(['<', '>', ':', '"', '|', '?', '*', '\\', '/'])
        || name.chars().any(char::is_control)
        || name.ends_with(['.', ' '])
        || name.is_empty()
        || DEVICES.contains(&stem.as_str())
        || is_port)
}

/// Maps names of an archive to paths below the destination.
#[derive(Debug)]
pub(super) struct Placer<'a> {
    placement: &'a Placement,
    /// First component of every name; empty where the archive's top entry is `./`. Known from the first entry on.
    top: Option<PathBuf>,
}

impl<'a> Placer<'a> {
    pub(super) fn new(placement: &'a Placement) -> Self {
        Placer { placement, top: None }
    }

    /// Where the entry goes, and whether it is the archive's top entry.
    pub(super) fn place(&mut self, name: &Path) -> Result<(PathBuf, bool)> {
        if *self.placement == Placement::AsIs {
            return Ok((name.to_owned(), name.as_os_str().is_empty()));
        }
        let top = self.top.get_or_insert_with(|| name.iter().next().map(PathBuf::from).unwrap_or_default());
        let Ok(rest) = name.strip_prefix(&*top) else {
            let why = format!("lies beside {top:?}; the archive must have one top entry");
            return Err(refused(name.as_os_str().as_encoded_bytes(), &why));
        };
        let is_top = rest.as_os_str().is_empty();
        // Joined with nothing, it would end in a separator.
        Ok((if is_top { self.base().to_owned() } else { self.base().join(rest) }, is_top))
    }

    /// Where a name that a hard link gives leads, if inside what is taken.
    pub(super) fn place_existing(&self, name: &Path) -> Option<PathBuf> {
        let top = self.top.as_deref().unwrap_or(Path::new(""));
        name.strip_prefix(top).ok().map(|rest| self.base().join(rest))
    }

    /// The directory below the destination that links may not leave.
    pub(super) fn base(&self) -> &Path {
        match self.placement {
            Placement::AsIs => Path::new(""),
            Placement::Into(name) => Path::new(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_else_on_windows_is_no_name_there() {
        for name in ["a", "a.b", ".env", "console", "com", "com0", "com10", "nulls.txt", "Grüße", "a b"] {
            assert!(is_one_on_windows(name), "{name}");
        }
        for name in [
            "",
            "CON",
            "nul",
            "NUL.txt",
            "aux .x",
            "Com1",
            "lpt9.log",
            "com\u{b9}",
            "CONIN$",
            "a.",
            "a ",
            "..",
            "c:",
            "a:b",
            r"..\a",
            "a/b",
            "a?",
            "a*",
            "a\n",
            "a\"",
        ] {
            assert!(!is_one_on_windows(name), "{name:?}");
        }
    }

    #[test]
    fn names_that_leave_are_refused() {
        let limits = Limits::default();
        let long = "a".repeat(256);
        for wrong in ["", "/etc/passwd", "a/../b", "..", "a/..", "a\0b", long.as_str(), &"a/".repeat(3_000)] {
            assert_eq!(checked(wrong.as_bytes(), &limits).unwrap_err().reason(), Reason::UnsafeFile, "{wrong:?}");
        }
        for (name, path) in [("./", ""), ("ui//a/./b/", "ui/a/b"), ("..a/b..", "..a/b.."), (".hidden", ".hidden")] {
            assert_eq!(checked(name.as_bytes(), &limits).unwrap(), Path::new(path), "{name:?}");
        }
    }

    #[test]
    fn the_first_component_makes_way() {
        let into = Placement::Into("ui".into());
        let mut placer = Placer::new(&into);
        assert_eq!(placer.place(Path::new("build")).unwrap(), (PathBuf::from("ui/"), true));
        assert_eq!(placer.place(Path::new("build/a")).unwrap(), (PathBuf::from("ui/a"), false));
        assert_eq!(placer.place(Path::new("other")).unwrap_err().reason(), Reason::UnsafeFile);
        assert_eq!(placer.place_existing(Path::new("other/x")), None);
        let mut placer = Placer::new(&into);
        assert_eq!(placer.place(Path::new("")).unwrap(), (PathBuf::from("ui"), true));
        assert_eq!(placer.place(Path::new("a/b")).unwrap(), (PathBuf::from("ui/a/b"), false));
    }
}
