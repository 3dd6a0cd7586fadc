//! Addresses of engines, as they are written and as they are meant.

use std::{fmt, net::IpAddr, path::PathBuf};

use super::value::{pipe, socket};

/// The port of an engine behind TLS, unless another is given.
const TLS_PORT: u16 = 2376;
/// The same without TLS.
const PLAIN_PORT: u16 = 2375;
/// An engine on a pipe, as it is written.
const PIPE: &str = "npipe:////./pipe/docker_engine";

/// Where the engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineAddress {
    /// A Unix socket.
    Unix(PathBuf),
    /// A named pipe of Windows.
    Pipe(PathBuf),
    /// TCP: without TLS on this machine only.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
        /// Where `ca.pem`, `cert.pem` and `key.pem` are, for TLS.
        tls_dir: Option<PathBuf>,
    },
    /// Behind ssh.
    Ssh(SshAddress),
}

/// An engine's address behind ssh. Nothing in it begins with a dash or means something to a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    /// The machine.
    pub host: String,
    /// Who logs in.
    pub user: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// The engine's socket there.
    pub path: Option<String>,
}

/// An engine's address as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    /// `unix:///path`.
    Unix(PathBuf),
    /// `npipe:////./pipe/name`.
    Pipe(PathBuf),
    /// `tcp://host:port`.
    Tcp(String, Option<u16>),
    /// `ssh://user@host:port/path`.
    Ssh(SshAddress),
    /// `context:name`.
    Context(String),
}

impl Written {
    /// What is meant by an address that is no context, with these certificates.
    pub(super) fn meant(self, tls_dir: Option<PathBuf>) -> Result<EngineAddress, String> {
        match self {
            Written::Unix(path) => Ok(EngineAddress::Unix(path)),
            Written::Pipe(name) => Ok(EngineAddress::Pipe(name)),
            Written::Ssh(address) => Ok(EngineAddress::Ssh(address)),
            Written::Context(name) => Err(format!("a docker context is called {name:?}, and cannot name another")),
            Written::Tcp(host, port) => {
                let usual = if tls_dir.is_some() { TLS_PORT } else { PLAIN_PORT };
                let port = port.unwrap_or(usual);
                if tls_dir.is_none() && !is_loopback(&host) {
                    let shown = EngineAddress::Tcp { host, port, tls_dir: None };
                    return Err(format!(
                        "{shown} without TLS makes everybody on the way there root of its machine; name its certificates \
                         with --engine-tls-dir, or go by ssh://"
                    ));
                }
                Ok(EngineAddress::Tcp { host, port, tls_dir })
            }
        }
    }
}

/// `unix:///path`, or `npipe:////./pipe/name` on Windows, `tcp://host:port`, `ssh://user@host:port/path`, or `context:name`.
pub(super) fn engine(text: &str) -> Result<Written, String> {
    if let Some(name) = text.strip_prefix("context:") {
        return match is_context(name) {
            true => Ok(Written::Context(name.to_owned())),
            false => Err(format!("{text:?}: a docker context has a name of letters, digits and -_.+")),
        };
    }
    match text.split_once("://") {
        Some(("unix", _)) if cfg!(windows) => Err(format!("{text:?}: on Windows an engine is written {PIPE}")),
        Some(("npipe", _)) if !cfg!(windows) => Err(format!("{text:?}: there are named pipes on Windows alone")),
        Some(("npipe", address)) => match pipe(&address.replace('/', r"\")) {
            Ok(name) => Ok(Written::Pipe(name)),
            Err(why) => Err(format!("{why}; an engine is written {PIPE}")),
        },
        Some(("unix", address)) => match socket(address) {
            Ok(path) => Ok(Written::Unix(path)),
            Err(why) => Err(format!("{why}; an engine is written unix:///var/run/docker.sock")),
        },
        Some(("tcp", address)) => match host_and_port(address.trim_end_matches('/')) {
            Some((host, port)) => Ok(Written::Tcp(host, port)),
            None => Err(format!("{text:?}: an engine on TCP is written tcp://127.0.0.1:2375, or tcp://host:2376")),
        },
        Some(("ssh", address)) => match ssh(address) {
            Some(address) => Ok(Written::Ssh(address)),
            None => Err(format!(
                "{text:?}: an engine behind ssh is written ssh://user@host:22, or ssh://user@host/run/docker.sock; of \
                 letters, digits and -_. alone, none of it behind a dash"
            )),
        },
        Some(_) => Err(format!("{text:?}: only unix://, tcp:// and ssh:// engines are supported, and context:NAME")),
        None if text.starts_with('/') => Err(format!("{text:?} is a path; write unix://{text}")),
        None => Err(format!("{text:?} is no engine's address; write one like unix:///var/run/docker.sock")),
    }
}

/// A host, and perhaps a port: `name`, `name:1`, `1.2.3.4`, `[::1]:1`.
fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(text) => {
            let (host, rest) = text.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => {
            let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            is_word(host).then_some((host, rest))?
        }
    };
    let port = match rest.strip_prefix(':') {
        // What is no plain number is a plus sign, or a mistake.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(port.parse().ok().filter(|port| *port > 0)?)
        }
        None if rest.is_empty() => None,
        _ => return None,
    };
    Some((host.to_owned(), port))
}

fn ssh(text: &str) -> Option<SshAddress> {
    let (machine, path) = match text.split_at(text.find('/').unwrap_or(text.len())) {
        (machine, "" | "/") => (machine, None),
        (machine, path) => (machine, Some(path)),
    };
    let (user, machine) = match machine.rsplit_once('@') {
        Some((user, machine)) => (Some(user), machine),
        None => (None, machine),
    };
    let (host, port) = host_and_port(machine)?;
    let is_path = |path: &str| path.bytes().all(|byte| byte == b'/' || is_plain(byte));
    let is_right = user.is_none_or(is_word) && path.is_none_or(is_path);
    is_right.then(|| SshAddress { host, user: user.map(Into::into), port, path: path.map(Into::into) })
}

/// Whether it is one word to a shell, and no option to a program.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && !text.starts_with('-') && text.bytes().all(is_plain)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

/// Whether docker takes it for the name of a context.
fn is_context(name: &str) -> bool {
    let is_legal = |byte: u8| is_plain(byte) || byte == b'+';
    name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) && name.len() <= 255 && name.bytes().all(is_legal)
}

impl EngineAddress {
    /// Whether it names another machine, as far as that can be told: behind ssh always.
    pub fn is_elsewhere(&self) -> bool {
        match self {
            EngineAddress::Unix(_) | EngineAddress::Pipe(_) => false,
            EngineAddress::Tcp { host, .. } => !is_loopback(host),
            EngineAddress::Ssh(_) => true,
        }
    }
}

/// Whether it can be nothing but this machine.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineAddress::Unix(path) => write!(f, "unix://{}", path.display()),
            EngineAddress::Pipe(name) => write!(f, "npipe://{}", name.display().to_string().replace('\\', "/")),
            EngineAddress::Tcp { host, port, .. } => write!(f, "tcp://{}:{port}", bracketed(host)),
            EngineAddress::Ssh(SshAddress { host, user, port, path }) => {
                f.write_str("ssh://")?;
                user.iter().try_for_each(|user| write!(f, "{user}@"))?;
                f.write_str(&bracketed(host))?;
                port.iter().try_for_each(|port| write!(f, ":{port}"))?;
                f.write_str(path.as_deref().unwrap_or_default())
            }
        }
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn meant(text: &str, tls_dir: Option<&str>) -> Result<String, String> {
        engine(text)?.meant(tls_dir.map(Into::into)).map(|address| address.to_string())
    }

    #[test]
    fn addresses_are_read_as_docker_reads_them() {
        for (text, tls_dir, told) in [
            ("unix:///run/x.sock", None, "unix:///run/x.sock"),
            ("tcp://127.0.0.1:2375", None, "tcp://127.0.0.1:2375"),
            ("tcp://localhost:80/", None, "tcp://localhost:80"),
            ("tcp://localhost", None, "tcp://localhost:2375"),
            ("tcp://[::1]:2375", None, "tcp://[::1]:2375"),
            ("tcp://engine.example", Some("/certs"), "tcp://engine.example:2376"),
            ("tcp://1.2.3.4:1", Some("/certs"), "tcp://1.2.3.4:1"),
            ("ssh://there", None, "ssh://there"),
            ("ssh://me@there:22/", None, "ssh://me@there:22"),
            ("ssh://me@[::1]/run/user/7/docker.sock", None, "ssh://me@[::1]/run/user/7/docker.sock"),
        ] {
            assert_eq!(meant(text, tls_dir).as_deref(), Ok(told));
        }
        for (wrong, why) in [
            ("npipe:////./pipe/docker_engine", "on Windows alone"),
            ("tcp://1.2.3.4:2375", "--engine-tls-dir"),
            ("tcp://engine:2375", "--engine-tls-dir"),
            ("tcp://127.0.0.1:0", "tcp://host"),
            ("tcp://127.0.0.1:+1", "tcp://host"),
            ("tcp://127.0.0.1:1/x", "tcp://host"),
            ("tcp://", "tcp://host"),
            ("tcp://-x:1", "tcp://host"),
            ("ssh://-oProxyCommand=x", "ssh://user"),
            ("ssh://-l@there", "ssh://user"),
            ("ssh://me@-there", "ssh://user"),
            ("ssh://me:secret@there", "ssh://user"),
            ("ssh://there/x;y", "ssh://user"),
            ("ssh://there/$(x)", "ssh://user"),
            ("ssh://there/a b", "ssh://user"),
            ("ssh://", "ssh://user"),
            ("http://x", "context:NAME"),
            ("context:", "letters"),
            ("context:../x", "letters"),
            ("/run/x.sock", "unix:///run/x.sock"),
            ("unix://x.sock", "absolute"),
            ("unix://", "absolute"),
            ("docker", "no engine's address"),
        ] {
            assert!(meant(wrong, None).unwrap_err().contains(why), "{wrong}: {:?}", meant(wrong, None));
        }
    }

    proptest! {
        /// Whatever is read is said again in a way that is read the same, and holds nothing for a shell or of an option.
        #[test]
        fn what_is_read_is_plain(text in "(tcp|ssh|unix|context)(://|:)[-a-z@:/.$;\\[\\] 0-9]{0,30}") {
            if let Ok(Written::Ssh(address)) = engine(&text) {
                for word in [Some(&address.host), address.user.as_ref(), address.path.as_ref()].into_iter().flatten() {
                    let is_safe = |char: char| char.is_ascii_alphanumeric() || "-_./:".contains(char);
                    prop_assert!(word.chars().all(is_safe) && !word.starts_with('-'), "{word}");
                }
            }
            let tls_dir = || Some(PathBuf::from("/certs"));
            if let Ok(address) = engine(&text).and_then(|written| written.meant(tls_dir())) {
                let again = engine(&address.to_string()).and_then(|written| written.meant(tls_dir()));
                prop_assert_eq!(again, Ok(address));
            }
        }
    }
}
