//! Names that a manifest gives to files of the image and to its socket, checked so that none of them can lead astray.

use std::{fmt, str::FromStr};

/// Longest path in bytes, the kernel's `PATH_MAX` less a directory to put it in.
const MAX_PATH_BYTES: usize = 2048;
/// Longest component in bytes, `NAME_MAX` of every file system in use.
const MAX_NAME_BYTES: usize = 255;
/// Longest socket name in bytes: a Unix socket address holds 107, directory included.
const MAX_SOCKET_BYTES: usize = 100;

/// A file or directory of the image: relative to its root, normalised (no leading or trailing slash, no `.`, no `..`,
/// no empty component), never empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImagePath(String);

/// File name of a socket in the guest directory: one component, never `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketName(String);

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameFault {
    /// Nothing is left of it.
    Empty,
    /// It is the root of the image.
    Root,
    /// It holds `..`.
    Parent,
    /// It begins with a Windows drive.
    Drive,
    /// It holds a backslash.
    Backslash,
    /// It is a URL.
    Url,
    /// It holds a control character.
    Control,
    /// It is too long for a file system.
    TooLong,
    /// A socket's name holds a slash.
    Slash,
    /// A socket's name is too long for an address.
    SocketTooLong,
}

impl ImagePath {
    /// Reads a path; the second value says whether it was written as a directory, with a slash at its end.
    pub fn read(text: &str) -> Result<(ImagePath, bool), NameFault> {
        refuse_foreign(text)?;
        let mut path = String::with_capacity(text.len());
        for part in text.split('/') {
            match part {
                "" | "." => continue,
                ".." => return Err(NameFault::Parent),
                part if part.len() > MAX_NAME_BYTES => return Err(NameFault::TooLong),
                part => {
                    if !path.is_empty() {
                        path.push('/');
                    }
                    path.push_str(part);
                }
            }
        }
        if path.is_empty() {
            return Err(if text.is_empty() { NameFault::Empty } else { NameFault::Root });
        }
        let directory = text.ends_with('/') || text.ends_with("/.");
        Ok((ImagePath(path), directory))
    }

    /// The path relative to the image's root, such as `ui/index.html`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its last component.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&*self.0, |(_, name)| name)
    }

    /// The directory that holds it; `None` for what lies in the image's root.
    pub fn parent(&self) -> Option<ImagePath> {
        self.0.rsplit_once('/').map(|(parent, _)| ImagePath(parent.to_owned()))
    }
}

/// Refuses what is no path inside a Linux image at all.
fn refuse_foreign(text: &str) -> Result<(), NameFault> {
    let drive = |b: &[u8]| matches!(b, [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic());
    match text {
        text if text.len() > MAX_PATH_BYTES => Err(NameFault::TooLong),
        text if text.contains(char::is_control) => Err(NameFault::Control),
        text if drive(text.as_bytes()) => Err(NameFault::Drive),
        text if text.contains('\\') => Err(NameFault::Backslash),
        text if text.contains("://") => Err(NameFault::Url),
        _ => Ok(()),
    }
}

impl FromStr for ImagePath {
    type Err = NameFault;

    fn from_str(text: &str) -> Result<Self, NameFault> {
        ImagePath::read(text).map(|(path, _)| path)
    }
}

impl fmt::Display for ImagePath {
    /// The path inside the image, with its leading slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

impl SocketName {
    /// The file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SocketName {
    type Err = NameFault;

    fn from_str(text: &str) -> Result<Self, NameFault> {
        match text {
            "" => Err(NameFault::Empty),
            "." | ".." => Err(NameFault::Parent),
            text if text.len() > MAX_SOCKET_BYTES => Err(NameFault::SocketTooLong),
            text if text.contains(char::is_control) => Err(NameFault::Control),
            text if text.contains(['/', '\\']) => Err(NameFault::Slash),
            text => Ok(SocketName(text.to_owned())),
        }
    }
}

impl fmt::Display for SocketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameFault::Empty => "is empty",
            NameFault::Root => "stands for the whole image; name a file or directory in it",
            NameFault::Parent => "leads upwards; write the path from the image's root without `..`",
            NameFault::Drive => "is a path of a Windows machine; name a file of the image, such as `/windows/tool.exe`",
            NameFault::Backslash => "holds a backslash; paths inside an image are written with `/`",
            NameFault::Url => "is a URL; name a file of the image",
            NameFault::Control => "holds a control character",
            NameFault::TooLong => "is longer than a file system allows: 255 bytes a name, 2048 in all",
            NameFault::Slash => "is a path; write the bare file name, such as `backend.sock`",
            NameFault::SocketTooLong => "is longer than 100 bytes, more than a socket's address can hold",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_normalised() {
        for (text, path, directory) in [
            ("ui", "ui", false),
            ("/ui", "ui", false),
            ("//ui/./dist//", "ui/dist", true),
            ("./a/b.sh", "a/b.sh", false),
            ("/windows/lib/", "windows/lib", true),
            ("a/.", "a", true),
            ("/..a/b..", "..a/b..", false),
            ("/with space/ü", "with space/ü", false),
        ] {
            assert_eq!(ImagePath::read(text), Ok((ImagePath(path.into()), directory)), "{text}");
        }
    }

    #[test]
    fn paths_that_lead_astray_are_refused() {
        let long = "a/".repeat(1100);
        let long_name = "a".repeat(256);
        for (text, fault) in [
            ("", NameFault::Empty),
            ("/", NameFault::Root),
            ("./.", NameFault::Root),
            ("..", NameFault::Parent),
            ("/a/../b", NameFault::Parent),
            ("a/..", NameFault::Parent),
            (r"C:\Program Files\docker.exe", NameFault::Drive),
            ("c:/docker.exe", NameFault::Drive),
            (r"\\server\share", NameFault::Backslash),
            (r"a\..\b", NameFault::Backslash),
            ("https://example.com/icon.svg", NameFault::Url),
            ("a\0b", NameFault::Control),
            ("a\x1b[2Jb", NameFault::Control),
            (&long, NameFault::TooLong),
            (&long_name, NameFault::TooLong),
        ] {
            assert_eq!(text.parse::<ImagePath>(), Err(fault), "{text:?}");
        }
    }

    #[test]
    fn a_path_knows_its_name_and_directory() {
        let path: ImagePath = "/vm/extension-compose.yml".parse().unwrap();
        assert_eq!(path.name(), "extension-compose.yml");
        assert_eq!(path.parent().unwrap().to_string(), "/vm");
        assert_eq!("compose.yaml".parse::<ImagePath>().unwrap().parent(), None);
    }

    #[test]
    fn sockets_are_bare_file_names() {
        for good in ["backend.sock", "docker.sock", "extension-LocalStack.sock", "a b", ".hidden", "..x"] {
            assert_eq!(good.parse::<SocketName>().unwrap().as_str(), good);
        }
        let long = "a".repeat(101);
        for (text, fault) in [
            ("", NameFault::Empty),
            (".", NameFault::Parent),
            ("..", NameFault::Parent),
            ("/run/guest-services/x.sock", NameFault::Slash),
            (r"\\.\pipe\x", NameFault::Slash),
            ("a\0", NameFault::Control),
            (&long, NameFault::SocketTooLong),
        ] {
            assert_eq!(text.parse::<SocketName>(), Err(fault), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_path_read_again_is_the_same(text in "[a./ \\\\]{0,12}") {
            if let Ok(path) = text.parse::<ImagePath>() {
                prop_assert_eq!(path.as_str().parse::<ImagePath>(), Ok(path.clone()));
                prop_assert_eq!(path.to_string().parse::<ImagePath>(), Ok(path.clone()));
                prop_assert!(path.as_str().split('/').all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }
}
