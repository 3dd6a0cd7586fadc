//! The engine: whether it is there, lets us in, is known to work, and sees the same machine.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use tokio::{net::UnixStream, time::timeout};

use super::{super::reach, BOUND, places::existing};
use crate::{
    config::{Config, EngineAddress, EngineFiles},
    engine::{Engine, Kernels},
    model::checkup::Check,
};

/// The oldest API that was tried.
const OLDEST_API: (u32, u32) = (1, 41);
/// The name of what is said of the engine.
const ENGINE: &str = "engine";
/// The name of what is said of what engine and broker have in common.
const SHARED: &str = "engine's machine";

/// What to do about one that does not run.
const START: &str = "start the engine (sudo systemctl start docker), or name another with --engine or DOCKER_HOST";

/// All that there is to say.
pub(super) async fn checks(config: &Config) -> Vec<Check> {
    let origin = &config.engine_origin;
    // A relay needs a directory to lie in.
    let scratch = match tempfile::tempdir() {
        Ok(scratch) => scratch,
        Err(error) => {
            let found = format!("no directory for temporary files: {error}");
            return vec![Check::problem(ENGINE, found, "mend $TMPDIR or /tmp")];
        }
    };
    let (dockerd, _relay) = match reach(&config.engine, &scratch.path().join("engine.sock")) {
        Ok(reached) => reached,
        Err(error) => return vec![Check::problem(ENGINE, error.message(), "mend what it names")],
    };
    let peer = match &config.engine {
        EngineAddress::Unix(path) => {
            let connected = bounded(UnixStream::connect(path)).await;
            connected.map(|stream| stream.peer_cred().ok().and_then(|peer| peer.pid()))
        }
        _ => Ok(None),
    };
    match peer {
        Ok(peer) => {
            let engine = Engine::new(dockerd, "doctor", "doctor");
            let (about, shared) = tokio::join!(about(&engine, origin), shared(&engine, peer, config));
            if let Some(why) = engine.dockerd().trouble() {
                let found = format!("{} (from {origin}) is not reached: {why}", config.engine);
                return vec![Check::problem(ENGINE, found, how_to_reach(&config.engine))];
            }
            [Some(about), shared].into_iter().flatten().collect()
        }
        Err(error) => vec![away(&config.engine, origin, &error)],
    }
}

/// What may be wrong on the way to an engine that is not at a socket.
fn how_to_reach(engine: &EngineAddress) -> &'static str {
    match engine {
        EngineAddress::Unix(_) | EngineAddress::Pipe(_) | EngineAddress::Tcp { tls_dir: None, .. } => START,
        EngineAddress::Tcp { .. } => "see that it listens there with TLS, and that the certificates are each other's",
        EngineAddress::Ssh(_) => {
            "see that ssh gets there without a question, as you: ssh -o BatchMode=yes HOST docker version"
        }
    }
}

async fn bounded<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(BOUND, work).await.unwrap_or_else(|_| Err(io::Error::from(ErrorKind::TimedOut)))
}

/// Nobody lets us in.
fn away(address: &EngineAddress, origin: &str, error: &io::Error) -> Check {
    let said = format!("{address} (from {origin})");
    let (found, advice) = match (address, error.kind()) {
        (EngineAddress::Unix(_), ErrorKind::NotFound) => {
            let advice = "install Docker Engine and start it, or name another engine with --engine or DOCKER_HOST";
            (format!("there is no socket at {said}"), advice.to_owned())
        }
        (EngineAddress::Unix(path), ErrorKind::PermissionDenied) => {
            (format!("you may not use {said}"), how_to_get_in(path))
        }
        (_, ErrorKind::ConnectionRefused) => (format!("nobody listens on {said}"), START.to_owned()),
        (_, ErrorKind::TimedOut) => (format!("{said} does not accept within {BOUND:?}"), START.to_owned()),
        _ => (format!("{said} cannot be reached: {error}"), START.to_owned()),
    };
    Check::problem(ENGINE, found, advice)
}

/// By the group that the socket is given to.
fn how_to_get_in(socket: &Path) -> String {
    let group = fs::metadata(socket).ok().map(|found| found.gid()).filter(|gid| *gid != 0);
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let name = group.and_then(|gid| group_name(&groups, gid));
    match name {
        Some(name) => format!("add yourself to the group {name}: sudo usermod -aG {name} $USER; then log in again"),
        None => "give its socket to a group that you are in, or run a rootless engine of your own".to_owned(),
    }
}

/// The name of a group, as group(5) has it.
fn group_name(groups: &str, gid: u32) -> Option<&str> {
    let mut lines = groups.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then_some(name)
    })
}

/// Whether it answers, and what it is.
async fn about(engine: &Engine, origin: &str) -> Check {
    let url = engine.url();
    let about = match timeout(BOUND, engine.about()).await {
        Ok(Ok(about)) => about,
        Ok(Err(error)) => return Check::problem(ENGINE, error.message(), "see what the engine's own log says"),
        Err(_) => {
            let found = format!("{url} (from {origin}) accepts, and says nothing of itself within {BOUND:?}");
            return Check::warning(ENGINE, found, "see whether it answers at all: docker version");
        }
    };
    let found = format!("{} {}, API {}, {url} (from {origin})", about.name, about.version, about.api_version);
    let mut numbers = about.api_version.split('.').map(|number| number.parse().unwrap_or(0));
    match (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= OLDEST_API {
        true => Check::ok(ENGINE, found),
        false => Check::warning(ENGINE, found, "older than any that was tried: use Docker Engine 20.10 or newer"),
    }
}

/// Whether its containers run on this kernel, and see the data directory as it is here; `None` where it does not say.
async fn shared(engine: &Engine, peer: Option<i32>, config: &Config) -> Option<Check> {
    if config.shares_files() == Some(false) {
        return Some(Check::ok(SHARED, "another one: a tunnel leads into its containers".to_owned()));
    }
    let kernels = timeout(BOUND, engine.kernels()).await.ok()?.ok()?;
    if !kernels.are_one() {
        let Kernels { theirs, ours } = kernels;
        let found = format!("it runs on kernel {theirs}, and this is {ours}: in a virtual machine, or elsewhere");
        return Some(match config.engine_files {
            EngineFiles::Shared => Check::problem(SHARED, found, "leave engine_files at auto"),
            _ => Check::ok(SHARED, format!("{found}: a tunnel leads into its containers")),
        });
    }
    let place = existing(&config.data_dir);
    let shown = place.display();
    let seen = peer.filter(|pid| *pid != 0).map(|pid| {
        let there = format!("/proc/{pid}/root{shown}");
        fs::metadata(there).map(|found| (found.dev(), found.ino()))
    });
    let here = fs::metadata(place).map(|found| (found.dev(), found.ino())).ok();
    Some(match seen {
        Some(Ok(seen)) if Some(seen) == here => Check::ok(SHARED, format!("this one; it sees {shown} as it is here")),
        Some(Err(error)) if error.kind() == ErrorKind::PermissionDenied => {
            Check::ok(SHARED, format!("this kernel; whether it sees {shown} cannot be told from here"))
        }
        Some(_) => {
            let found = format!("this kernel, and it does not see {shown} as it is here");
            Check::problem(SHARED, found, "have the data directory in a place that both see under the same path")
        }
        None => Check::ok(SHARED, "this kernel; its process cannot be seen from here".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_number() {
        let groups = "root:x:0:\nbroken\ndocker:x:999:me,you\n";
        assert_eq!(group_name(groups, 999), Some("docker"));
        assert_eq!(group_name(groups, 7), None);
    }
}
