//! Which symbolic links of a tree are kept: those that lead to something inside it.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{AtFlags, FileType, statat};

/// Links followed on one way, as Linux does.
const MAX_FOLLOWS: usize = 40;
/// Look-ups in all; a tree made of links to links must not keep the broker busy.
const MAX_STEPS: usize = 10_000_000;

/// One step of the way that a link names.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// `.`; only what lies before it must be a directory.
    Stay,
    Up,
    Into(OsString),
}

/// Follows noted links through a tree on disk.
pub(super) struct Resolver<'a, Fd> {
    root: &'a Fd,
    links: &'a BTreeMap<PathBuf, PathBuf>,
    base: &'a Path,
    /// Components of the place of `base` in the image, where known.
    image: Option<Vec<OsString>>,
    steps: usize,
}

impl<'a, Fd: AsFd> Resolver<'a, Fd> {
    /// `links` are paths below `root`; none of them may lead out of `base`, which was at `image_path` in the image.
    pub(super) fn new(
        root: &'a Fd,
        links: &'a BTreeMap<PathBuf, PathBuf>,
        base: &'a Path,
        image_path: Option<&Path>,
    ) -> Self {
        let normal = |path: &Path| path.components().filter_map(normal_name).collect();
        Resolver { root, links, base, image: image_path.map(normal), steps: 0 }
    }

    /// The target to lay for the link at `path`: its own where that works as it is; a rewritten one where it leads to
    /// a place inside by way of outside, or by a `..` behind a name, which would mean something else if that name were
    /// replaced by a link later; or why the link is left out.
    pub(super) fn verdict(&mut self, path: &Path) -> Result<PathBuf, &'static str> {
        let (Some(target), Some(parent)) = (self.links.get(path), path.parent()) else {
            return Err("left out: no link");
        };
        let Ok(parent) = parent.strip_prefix(self.base) else { return Err("left out: outside") };
        let above = self.image.as_deref().unwrap_or_default();
        let start: Vec<OsString> = above.iter().cloned().chain(parent.iter().map(OsStr::to_owned)).collect();
        let (end, went_outside) = self.follow(start, target)?;
        if went_outside || !is_plain(target) { Ok(relative(parent, &end)) } else { Ok(target.clone()) }
    }

    /// Walks as the kernel would, in the image. Returns the end, relative to `base`, and whether the way led outside.
    fn follow(&mut self, start: Vec<OsString>, target: &Path) -> Result<(PathBuf, bool), &'static str> {
        let depth = self.image.as_ref().map_or(0, Vec::len);
        let (mut here, mut todo) = (start, Vec::new());
        let mut went_outside = self.take(target, &mut here, &mut todo)?;
        let mut follows = 0;
        while let Some(step) = todo.pop() {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err("left out: too many links to links");
            }
            let Step::Into(name) = step else {
                if step == Step::Stay {
                    continue;
                }
                let at_top = here.pop().is_none();
                if at_top && self.image.is_none() {
                    return Err("left out: the link leads outside");
                }
                went_outside |= at_top || here.len() < depth;
                continue;
            };
            here.push(name);
            if here.len() <= depth {
                if self.image.as_ref().is_some_and(|image| !image.starts_with(&here)) {
                    return Err("left out: the link leads outside");
                }
                continue;
            }
            let inside: PathBuf = here[depth..].iter().collect();
            let on_disk = self.base.join(inside);
            if let Some(next) = self.links.get(&on_disk) {
                follows += 1;
                if follows > MAX_FOLLOWS {
                    return Err("left out: the link leads round in circles");
                }
                here.pop();
                went_outside |= self.take(next, &mut here, &mut todo)?;
            } else if !self.exists(&on_disk, !todo.is_empty()) {
                return Err("left out: the link leads nowhere");
            }
        }
        if here.len() < depth {
            return Err("left out: the link leads outside");
        }
        Ok((here[depth..].iter().collect(), went_outside))
    }

    /// Puts a target's components in front of what is still to walk. Says whether it begins outside.
    fn take(&self, target: &Path, here: &mut Vec<OsString>, todo: &mut Vec<Step>) -> Result<bool, &'static str> {
        if target.as_os_str().is_empty() {
            return Err("left out: the link leads nowhere");
        }
        if target.is_absolute() {
            if self.image.is_none() {
                return Err("left out: the link is absolute");
            }
            here.clear();
        }
        // `Path::components` would drop a last `/` or `/.`, which demands a directory.
        let steps: Vec<_> = target
            .as_os_str()
            .as_bytes()
            .split(|byte| *byte == b'/')
            .map(|step| match step {
                b"" | b"." => Step::Stay,
                b".." => Step::Up,
                name => Step::Into(OsStr::from_bytes(name).to_owned()),
            })
            .collect();
        todo.extend(steps.into_iter().rev());
        Ok(target.is_absolute())
    }

    fn exists(&self, path: &Path, as_directory: bool) -> bool {
        statat(self.root, path, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => true,
                FileType::RegularFile => !as_directory,
                _ => false,
            }
        })
    }
}

/// Whether every `..` stands at the beginning.
fn is_plain(target: &Path) -> bool {
    target.components().skip_while(|component| *component == Component::ParentDir).all(|c| c != Component::ParentDir)
}

fn normal_name(component: Component<'_>) -> Option<OsString> {
    match component {
        Component::Normal(name) => Some(name.to_owned()),
        _ => None,
    }
}

/// The way from the directory `from` to `to`, both relative to one place.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from.iter().zip(to.iter()).take_while(|(a, b)| a == b).count();
    let up = from.iter().skip(shared).map(|_| OsStr::new(".."));
    let path: PathBuf = up.chain(to.iter().skip(shared)).collect();
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_kept_rewritten_or_left_out() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("ui/a/b")).unwrap();
        std::fs::write(temp.path().join("ui/a/file"), "x").unwrap();
        std::fs::write(temp.path().join("beside"), "x").unwrap();
        let root = std::fs::File::open(temp.path()).unwrap();
        let outside = Err("outside");
        let nowhere = Err("nowhere");
        let circle = Err("circles");
        for (name, target, expected) in [
            ("ui/a/b/l", "../file", Ok("../file")),
            ("ui/a/b/l", "../../../ui/a/file", outside),
            ("ui/a/b/l", "../../../opt/ui/a/file", outside),
            ("ui/a/b/l", "../../../../opt/app/a/file", Ok("../file")),
            ("ui/l", "/opt/app/a", Ok("a")),
            ("ui/a/l", "/opt/app", Ok("..")),
            ("ui/l", "/opt/app/none", nowhere),
            ("ui/l", "/etc/passwd", outside),
            ("ui/l", "../beside", outside),
            ("ui/l", "a/file/..", nowhere),
            ("ui/l", "a/file/x", nowhere),
            ("ui/l", "a/file/.", nowhere),
            ("ui/l", "a/file/", nowhere),
            ("ui/l", "a//b/./", Ok("a//b/./")),
            ("ui/l", "l", circle),
            ("ui/l", "", nowhere),
            ("ui/l", ".", Ok(".")),
            ("ui/l", "a/b/../file", Ok("a/file")),
            ("ui/l", "../app/../../etc", outside),
        ] {
            let links = BTreeMap::from([(PathBuf::from(name), PathBuf::from(target))]);
            let mut resolver = Resolver::new(&root, &links, Path::new("ui"), Some(Path::new("/opt/app/")));
            let verdict = resolver.verdict(Path::new(name));
            match expected {
                Ok(kept) => assert_eq!(verdict, Ok(PathBuf::from(kept)), "{target}"),
                Err(why) => assert!(verdict.unwrap_err().contains(why), "{target}"),
            }
        }
    }

    #[test]
    fn without_a_known_place_nothing_above_is_looked_at() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("d")).unwrap();
        std::fs::write(temp.path().join("f"), "x").unwrap();
        let root = std::fs::File::open(temp.path()).unwrap();
        let links: BTreeMap<PathBuf, PathBuf> = [("up", "../f"), ("abs", "/f"), ("d/ok", "../f"), ("via", "d/ok")]
            .into_iter()
            .map(|(a, b)| (a.into(), b.into()))
            .collect();
        let mut resolver = Resolver::new(&root, &links, Path::new(""), None);
        assert!(resolver.verdict(Path::new("up")).is_err());
        assert!(resolver.verdict(Path::new("abs")).is_err());
        assert_eq!(resolver.verdict(Path::new("d/ok")), Ok("../f".into()));
        assert_eq!(resolver.verdict(Path::new("via")), Ok("d/ok".into()));
    }
}
