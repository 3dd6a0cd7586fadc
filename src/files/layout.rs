//! The data directory: where everything lies, who may use it, and that only one broker does.
//!
//! ```text
//! <data>/longshore.db, lock
//! <data>/key                                 0600, what signs labels
//! <data>/extensions/<slug>/guest/            0777, mounted at /run/guest-services; hostile
//! <data>/extensions/<slug>/broker/           0755, mounted read-only at /run/longshore
//! <data>/extensions/<slug>/docker-config/    0700, made when its docker command line runs first
//! <data>/extensions/<slug>/generations/<n>/  0700: metadata.json, ui/, icon/, host/, compose/, compose.json, record.json
//! <data>/staging/<name>/                     0700, emptied at start
//! <data>/docker-config/                      an empty DOCKER_CONFIG for Compose
//! ```
//!
//! Only the owner gets as far as `guest`: `extensions` is 0700, and the engine binds `guest` itself.
//!
//! In system mode there is one such directory for each user, `<data>/users/<uid>`, which is root's and lets that user
//! through alone: to `ui`, `icon`, `host` and `broker`, and by way of `s/<hash>` to the same `broker`, of which nothing is the user's to write. `guest` lies in a
//! directory of its own there, 0700: a container's root may leave programs in it that make root of whoever runs them.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

pub use super::private::{check_owner, hand_over, holder_of, is_program, make_dir, readable};
use super::{
    extension::{ExtensionDir, Staging},
    private::{admit, close_to_others, make_private, private_file, set_mode},
    remove,
};
use crate::{
    local,
    model::{
        error::{Error, Reason, Result},
        reference::ExtensionId,
        signature::{KEY_BYTES, Key},
    },
};

/// Where in a user's directory short ways lead to what has long names: an address holds 107 bytes.
pub(super) const SHORT: &str = "s";

/// The data directory, held for this process alone as long as the value lives.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
    /// Whether a user who is not the broker's has to find files in it.
    is_for_user: bool,
    /// Holds the lock; the kernel lets go of it when the process ends, however it ends.
    _lock: File,
    staged: AtomicU64,
}

impl Layout {
    /// Makes or opens the data directory and locks it.
    ///
    /// # Errors
    /// `CONFIG_INVALID` for a directory of another user or one that others may write to; `ALREADY_RUNNING` while
    /// another broker holds it; `FILE_FAILED`.
    pub fn open(data: &Path) -> Result<Layout> {
        Layout::open_as(data, false)
    }

    /// The same for a user of a broker that works for several, in a directory that lets this user through.
    ///
    /// # Errors
    /// Those of [`Layout::open`]; `FILE_FAILED` also where the disk keeps no access control lists.
    pub fn open_for(data: &Path, uid: u32) -> Result<Layout> {
        let layout = Layout::open_as(data, true)?;
        admit(data, uid).map_err(|error| failed("let its user into", data, error))?;
        Ok(layout)
    }

    fn open_as(data: &Path, is_for_user: bool) -> Result<Layout> {
        make_private(data)?;
        check_owner(data)?;
        // What another broker holds is not touched.
        let lock = lock(&data.join("lock"))?;
        // Grants and audit in it are nobody else's to read.
        close_to_others(data)?;
        let layout = Layout { root: data.to_owned(), is_for_user, _lock: lock, staged: AtomicU64::new(0) };
        for (name, mode) in
            [("extensions", layout.passage()), ("staging", 0o700), ("docker-config", 0o700), (SHORT, layout.passage())]
        {
            if name == SHORT && !is_for_user {
                continue;
            }
            let path = layout.root.join(name);
            make_private(&path)?;
            check_owner(&path)?;
            set_mode(&path, mode)?;
        }
        layout.empty_staging()?;
        Ok(layout)
    }

    /// The mode of directories on the way to what a user has to find.
    fn passage(&self) -> u32 {
        if self.is_for_user { 0o711 } else { 0o700 }
    }

    /// The data directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a socket leads to an engine that has none.
    pub fn relay_socket(&self) -> PathBuf {
        relay_socket(&self.root)
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        database_of(&self.root)
    }

    /// The key that signs labels. `fresh` is taken where there is none yet.
    ///
    /// # Errors
    /// `FILE_FAILED`, also for a file that holds no key.
    pub fn key(&self, fresh: impl FnOnce() -> [u8; KEY_BYTES]) -> Result<Key> {
        match self.known_key()? {
            Some(key) => Ok(key),
            None => {
                let bytes = fresh();
                write_private(&self.root, "key", &bytes)?;
                Ok(Key::new(bytes))
            }
        }
    }

    /// The key that signs labels, where there is one.
    ///
    /// # Errors
    /// `FILE_FAILED`, also for a file that holds no key.
    pub fn known_key(&self) -> Result<Option<Key>> {
        let path = self.root.join("key");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| failed("read", &path, error))?,
        };
        let bytes = bytes.try_into().map_err(|_| {
            let shown = path.display().to_string();
            let text = format!("{shown:?} holds no key; remove it, and what was signed with it is not known again");
            Error::new(Reason::FileFailed, shown, text)
        })?;
        Ok(Some(Key::new(bytes)))
    }

    /// Puts the database, and what SQLite keeps beside it, under another name, out of the way. Returns that name.
    ///
    /// # Errors
    /// `FILE_FAILED`.
    pub fn put_database_aside(&self) -> Result<PathBuf> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let aside = self.root.join(format!("longshore.db.damaged-{seconds}"));
        // What SQLite keeps beside it first: a new database must not find it.
        for suffix in ["-wal", "-shm", ""] {
            let with = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
            match fs::rename(with(&self.database()), with(&aside)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("rename", &with(&self.database()), error));
                }
                _ => {}
            }
        }
        Ok(aside)
    }

    /// An empty directory, as DOCKER_CONFIG for programs that must not see the user's.
    pub fn docker_config(&self) -> PathBuf {
        self.root.join("docker-config")
    }

    /// What belongs to an extension; nothing is made.
    pub fn extension(&self, id: &ExtensionId) -> ExtensionDir {
        ExtensionDir::at(self.root.join("extensions").join(id.slug()), self.is_for_user)
    }

    /// Slugs and directories of all extensions that have one, in order, whatever the store says.
    ///
    /// # Errors
    /// `FILE_FAILED`.
    pub fn extensions(&self) -> Result<Vec<(String, ExtensionDir)>> {
        extensions_in(&self.root, self.is_for_user)
    }

    /// A new, empty, private directory.
    ///
    /// # Errors
    /// `FILE_FAILED`.
    pub fn stage(&self) -> Result<Staging> {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let name = format!("{nanos:x}-{}", self.staged.fetch_add(1, Ordering::Relaxed));
        let root = self.root.join("staging").join(name);
        make_dir(&root, 0o700).map_err(|error| failed("create", &root, error))?;
        Ok(Staging::at(root))
    }

    fn empty_staging(&self) -> Result<()> {
        let root = self.root.join("staging");
        for name in names(&root)? {
            if let Err(left) = remove::remove(&root.join(name)) {
                tracing::warn!(%left, "files of an interrupted installation stay");
            }
        }
        Ok(())
    }
}

/// The database in a data directory.
pub fn database_of(data: &Path) -> PathBuf {
    data.join("longshore.db")
}

/// Slugs and directories of the extensions in a data directory, in order.
///
/// # Errors
/// `FILE_FAILED`.
pub fn extensions_of(data: &Path) -> Result<Vec<(String, ExtensionDir)>> {
    extensions_in(data, false)
}

/// Where in a data directory a socket leads to an engine that has none.
pub fn relay_socket(data: &Path) -> PathBuf {
    local::place(data, "engine.sock")
}

fn extensions_in(data: &Path, is_for_user: bool) -> Result<Vec<(String, ExtensionDir)>> {
    let root = data.join("extensions");
    let at = |name: String| (name.clone(), ExtensionDir::at(root.join(name), is_for_user));
    let mut found: Vec<_> = names(&root)?.into_iter().map(at).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

pub(super) fn lock(path: &Path) -> Result<File> {
    let file = private_file(path).map_err(|error| failed("open", path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let shown = path.parent().unwrap_or(path).display().to_string();
            let text = format!("another broker uses the data directory {shown:?}; stop it or name another directory");
            Err(Error::new(Reason::AlreadyRunning, shown, text))
        }
        Err(TryLockError::Error(error)) => Err(failed("lock", path, error)),
    }
}

/// Writes a file that only the broker's user may read, whole or not at all.
pub(super) fn write_private(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let (path, partial) = (dir.join(name), dir.join(format!(".{name}.partial")));
    private_file(&partial)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&partial, &path))
        .map_err(|error| failed("write", &path, error))
}

/// Names of the directories in a directory; none if it does not exist.
pub(super) fn names(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| failed("read", path, error))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| failed("read", path, error))?;
        // A link to one is one: it may lie on another disk.
        match fs::metadata(entry.path()) {
            Ok(found) if found.is_dir() => names.extend(entry.file_name().into_string().ok()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("read", &entry.path(), error)),
            _ => {}
        }
    }
    Ok(names)
}

pub(super) fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    let shown = path.display().to_string();
    Error::new(Reason::FileFailed, shown.clone(), format!("cannot {what} {shown:?}: {error}")).caused_by(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::files::extension::COMPOSE_FILE;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn one_broker_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path().join("a/data");
        let layout = Layout::open(&data).unwrap();
        assert_eq!((mode(&data), mode(&data.join("lock"))), (0o700, 0o600));
        assert_eq!(Layout::open(&data).unwrap_err().reason(), Reason::AlreadyRunning);
        let locks =
            format!("1: FLOCK  ADVISORY  WRITE 7 08:01:{} 0 EOF", fs::metadata(data.join("lock")).unwrap().ino());
        assert_eq!(super::super::private::flock_of(&locks, fs::metadata(data.join("lock")).unwrap().ino()), Some(7));
        assert_eq!(super::super::private::flock_of(&locks, 1), None);
        // This process holds it, and is no broker.
        assert_eq!(holder_of(&data), None);
        fs::create_dir_all(data.join("staging/old/deep")).unwrap();
        drop(layout);
        Layout::open(&data).unwrap();
        assert!(!data.join("staging/old").exists());
    }

    #[test]
    fn a_key_is_made_once_and_a_damaged_one_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let layout = Layout::open(temp.path()).unwrap();
        assert_eq!(layout.known_key().unwrap(), None);
        let key = layout.key(|| [1; KEY_BYTES]).unwrap();
        assert_eq!(mode(&temp.path().join("key")), 0o600);
        assert_eq!(layout.key(|| [2; KEY_BYTES]).unwrap(), key);
        fs::write(temp.path().join("key"), "short").unwrap();
        assert_eq!(layout.key(|| [2; KEY_BYTES]).unwrap_err().reason(), Reason::FileFailed);
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        for wrong in [0o770, 0o707] {
            fs::set_permissions(temp.path(), fs::Permissions::from_mode(wrong)).unwrap();
            assert_eq!(Layout::open(temp.path()).unwrap_err().reason(), Reason::ConfigInvalid);
        }
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Layout::open(temp.path()).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(temp.path(), Some(12_345), None).unwrap();
            assert!(Layout::open(temp.path()).unwrap_err().message().contains("12345"));
        }
    }

    #[test]
    fn an_extension_comes_and_goes() {
        let temp = tempfile::tempdir().unwrap();
        let layout = Layout::open(temp.path()).unwrap();
        let extension = layout.extension(&"org/name".parse().unwrap());
        extension.create().unwrap();
        extension.create().unwrap();
        assert_eq!((mode(extension.path()), mode(&extension.guest())), (0o700, 0o777));
        assert_eq!(mode(&extension.broker()), 0o755);
        let staging = layout.stage().unwrap();
        staging.files().write_private(COMPOSE_FILE, b"{}").unwrap();
        assert_eq!(mode(&staging.files().compose_file()), 0o600);
        let generation = staging.promote(&extension, 3).unwrap();
        assert_eq!(fs::read(generation.compose_file()).unwrap(), b"{}");
        let again = layout.stage().unwrap();
        let dropped = again.files().path().to_owned();
        assert_eq!(again.promote(&extension, 3).unwrap_err().reason(), Reason::FileFailed);
        assert!(!dropped.exists());
        assert_eq!(extension.generations().unwrap(), [3]);
        assert_eq!(layout.extensions().unwrap(), [("org_name".to_owned(), extension.clone())]);
        extension.remove_generation(3).unwrap();
        extension.remove().unwrap();
        extension.remove().unwrap();
        assert_eq!(layout.extensions().unwrap(), []);
    }

    #[test]
    fn a_copy_stands_in_for_a_rename_across_disks() {
        let temp = tempfile::tempdir().unwrap();
        let layout = Layout::open(temp.path()).unwrap();
        let extension = layout.extension(&"a/b".parse().unwrap());
        extension.create().unwrap();
        let staging = layout.stage().unwrap();
        fs::create_dir(staging.files().ui()).unwrap();
        fs::write(staging.files().ui().join("a"), "x").unwrap();
        let target = extension.generation(1);
        staging.copy_to(&extension, &target, 1).unwrap();
        assert_eq!(fs::read(target.ui().join("a")).unwrap(), b"x");
        assert_eq!((mode(target.path()), extension.generations().unwrap()), (0o700, vec![1]));
        // What fails leaves nothing.
        staging.copy_to(&extension, &target, 2).unwrap_err();
        assert_eq!(fs::read_dir(target.path().parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_in_the_way_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let layout = Layout::open(temp.path()).unwrap();
        let extension = layout.extension(&"a/b".parse().unwrap());
        let outside = tempfile::tempdir().unwrap();
        fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o750)).unwrap();
        fs::create_dir(extension.path()).unwrap();
        symlink(outside.path(), extension.guest()).unwrap();
        assert_eq!(extension.create().unwrap_err().reason(), Reason::FileFailed);
        assert_eq!(mode(outside.path()), 0o750);
    }
}
