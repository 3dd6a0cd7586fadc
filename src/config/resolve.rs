//! Merges arguments, environment, file and defaults. Pure: what it has to know about the machine it is told.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Config, Context, EngineAddress, EngineFiles, Log, LogFormat, Mistake, ServeArgs, System,
    address::{self, Written},
    file::{self, Setting},
    value,
};
use crate::{
    model::audit::Audit,
    user::{HOME, docker_config, group_id, user_id},
};

/// The variables that are read; any other that begins with `LONGSHORE_` is a mistake, except those that programs of
/// extensions are given.
pub const VARIABLES: &[&str] = &[
    "LONGSHORE_SOCKET",
    "LONGSHORE_DATA_DIR",
    "LONGSHORE_RUNTIME_DIR",
    "LONGSHORE_ENGINE",
    "LONGSHORE_ENGINE_TLS_DIR",
    "LONGSHORE_ENGINE_FILES",
    "LONGSHORE_CONFIG",
    "LONGSHORE_LOG",
    "LONGSHORE_LOG_FORMAT",
    "LONGSHORE_DRAIN_TIMEOUT",
    "LONGSHORE_CONNECT_TIMEOUT",
    "LONGSHORE_HEAD_TIMEOUT",
    "LONGSHORE_IDLE_TIMEOUT",
    "LONGSHORE_TOTAL_TIMEOUT",
    "LONGSHORE_READY_TIMEOUT",
    "LONGSHORE_MAX_BODY_BYTES",
    "LONGSHORE_AUDIT",
    "LONGSHORE_METRICS_SOCKET",
    "LONGSHORE_HOST_PROGRAMS",
    "LONGSHORE_OTLP_ENDPOINT",
    "LONGSHORE_SYSTEM",
    "LONGSHORE_SYSTEM_GROUP",
    "LONGSHORE_SYSTEM_ALLOWED_USERS",
    "LONGSHORE_SYSTEM_ALLOWED_GROUPS",
    "LONGSHORE_SYSTEM_TRUST_USERS",
];

/// Variables that programs of extensions are given. A broker that one of them starts, as an author's test may, inherits
/// them.
const HANDED_OUT: &[&str] = &["LONGSHORE_EXTENSION", "LONGSHORE_BACKEND_SOCKET"];

/// The control socket's file name in the runtime directory.
pub(super) const SOCKET_NAME: &str = "longshore.sock";

/// Where root's broker has what others keep elsewhere; that of several users has its data and its configuration there too.
pub(super) const SYSTEM_RUNTIME_DIR: &str = "/run/longshore";
const SYSTEM_DATA_DIR: &str = "/var/lib/longshore";
/// Its configuration file.
pub(super) const SYSTEM_FILE: &str = "/etc/longshore/config.toml";
/// Its group.
const SYSTEM_GROUP: &str = "longshore";

/// What the defaults depend on.
pub struct Machine<'a> {
    /// The broker's uid.
    pub uid: u32,
    /// For temporary files.
    pub temp_dir: PathBuf,
    /// Whether something lies at a path.
    pub exists: &'a dyn Fn(&Path) -> bool,
    /// What `/etc/passwd` says.
    pub passwd: String,
    /// What `/etc/group` says.
    pub group: String,
    /// Looks up one of Docker's contexts, in Docker's configuration directory.
    pub context: &'a dyn Fn(&Path, &str) -> Result<Context, String>,
}

/// The configuration, or everything that is wrong with it. Values that another source overrides are checked as well.
///
/// # Errors
/// All mistakes, at least one.
pub fn resolve(
    args: &ServeArgs,
    env: &BTreeMap<String, String>,
    file: Option<(PathBuf, String)>,
    machine: &Machine<'_>,
) -> Result<Config, Vec<Mistake>> {
    let mut mistakes = unknown_variables(env);
    let settings = file.map(|(path, content)| file::read(&path, &content, &mut mistakes)).unwrap_or_default();
    let mut sources = Sources { env, settings, mistakes };
    let system = sources.system(args, machine);
    let (runtime_dir, data_dir) = sources.directories(args, machine, system.is_some());
    let socket = match sources.pick("socket", text_of(&args.socket), value::socket) {
        Some((socket, _)) => socket,
        None => sources.default_socket(&runtime_dir),
    };
    let tls_dir = sources.pick("engine_tls_dir", text_of(&args.place.engine_tls_dir), value::path).map(|found| found.0);
    let (engine, engine_origin) = sources.engine(args, tls_dir, machine);
    let files = sources.pick("engine_files", args.engine_files.clone(), value::engine_files);
    let drain = sources.pick("drain_timeout", args.drain_timeout.clone(), value::duration);
    let connect = sources.pick("connect_timeout", None, value::timeout);
    let head = sources.pick("head_timeout", None, value::timeout);
    let idle = sources.pick("idle_timeout", None, value::timeout);
    let total = sources.pick("total_timeout", None, value::timeout);
    let ready = sources.pick("ready_timeout", None, value::timeout);
    let max_body = sources.pick("max_body_bytes", None, value::body_bytes);
    let audit = sources.pick("audit", None, value::audit);
    let metrics = sources.pick("metrics_socket", text_of(&args.metrics_socket), value::socket);
    let off = args.no_host_programs.then(|| "false".to_owned());
    let host_programs = sources.pick("host_programs", off, value::switch);
    let otlp = sources.pick("otlp_endpoint", args.otlp_endpoint.clone(), value::collector);
    let filter = sources.pick("log.filter", args.log.clone(), value::log_filter);
    let format = sources.pick("log.format", args.log_format.clone(), value::log_format);
    if !sources.mistakes.is_empty() {
        return Err(sources.mistakes);
    }
    Ok(Config {
        socket,
        data_dir,
        runtime_dir,
        engine,
        engine_origin,
        engine_files: files.map_or(EngineFiles::Auto, |found| found.0),
        drain_timeout: drain.map_or(Duration::from_secs(10), |found| found.0),
        connect_timeout: connect.map_or(Duration::from_secs(5), |found| found.0),
        head_timeout: head.map_or(Duration::from_secs(3600), |found| found.0),
        idle_timeout: idle.map(|found| found.0),
        total_timeout: total.map(|found| found.0),
        ready_timeout: ready.map_or(Duration::from_secs(60), |found| found.0),
        max_body_bytes: max_body.map_or(3 << 20, |found| found.0),
        audit: audit.map_or(Audit::Names, |found| found.0),
        metrics_socket: metrics.map(|found| found.0),
        host_programs: host_programs.is_none_or(|found| found.0),
        otlp_endpoint: otlp.map(|found| found.0),
        log: Log {
            filter: filter.map_or_else(|| "info".to_owned(), |found| found.0),
            format: format.map_or(LogFormat::Text, |found| found.0),
        },
        system,
    })
}

struct Sources<'a> {
    env: &'a BTreeMap<String, String>,
    settings: Vec<Setting>,
    mistakes: Vec<Mistake>,
}

impl Sources<'_> {
    /// The value of the strongest source that gives one, with the name of that source; mistakes of all are noted. A
    /// source with a mistake counts as giving none: the mistake is reported anyway.
    fn pick<T>(
        &mut self,
        key: &str,
        argument: Option<String>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<(T, String)> {
        let (flag, variable) = names(key);
        let from_env = self.env.get(&variable).map(|text| (text.clone(), variable));
        let from_file = self.settings.iter().find(|setting| setting.key == key);
        let from_file = from_file.map(|setting| (setting.text.clone(), setting.origin.clone()));
        let mut picked = None;
        for (text, origin) in argument.map(|text| (text, flag)).into_iter().chain(from_env).chain(from_file) {
            match read(&text) {
                Ok(found) if picked.is_none() => picked = Some((found, origin)),
                Ok(_) => {}
                Err(text) => self.mistakes.push(Mistake { origin, text }),
            }
        }
        picked
    }

    /// How to work for several users, where that is asked for. What it would be is read in any case, for its mistakes.
    fn system(&mut self, args: &ServeArgs, machine: &Machine<'_>) -> Option<System> {
        let on = args.system.then(|| "true".to_owned());
        let enabled = self.pick("system.enabled", on, value::switch);
        let user = |text: &str| value::ids(text, |name| user_id(name, &machine.passwd));
        let groups = |text: &str| value::ids(text, |name| group_id(name, &machine.group));
        let group = self.pick("system.group", None, |text| match &groups(text)?[..] {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            _ => Err(format!("{text:?} is more than one group")),
        });
        let group = group.map_or_else(|| group_id(SYSTEM_GROUP, &machine.group), |found| found.0);
        let allowed_users = self.pick("system.allowed_users", None, user);
        let allowed_groups = self.pick("system.allowed_groups", None, groups);
        let trust_users = self.pick("system.trust_users", None, value::switch);
        let (is_enabled, origin) = enabled?;
        if !is_enabled {
            return None;
        }
        if cfg!(windows) {
            let text = "on Windows a broker works for the user that runs it alone; leave it out".into();
            self.mistakes.push(Mistake { origin, text });
        } else if machine.uid != 0 {
            let text = "only root can work for several users; leave it out, and the broker works for you".into();
            self.mistakes.push(Mistake { origin, text });
        }
        Some(System {
            group,
            allowed_users: allowed_users.map(|found| found.0).unwrap_or_default(),
            allowed_groups: allowed_groups.map_or_else(|| group.into_iter().collect(), |found| found.0),
            trust_users: trust_users.is_some_and(|found| found.0),
        })
    }

    /// The runtime and the data directory.
    fn directories(&mut self, args: &ServeArgs, machine: &Machine<'_>, is_system: bool) -> (PathBuf, PathBuf) {
        let runtime_dir = match self.pick("runtime_dir", text_of(&args.runtime_dir), value::path) {
            Some((runtime_dir, _)) => runtime_dir,
            None if is_system => SYSTEM_RUNTIME_DIR.into(),
            None => default_runtime_dir(self.env, machine),
        };
        let data_dir = match self.pick("data_dir", text_of(&args.place.data_dir), value::path) {
            Some((data_dir, _)) => data_dir,
            None if is_system => SYSTEM_DATA_DIR.into(),
            None => self.default_data_dir(),
        };
        (runtime_dir, data_dir)
    }

    fn default_socket(&mut self, runtime_dir: &Path) -> PathBuf {
        let socket = default_socket_in(runtime_dir);
        if let Err(text) = value::fits(socket.clone()) {
            let text = format!("{text}; give a shorter one with --socket");
            self.mistakes.push(Mistake { origin: "the control socket".into(), text });
        }
        socket
    }

    fn default_data_dir(&mut self) -> PathBuf {
        if cfg!(windows)
            && let Some(data) = absolute(self.env, "LOCALAPPDATA")
        {
            return data.join("longshore");
        }
        let below_home = || home(self.env).map(|home| home.join(".local/share"));
        match absolute(self.env, "XDG_DATA_HOME").or_else(below_home) {
            Some(data) => data.join("longshore"),
            None => {
                let missing =
                    if cfg!(windows) { "LOCALAPPDATA is not set" } else { "neither HOME nor XDG_DATA_HOME is set" };
                let text = format!("{missing}; give one with --data-dir");
                self.mistakes.push(Mistake { origin: "the data directory".into(), text });
                PathBuf::new()
            }
        }
    }

    /// The engine, and what says so. `DOCKER_HOST` and `DOCKER_CONTEXT` count as configuration, so a wrong one is never
    /// passed over; which engine `docker context use` happens to have selected does not.
    fn engine(&mut self, args: &ServeArgs, tls_dir: Option<PathBuf>, machine: &Machine<'_>) -> (EngineAddress, String) {
        let before = self.mistakes.len();
        let picked = self.pick("engine", args.place.engine.clone(), address::engine);
        let (written, origin, tls_dir) = match picked {
            Some((written, origin)) => (written, origin, tls_dir),
            None if self.mistakes.len() > before => return (EngineAddress::Unix(PathBuf::new()), String::new()),
            None => match self.dockers_engine() {
                Ok(Some((written, origin))) => (written, origin.to_owned(), tls_dir.or_else(|| self.dockers_tls_dir())),
                Ok(None) => return (default_engine(self.env, machine), "default".into()),
                Err(mistake) => {
                    self.mistakes.push(mistake);
                    return (EngineAddress::Unix(PathBuf::new()), String::new());
                }
            },
        };
        match meant(self.env, written, tls_dir, machine) {
            Ok(address) => (address, origin),
            Err(text) => {
                self.mistakes.push(Mistake { origin: origin.clone(), text });
                (EngineAddress::Unix(PathBuf::new()), origin)
            }
        }
    }

    /// What Docker's own variables name.
    fn dockers_engine(&self) -> Result<Option<(Written, &'static str)>, Mistake> {
        let set = |name: &str| self.env.get(name).filter(|text| !text.is_empty());
        if let Some(text) = set("DOCKER_HOST") {
            let origin = "DOCKER_HOST";
            let written = address::engine(text).map_err(|text| Mistake { origin: origin.into(), text })?;
            return Ok(Some((written, origin)));
        }
        let context = set("DOCKER_CONTEXT").filter(|name| *name != "default");
        Ok(context.map(|name| (Written::Context(name.clone()), "DOCKER_CONTEXT")))
    }

    /// Where Docker's own variables have it find certificates, if they ask for any.
    fn dockers_tls_dir(&self) -> Option<PathBuf> {
        self.env.get("DOCKER_TLS_VERIFY").filter(|text| !text.is_empty())?;
        absolute(self.env, "DOCKER_CERT_PATH").or_else(|| docker_config(|name| absolute(self.env, name)))
    }
}

/// What an address means, with these certificates; a context brings its own.
fn meant(
    env: &BTreeMap<String, String>,
    written: Written,
    tls_dir: Option<PathBuf>,
    machine: &Machine<'_>,
) -> Result<EngineAddress, String> {
    let Written::Context(name) = written else { return written.meant(tls_dir) };
    let config = docker_config(|name| absolute(env, name))
        .ok_or("neither the home directory nor DOCKER_CONFIG is set, so there are no docker contexts")?;
    let Context { host, tls_dir: own } = (machine.context)(&config, &name)?;
    let meant = address::engine(&host).and_then(|written| written.meant(tls_dir.or(own)));
    meant.map_err(|why| format!("the docker context {name:?}: {why}"))
}

/// The user's own directory.
pub(super) fn home(env: &BTreeMap<String, String>) -> Option<PathBuf> {
    absolute(env, HOME)
}

/// The first of the usual sockets that is there.
fn default_engine(env: &BTreeMap<String, String>, machine: &Machine<'_>) -> EngineAddress {
    if cfg!(windows) {
        return EngineAddress::Pipe(r"\\.\pipe\docker_engine".into());
    }
    let usual = Path::new("/var/run/docker.sock");
    let runtime = absolute(env, "XDG_RUNTIME_DIR");
    let own = runtime.iter().flat_map(|dir| [dir.join("docker.sock"), dir.join("podman/podman.sock")]);
    let root = (machine.uid == 0).then(|| PathBuf::from("/run/podman/podman.sock"));
    let found = std::iter::once(usual.to_owned()).chain(own).chain(root).find(|path| (machine.exists)(path));
    EngineAddress::Unix(found.unwrap_or_else(|| usual.to_owned()))
}

/// What an argument says; bytes that are no UTF-8 are refused later.
fn text_of(path: &Option<PathBuf>) -> Option<String> {
    path.as_ref().map(|path| path.to_string_lossy().into_owned())
}

/// The argument and the variable that stand for a key of the file.
fn names(key: &str) -> (String, String) {
    let key = match key {
        "log.filter" => "log",
        "system.enabled" => "system",
        key => key,
    };
    let (dashed, upper) = (key.replace(['_', '.'], "-"), key.replace('.', "_").to_uppercase());
    (format!("--{dashed}"), format!("LONGSHORE_{upper}"))
}

fn unknown_variables(env: &BTreeMap<String, String>) -> Vec<Mistake> {
    env.keys()
        .filter(|name| name.starts_with("LONGSHORE_"))
        .filter(|name| !VARIABLES.contains(&name.as_str()) && !HANDED_OUT.contains(&name.as_str()))
        .map(|name| Mistake {
            origin: name.clone(),
            text: format!("unknown variable{}", value::suggestion(name, VARIABLES)),
        })
        .collect()
}

/// A directory out of a variable. The XDG rules say to ignore what is empty or relative.
pub(super) fn absolute(env: &BTreeMap<String, String>, name: &str) -> Option<PathBuf> {
    env.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Where the control socket is when nothing else is said.
pub(super) fn default_socket_in(runtime_dir: &Path) -> PathBuf {
    if cfg!(windows) { PathBuf::from(r"\\.\pipe\longshore") } else { runtime_dir.join(SOCKET_NAME) }
}

pub(super) fn default_runtime_dir(env: &BTreeMap<String, String>, machine: &Machine<'_>) -> PathBuf {
    if let Some(dir) = absolute(env, "XDG_RUNTIME_DIR") {
        return dir.join("longshore");
    }
    if cfg!(windows) {
        return machine.temp_dir.join("longshore");
    }
    if machine.uid == 0 {
        return PathBuf::from(SYSTEM_RUNTIME_DIR);
    }
    let user = PathBuf::from(format!("/run/user/{}", machine.uid));
    if (machine.exists)(&user) {
        return user.join("longshore");
    }
    machine.temp_dir.join(format!("longshore-{}", machine.uid))
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
