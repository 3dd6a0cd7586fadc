//! Paths on the engine's host, compared as text: what they lead to is not looked at.

use std::path::Path;

use crate::model::mounts::GUEST_DIR;

/// Where the engine's API is found on Docker Desktop and on plain engines. On plain Linux the `.raw` forms do not exist,
/// and the engine would create a directory there (real-extensions 2.5).
const ENGINE_SOCKETS: [&str; 6] = [
    "/run/docker.sock",
    "/run/docker.sock.raw",
    "/run/docker.raw.sock",
    "/run/host-services/backend.sock",
    "/run/host-services/docker.proxy.sock",
    "/run/podman/podman.sock",
];
/// The same below a user's home directory.
const ENGINE_SOCKETS_AT_HOME: [&str; 3] =
    ["/.docker/desktop/docker.sock", "/.docker/run/docker.sock", "/.rd/docker.sock"];
/// The same below a user's runtime directory, `/run/user/<uid>`.
const ENGINE_SOCKETS_OF_USER: [&str; 2] = ["docker.sock", "podman/podman.sock"];
/// Sockets that give as much as the engine's own.
const OTHER_ENGINES: [&str; 2] = ["/run/containerd/containerd.sock", "/run/crio/crio.sock"];

/// An absolute path without empty, `.` and `..` components; `None` for any other.
pub(super) fn absolute(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

/// The same, `/var/run` being what it is a link to nearly everywhere, `/run`. For comparing only.
pub(super) fn comparable(path: &str) -> Option<String> {
    let path = absolute(path)?;
    Some(match path.strip_prefix("/var/run") {
        Some("") => "/run".into(),
        Some(rest) if rest.starts_with('/') => format!("/run{rest}"),
        _ => path,
    })
}

/// The part of `path` below `parent`; empty where they are the same.
pub(super) fn below<'a>(path: &'a str, parent: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(parent.trim_end_matches('/'))?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

/// Whether `path` is `directory` or below it.
pub(super) fn is_inside(path: &str, directory: &Path) -> bool {
    let directory = directory.to_str().and_then(comparable);
    match (comparable(path), directory) {
        (Some(path), Some(directory)) => below(&path, &directory).is_some(),
        _ => false,
    }
}

/// Whether `path` is a directory that `inner` lies in.
pub(super) fn is_above(path: &str, inner: &Path) -> bool {
    let inner = inner.to_str().and_then(comparable);
    match (comparable(path), inner) {
        (Some(path), Some(inner)) => inner != path && below(&inner, &path).is_some(),
        _ => false,
    }
}

/// Whether `path` is where the engine's API is found, or `real`, where it is.
pub(super) fn is_engine_socket(path: &str, real: Option<&Path>) -> bool {
    let Some(path) = comparable(path) else { return false };
    let real = real.and_then(Path::to_str).and_then(comparable);
    let of_user = below(&path, "/run/user").and_then(|rest| rest.split_once('/')).map(|(_, name)| name);
    ENGINE_SOCKETS.contains(&path.as_str())
        || ENGINE_SOCKETS_AT_HOME.iter().any(|known| path.ends_with(known))
        || of_user.is_some_and(|name| ENGINE_SOCKETS_OF_USER.contains(&name))
        || real.is_some_and(|real| real == path)
}

/// What can be reached through `path` that amounts to the engine itself.
pub(super) fn leads_to_engine(path: &str, real: Option<&Path>) -> bool {
    let sockets = ENGINE_SOCKETS.iter().chain(&OTHER_ENGINES).map(Path::new).chain(real);
    let plain = comparable(path).unwrap_or_default();
    OTHER_ENGINES.contains(&plain.as_str())
        || sockets.into_iter().any(|socket| is_above(path, socket))
        || is_of_process(&plain)
}

/// `/proc/<pid>/…` leads anywhere that process can go.
fn is_of_process(path: &str) -> bool {
    let process = below(path, "/proc").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    process.starts_with(|c: char| c.is_ascii_digit()) || matches!(process, "self" | "thread-self")
}

/// What of Docker Desktop's shared directory a path names: empty for the directory itself.
pub(super) fn in_guest_services(path: &str) -> Option<String> {
    let path = comparable(path)?;
    below(&path, GUEST_DIR).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_compared_by_component() {
        assert_eq!(absolute("/a//./b/../c/"), Some("/a/c".into()));
        assert_eq!(absolute("/../.."), Some("/".into()));
        assert_eq!(absolute("a"), None);
        assert!(is_inside("/var/run/x/y", Path::new("/run/x")));
        assert!(!is_inside("/run/xy", Path::new("/run/x")));
        assert!(is_above("/", Path::new("/run/x")) && !is_above("/run/x", Path::new("/run/x")));
    }

    #[test]
    fn what_leads_to_the_engine_is_known() {
        let real = Some(Path::new("/home/u/docker/engine.sock"));
        for path in [
            "/var/run/docker.sock",
            "//var/run/docker.sock",
            "/var/run/docker.sock.raw",
            "/home/u/docker/engine.sock",
            "/home/u/.docker/desktop/docker.sock",
            "/Users/u/.docker/run/docker.sock",
            "/run/user/1000/docker.sock",
        ] {
            assert!(is_engine_socket(path, real), "{path}");
        }
        for path in ["/run/guest-services/docker.sock", "/run/user/docker.sock", "/x/docker.sock"] {
            assert!(!is_engine_socket(path, real), "{path}");
        }
        for path in [
            "/",
            "/run",
            "/var/run/",
            "/run/containerd",
            "/run/containerd/containerd.sock",
            "/home/u/docker",
            "/proc/1/root/x",
        ] {
            assert!(leads_to_engine(path, real), "{path}");
        }
        for path in ["/var/lib/docker", "/proc", "/proc/cpuinfo", "/home/u/.kube", "/run/udev"] {
            assert!(!leads_to_engine(path, real), "{path}");
        }
    }
}
