//! Grants: what an extension may do, and what it needs.

use std::{fmt, str::FromStr};

use super::error::{Error, Reason, Result};

/// One permission (design section 8).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grant {
    /// `engine.read`: list and inspect everything on the engine.
    EngineRead,
    /// `engine.full`: anything on the engine. Covers every `engine.bind`.
    EngineFull,
    /// `engine.bind:<path>`: mount that host path, and what lies below it.
    EngineBind(String),
    /// `host.exec:any`: run any program on the host.
    HostExecAny,
    /// `host.exec:<name>`: run that program on the host.
    HostExec(String),
    /// `backend.privileged`: privileged containers, host namespaces, devices, added capabilities.
    BackendPrivileged,
    /// `env:<NAME>`: that variable of the host in the compose file.
    Env(String),
}

impl Grant {
    /// Whether holding `self` allows `wanted`.
    pub fn covers(&self, wanted: &Grant) -> bool {
        match (self, wanted) {
            (Grant::EngineFull, Grant::EngineBind(_) | Grant::EngineRead) => true,
            (Grant::HostExecAny, Grant::HostExec(_)) => true,
            (Grant::EngineBind(held), Grant::EngineBind(path)) => is_below(path, held),
            _ => self == wanted,
        }
    }

    /// Whether it reaches beyond the user who accepts it: to root on the machine, or to what others have.
    pub fn reaches_others(&self) -> bool {
        match self {
            Grant::EngineRead | Grant::EngineFull | Grant::EngineBind(_) | Grant::BackendPrivileged => true,
            Grant::HostExecAny | Grant::HostExec(_) | Grant::Env(_) => false,
        }
    }

    /// What it lets the extension do, in plain words.
    pub fn summary(&self) -> String {
        match self {
            Grant::EngineRead => {
                "see everything that the container engine has: containers, images, their settings".into()
            }
            Grant::EngineFull => "control the container engine without limits, which amounts to root on it".into(),
            Grant::EngineBind(path) => format!("read and change {path} on this machine"),
            Grant::HostExecAny => "run any program on this machine as you".into(),
            Grant::HostExec(name) => format!("run the program {name} on this machine as you"),
            Grant::BackendPrivileged => {
                "run containers with raised privileges: host namespaces, devices, capabilities".into()
            }
            Grant::Env(name) => format!("see the environment variable {name} of this machine"),
        }
    }
}

/// Whether `path` is `parent` or lies below it; both absolute and without `.` and `..`.
fn is_below(path: &str, parent: &str) -> bool {
    let parent = parent.trim_end_matches('/');
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grant::EngineRead => f.write_str("engine.read"),
            Grant::EngineFull => f.write_str("engine.full"),
            Grant::EngineBind(path) => write!(f, "engine.bind:{path}"),
            Grant::HostExecAny => f.write_str("host.exec:any"),
            Grant::HostExec(name) => write!(f, "host.exec:{name}"),
            Grant::BackendPrivileged => f.write_str("backend.privileged"),
            Grant::Env(name) => write!(f, "env:{name}"),
        }
    }
}

impl FromStr for Grant {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |why: &str| Error::new(Reason::GrantInvalid, text, format!("grant {text:?}: {why}"));
        if text.chars().any(is_unprintable) {
            return Err(refused("holds control characters or marks that change the direction of text"));
        }
        let (name, argument) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        match (name, argument) {
            ("engine.read", None) => Ok(Grant::EngineRead),
            ("engine.full", None) => Ok(Grant::EngineFull),
            ("backend.privileged", None) => Ok(Grant::BackendPrivileged),
            ("host.exec", Some("any")) => Ok(Grant::HostExecAny),
            ("host.exec", Some(program)) if !program.is_empty() => Ok(Grant::HostExec(program.into())),
            ("host.exec", _) => Err(refused("names no program; write host.exec:<name> or host.exec:any")),
            ("engine.bind", Some(path)) if path.starts_with('/') && !path.split('/').any(|p| p == "..") => {
                Ok(Grant::EngineBind(normal_path(path)))
            }
            ("engine.bind", _) => Err(refused("needs an absolute path without `..`; write engine.bind:/path")),
            ("env", Some(variable)) if !variable.is_empty() && !variable.contains('=') => {
                Ok(Grant::Env(variable.into()))
            }
            ("env", _) => Err(refused("names no variable; write env:NAME")),
            _ => Err(refused(
                "no such grant; there are engine.read, engine.full, engine.bind:<path>, host.exec:<name>, host.exec:any, \
                 backend.privileged and env:<NAME>",
            )),
        }
    }
}

/// Whether a character would show a name as something that it is not: people decide by what they read.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The path without empty and `.` components and without a trailing slash.
pub fn normal_path(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

/// One permission that an extension cannot work without, and where the need comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The permission.
    pub grant: Grant,
    /// The place that asks for it, such as `services.web.privileged`.
    pub origin: String,
}

/// The decisions taken about one extension.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decisions {
    /// What it holds.
    pub allow: Vec<Grant>,
    /// What it is denied; wins over `allow`.
    pub deny: Vec<Grant>,
}

impl Decisions {
    /// Whether the extension may do what `wanted` stands for. A denial wins, also one of a part of what is wanted.
    pub fn allows(&self, wanted: &Grant) -> bool {
        // Mounting a directory gives what lies below it as well.
        let holds_denied = |grant: &Grant| matches!(grant, Grant::EngineBind(_)) && wanted.covers(grant);
        let denied = self.deny.iter().any(|grant| grant.covers(wanted) || holds_denied(grant));
        !denied && self.allow.iter().any(|grant| grant.covers(wanted))
    }

    /// The needs that are not met.
    pub fn missing(&self, needs: &[Need]) -> Vec<Need> {
        needs.iter().filter(|need| !self.allows(&need.grant)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(text: &str) -> Grant {
        text.parse().unwrap()
    }

    #[test]
    fn names_survive_a_round_trip() {
        for name in
            ["engine.read", "engine.full", "engine.bind:/var/lib", "host.exec:any", "host.exec:kubectl", "env:HOME"]
        {
            assert_eq!(grant(name).to_string(), name);
        }
        for wrong in ["", "engine", "engine.bind:", "engine.bind:x", "engine.bind:/a/../b", "host.exec:", "env:"] {
            assert_eq!(wrong.parse::<Grant>().unwrap_err().reason(), Reason::GrantInvalid, "{wrong:?}");
        }
    }

    #[test]
    fn a_denial_wins() {
        let decisions =
            Decisions { allow: vec![grant("host.exec:any"), grant("engine.full")], deny: vec![grant("host.exec:rm")] };
        assert!(decisions.allows(&grant("host.exec:ls")));
        assert!(!decisions.allows(&grant("host.exec:rm")));
        assert!(decisions.allows(&grant("engine.bind:/etc")));
        let part = Decisions { allow: vec![grant("engine.bind:/srv")], deny: vec![grant("engine.bind:/srv/secret")] };
        assert!(part.allows(&grant("engine.bind:/srv/open")));
        assert!(!part.allows(&grant("engine.bind:/srv/secret/key")));
        assert!(!part.allows(&grant("engine.bind:/srv")), "it holds what is denied");
    }

    #[test]
    fn a_bind_covers_what_lies_below_it_only() {
        let held = grant("engine.bind:/var/lib");
        assert!(held.covers(&grant("engine.bind:/var/lib/docker")));
        assert!(!held.covers(&grant("engine.bind:/var/library")));
        assert!(grant("engine.bind:/").covers(&grant("engine.bind:/etc")));
    }
}
