//! Image references, extension ids and the names derived from them.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

use super::error::{Error, Reason, Result};

/// Longest slug before its end becomes a hash, so that a path with it stays well below every limit.
const MAX_SLUG_BYTES: usize = 96;
/// Bytes of the readable part of a shortened slug.
const SHORT_SLUG_BYTES: usize = 72;

/// An image reference: repository, and a tag or digest where given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The repository, which is the extension's id.
    pub id: ExtensionId,
    /// Tag, without the colon.
    pub tag: Option<String>,
    /// Digest, `sha256:…`.
    pub digest: Option<String>,
}

/// An extension's id: the image repository, normalised. `docker.io/`, `index.docker.io/` and `library/` are left out,
/// the registry host is in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExtensionId(String);

impl FromStr for Reference {
    type Err = Error;

    /// Reads a reference as the `docker` CLI does (distribution/reference grammar).
    fn from_str(text: &str) -> Result<Self> {
        let refused =
            |why: &str| Error::new(Reason::ReferenceInvalid, text, format!("image reference {text:?}: {why}"));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(refused("the digest must be sha256: and 64 hexadecimal digits")),
            None => (text, None),
        };
        // A colon behind the last slash begins a tag; before it, a port.
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(refused("a tag holds letters, digits, `_`, `.` and `-`, at most 128"));
        }
        let id = ExtensionId::normalise(repository).ok_or_else(|| {
            refused("a repository looks like org/name, in lower case, with an optional registry host")
        })?;
        Ok(Reference { id, tag: tag.map(str::to_owned), digest })
    }
}

impl Reference {
    /// The version shown to people: the tag, else the digest, else `latest`.
    pub fn version(&self) -> &str {
        self.tag.as_deref().or(self.digest.as_deref()).unwrap_or("latest")
    }

    /// Whether neither tag nor digest is given.
    pub fn is_bare(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// The same repository with a tag.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Reference {
        Reference { id: self.id.clone(), tag: Some(tag.to_owned()), digest: None }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id.0)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl ExtensionId {
    fn normalise(repository: &str) -> Option<Self> {
        let (host, path) = split_host(repository);
        if path.is_empty() || repository.len() > 255 || !path.split('/').all(is_component) {
            return None;
        }
        let host = host.map(str::to_ascii_lowercase);
        if host.as_deref().is_some_and(|host| !is_host(host)) {
            return None;
        }
        match host.as_deref() {
            None | Some("docker.io" | "index.docker.io") => {
                Some(ExtensionId(path.strip_prefix("library/").filter(|p| !p.contains('/')).unwrap_or(path).to_owned()))
            }
            Some(host) => Some(ExtensionId(format!("{host}/{path}"))),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path-safe form. Injective: `/` becomes `_`, `_` becomes `=5f`, `:` becomes `=3a`; an id that would pass 96
    /// bytes keeps its beginning and ends in a hash of the whole.
    pub fn slug(&self) -> String {
        let mut slug = String::with_capacity(self.0.len());
        for c in self.0.chars() {
            match c {
                '/' => slug.push('_'),
                '_' => slug.push_str("=5f"),
                ':' => slug.push_str("=3a"),
                c => slug.push(c),
            }
        }
        if slug.len() > MAX_SLUG_BYTES {
            let hash = Sha256::digest(self.0.as_bytes());
            slug.truncate(SHORT_SLUG_BYTES);
            slug.push('=');
            slug.push_str(&hex::encode(&hash[..12]));
        }
        slug
    }

    /// The compose project, as Docker Desktop names it (F52, F53): extensions hard-code it. Not injective; a clash is
    /// PROJECT_NAME_TAKEN.
    pub fn project(&self) -> String {
        let name: String = self.0.chars().map(|c| if matches!(c, '/' | ':' | '.') { '_' } else { c }).collect();
        format!("{name}-desktop-extension")
    }
}

impl FromStr for ExtensionId {
    type Err = Error;

    /// Reads an id; a tag or digest is refused.
    fn from_str(text: &str) -> Result<Self> {
        let reference: Reference = text.parse()?;
        if !reference.is_bare() {
            let why = format!("{text:?} is a reference; an extension id is the repository alone, {}", reference.id);
            return Err(Error::new(Reason::ReferenceInvalid, text, why));
        }
        Ok(reference.id)
    }
}

impl fmt::Display for ExtensionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Splits off a registry host: a first component with a dot, a colon, an upper-case letter, or `localhost`.
fn split_host(repository: &str) -> (Option<&str>, &str) {
    match repository.split_once('/') {
        Some((host, path))
            if host.contains(['.', ':']) || host == "localhost" || host.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (Some(host), path)
        }
        _ => (None, repository),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = host.rsplit_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok());
    port_fits
        && !name.is_empty()
        && name.split('.').all(|label| is_separated(label, |rest| rest.trim_start_matches('-')))
}

/// One path component: runs of lower-case letters and digits, separated by `.`, `_`, `__` or dashes.
fn is_component(component: &str) -> bool {
    is_separated(component, |rest| {
        let dashes = rest.trim_start_matches('-');
        if dashes.len() < rest.len() {
            return dashes;
        }
        rest.strip_prefix("__").or_else(|| rest.strip_prefix(['_', '.'])).unwrap_or(rest)
    })
}

/// Whether `text` is alphanumeric runs (lower case) joined by what `separator` takes off the front.
fn is_separated(text: &str, separator: impl Fn(&str) -> &str) -> bool {
    let mut rest = text;
    loop {
        let behind = rest.trim_start_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if behind.len() == rest.len() {
            return false;
        }
        if behind.is_empty() {
            return true;
        }
        rest = separator(behind);
        if rest.len() == behind.len() {
            return false;
        }
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn ids_are_normalised() {
        for (text, id, version) in [
            ("org/name:1.2", "org/name", "1.2"),
            ("docker.io/org/name", "org/name", "latest"),
            ("docker.io/library/redis:7", "redis", "7"),
            ("Localhost:5000/a/b_c:x", "localhost:5000/a/b_c", "x"),
            ("ghcr.io/a/b", "ghcr.io/a/b", "latest"),
        ] {
            assert_eq!((reference(text).id.as_str(), reference(text).version()), (id, version), "{text}");
        }
        for wrong in
            ["", "/", "a//b", "Org/name ", "a/b:", "a/b:?", "a/-b", "a/b-", "../a", "a/..", "a b", "a/b@sha256:1"]
        {
            assert_eq!(wrong.parse::<Reference>().unwrap_err().reason(), Reason::ReferenceInvalid, "{wrong:?}");
        }
    }

    #[test]
    fn names_are_those_of_docker_desktop() {
        let id = reference("docker/volumes-backup-extension:1").id;
        assert_eq!(id.project(), "docker_volumes-backup-extension-desktop-extension");
        assert_eq!(id.slug(), "docker_volumes-backup-extension");
    }

    proptest! {
        #[test]
        fn slugs_are_injective_and_safe(a in "[a-c_./:]{1,12}", b in "[a-c_./:]{1,12}") {
            let (a, b) = (a.parse::<ExtensionId>(), b.parse::<ExtensionId>());
            if let (Ok(a), Ok(b)) = (a, b) {
                prop_assert_eq!(a == b, a.slug() == b.slug());
                prop_assert!(!a.slug().contains('/') && a.slug().len() <= MAX_SLUG_BYTES + 4);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,300}") {
            let _ = text.parse::<Reference>();
        }
    }
}
