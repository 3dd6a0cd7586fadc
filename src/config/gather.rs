//! Gathers what the configuration is made of: the environment, the file, facts about the machine.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Config, Mistake, ServeArgs, context,
    resolve::{
        Machine, SOCKET_NAME, SYSTEM_FILE, SYSTEM_RUNTIME_DIR, absolute, default_runtime_dir, default_socket_in, home,
        resolve,
    },
};
use crate::{
    model::error::{Error, Reason, Result},
    user,
};

/// Largest configuration file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads and resolves the configuration of this process.
///
/// # Errors
/// `CONFIG_INVALID` with every mistake, one a line.
pub fn load(args: &ServeArgs) -> Result<Config> {
    let env = environment();
    let machine = this_machine();
    let (file, unread) = match read_file(args, &env) {
        Ok(file) => (file, None),
        Err(mistake) => (None, Some(mistake)),
    };
    let mistakes = match (resolve(args, &env, file, &machine), unread) {
        (Ok(config), None) => return Ok(config),
        (Ok(_), Some(unread)) => vec![unread],
        (Err(mistakes), unread) => unread.into_iter().chain(mistakes).collect(),
    };
    Err(invalid(&mistakes))
}

/// Where a client finds the broker when nothing else is said: where `longshore serve` of the same user would put it,
/// its configuration file included, or where the one of the machine is, where only that is there. With a wrong
/// configuration no broker starts; the usual place is told then.
pub fn default_socket() -> PathBuf {
    let own = match load(&ServeArgs::default()) {
        Ok(config) => config.socket,
        Err(_) => default_socket_in(&default_runtime_dir(&environment(), &this_machine())),
    };
    let of_machine = Path::new(SYSTEM_RUNTIME_DIR).join(SOCKET_NAME);
    if cfg!(unix) && !own.exists() && of_machine.exists() { of_machine } else { own }
}

fn this_machine() -> Machine<'static> {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    Machine {
        uid: user::own_uid(),
        temp_dir: std::env::temp_dir(),
        exists: &|path| path.exists(),
        passwd: text("/etc/passwd"),
        group: text("/etc/group"),
        context: &context::find,
    }
}

/// All variables; bytes that are no UTF-8 are replaced, and the value is then refused where it matters.
fn environment() -> BTreeMap<String, String> {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// The file that was asked for, which must exist, or the usual one if it does.
fn read_file(args: &ServeArgs, env: &BTreeMap<String, String>) -> Result<Option<(PathBuf, String)>, Mistake> {
    let variable = env.get("LONGSHORE_CONFIG").map(PathBuf::from);
    let asked = match (&args.place.config, variable) {
        (Some(path), _) => Some(("--config", path.clone())),
        (None, Some(path)) => Some(("LONGSHORE_CONFIG", path)),
        (None, None) => None,
    };
    let is_system = args.system || env.get("LONGSHORE_SYSTEM").is_some_and(|on| on == "true");
    let usual = || {
        if is_system {
            return Some(PathBuf::from(SYSTEM_FILE));
        }
        if cfg!(windows) {
            return absolute(env, "APPDATA").map(|dir| dir.join("longshore").join("config.toml"));
        }
        let below_home = || home(env).map(|home| home.join(".config"));
        absolute(env, "XDG_CONFIG_HOME").or_else(below_home).map(|dir| dir.join("longshore/config.toml"))
    };
    let (origin, path) = match asked {
        Some((origin, path)) => (Some(origin), path),
        None => match usual() {
            Some(path) => (None, path),
            None => return Ok(None),
        },
    };
    match read_bounded(&path) {
        Ok(content) => Ok(Some((path, content))),
        Err(error) if origin.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let shown = path.display().to_string();
            let text = format!("cannot read the configuration file {shown:?}: {error}");
            Err(Mistake { origin: origin.map_or(shown, str::to_owned), text })
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    use io::Read;
    let mut content = String::new();
    let read = fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut content)? as u64;
    if read > MAX_FILE_BYTES { Err(io::Error::other("it is larger than 1 MiB")) } else { Ok(content) }
}

fn invalid(mistakes: &[Mistake]) -> Error {
    let lines: String = mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect();
    let subject = mistakes.first().map(|mistake| mistake.origin.clone()).unwrap_or_default();
    Error::new(Reason::ConfigInvalid, subject, format!("the configuration is wrong:{lines}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::args::PlaceArgs;

    fn at_file(config: PathBuf) -> ServeArgs {
        ServeArgs { place: PlaceArgs { config: Some(config), ..PlaceArgs::default() }, ..ServeArgs::default() }
    }

    #[test]
    fn a_file_that_was_asked_for_must_exist() {
        let temp = tempfile::tempdir().unwrap();
        let mut env = BTreeMap::from([("HOME".to_owned(), temp.path().display().to_string())]);
        assert_eq!(read_file(&ServeArgs::default(), &env), Ok(None));
        let asked = at_file(temp.path().join("none.toml"));
        assert_eq!(read_file(&asked, &env).unwrap_err().origin, "--config");
        env.insert("LONGSHORE_CONFIG".into(), "/none".into());
        assert_eq!(read_file(&ServeArgs::default(), &env).unwrap_err().origin, "LONGSHORE_CONFIG");
        env.remove("LONGSHORE_CONFIG");
        let usual = temp.path().join(".config/longshore/config.toml");
        fs::create_dir_all(usual.parent().unwrap()).unwrap();
        fs::write(&usual, "x").unwrap();
        assert_eq!(read_file(&ServeArgs::default(), &env), Ok(Some((usual.clone(), "x".into()))));
        fs::write(&usual, "#".repeat(2 << 20)).unwrap();
        assert!(read_file(&ServeArgs::default(), &env).unwrap_err().text.contains("1 MiB"));
    }

    #[test]
    fn every_mistake_is_in_the_message() {
        let args =
            ServeArgs { socket: Some("x".into()), drain_timeout: Some("soon".into()), ..at_file("/none.toml".into()) };
        let error = load(&args).unwrap_err();
        assert_eq!(error.reason(), Reason::ConfigInvalid);
        for origin in ["--config: ", "--socket: ", "--drain-timeout: "] {
            assert!(error.message().contains(origin), "{error}");
        }
    }
}
