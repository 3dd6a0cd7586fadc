//! Where an extension comes from, as it is written on the command line.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use super::{connect::Connection, failure::Failure};
use crate::{model::manifest, pb};

/// When a registry is asked for an image.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub(super) enum Pull {
    /// Pull what the engine does not have
    #[default]
    Missing,
    /// Always ask the registry
    Always,
    /// Never ask a registry
    Never,
}

/// The source that `text` means: a path when it starts with `.`, `/` or `~/`, or names an archive or a directory with a
/// `metadata.json` that is there; else an image. `reference` is what to install a path under.
pub(super) fn read_source(text: &str, reference: Option<&str>, pull: Pull) -> Result<pb::Source, Failure> {
    use pb::source::Source;
    let source = match path_of(text) {
        Some(path) => {
            let path = whole(&path).map_err(|error| Failure::of_file(&path, &error))?;
            let (text, reference) = (path_text(&path)?, reference.unwrap_or_default().to_owned());
            match path.is_dir() {
                true => Source::Directory(pb::DirectorySource { path: text, reference }),
                false => Source::Archive(pb::ArchiveSource { path: text, reference }),
            }
        }
        None if reference.is_some() => {
            let advice = format!("give an image its name with: docker tag {text} …");
            return Err(Failure::with_advice("--as is for archives and directories", advice).exiting(2));
        }
        None => Source::Image(pb::ImageSource { reference: text.to_owned(), pull: pull.policy().into() }),
    };
    Ok(pb::Source { source: Some(source) })
}

/// Whether `text` can only mean a source: a path, or an image with a tag or digest.
pub(super) fn is_source(text: &str) -> bool {
    let after_last_slash = text.rsplit('/').next().unwrap_or_default();
    path_of(text).is_some() || after_last_slash.contains([':', '@'])
}

/// The installed extension that `text` names; none where nothing of that id is installed.
pub(super) async fn find_installed(broker: &Connection, text: &str) -> Result<Option<pb::Extension>, Failure> {
    let request = pb::ExtensionServiceGetRequest { extension: text.to_owned() };
    match broker.extensions().get(request).await {
        Ok(response) => Ok(response.into_inner().extension),
        Err(status) => {
            let failure = Failure::from(status);
            if failure.is_not_found() { Ok(None) } else { Err(failure) }
        }
    }
}

impl Pull {
    fn policy(self) -> pb::PullPolicy {
        match self {
            Pull::Missing => pb::PullPolicy::Missing,
            Pull::Always => pb::PullPolicy::Always,
            Pull::Never => pb::PullPolicy::Never,
        }
    }
}

/// The whole path of something that is there.
fn whole(path: &Path) -> io::Result<PathBuf> {
    #[cfg(unix)]
    return fs::canonicalize(path);
    // As people write it: the canonical form has a prefix that many programs do not take.
    #[cfg(windows)]
    fs::metadata(path).and_then(|_| std::path::absolute(path))
}

/// The path that `text` is, if it is one.
fn path_of(text: &str) -> Option<PathBuf> {
    if text.starts_with(['.', '/']) || (cfg!(windows) && Path::new(text).is_absolute()) {
        return Some(PathBuf::from(text));
    }
    if let Some(rest) = text.strip_prefix("~/") {
        return env::home_dir().map(|home| home.join(rest));
    }
    // A directory that happens to be called like a repository is common; one that is an extension is meant.
    let path = Path::new(text);
    let is_archive = [".tar", ".tar.gz", ".tgz"].iter().any(|end| text.ends_with(end)) && path.is_file();
    (is_archive || path.join(manifest::FILE).is_file()).then(|| path.to_owned())
}

/// A path as text, which is what messages hold.
pub(super) fn path_text(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| Failure::new(format!("{}: the path is not UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> &'static str {
        match read_source(text, None, Pull::Missing).unwrap().source.unwrap() {
            pb::source::Source::Image(_) => "image",
            pb::source::Source::Archive(_) => "archive",
            pb::source::Source::Directory(_) => "directory",
        }
    }

    #[test]
    fn paths_are_told_from_images() {
        let directory = tempfile::tempdir().unwrap();
        let archive = directory.path().join("x.tar");
        fs::write(&archive, "").unwrap();
        assert_eq!(kind(directory.path().to_str().unwrap()), "directory");
        assert_eq!(kind(archive.to_str().unwrap()), "archive");
        assert_eq!(kind("."), "directory");
        for image in ["org/name", "org/name:1", "src", "name.tar", "localhost:5000/a/b"] {
            assert_eq!(kind(image), "image", "{image}");
        }
        assert!(read_source("./does-not-exist", None, Pull::Never).is_err());
        assert!(read_source("org/name", Some("a/b:1"), Pull::Never).is_err());
    }

    #[test]
    fn a_tag_makes_it_a_source() {
        for (text, expected) in
            [("a/b", false), ("a/b:1", true), ("h:5000/a", false), ("a@sha256:00", true), (".", true)]
        {
            assert_eq!(is_source(text), expected, "{text}");
        }
    }
}
