//! Mounts: what they need, what they become, and those that the broker adds.

use std::{collections::HashSet, path::Path};

use serde_json::{Map, Value, json};

use super::{
    needs::is_true,
    ours,
    paths::{self, absolute, comparable},
    plan::{Context, Findings, is_external},
    text,
};
use crate::model::{grant::Grant, mounts::GATEWAY_SOCKET};

pub(super) use super::paths::is_inside;

/// Where clients of the engine look for it.
const ENGINE_TARGET: &str = "/var/run/docker.sock";

/// Rewrites the mounts of a service, records what they need, and adds ours. Returns where in the container links to the
/// engine gateway must be laid before it starts.
pub(super) fn of_service(
    field: &str,
    service: &mut Map<String, Value>,
    context: &Context,
    findings: &mut Findings,
) -> Vec<String> {
    let all = match service.remove("volumes") {
        Some(Value::Array(mounts)) => mounts,
        _ => Vec::new(),
    };
    let (mut mounts, mut engines) = (Vec::new(), Vec::new());
    for (at, mut mount) in all.into_iter().enumerate() {
        let origin = format!("{field}.volumes[{at}]");
        match mount.as_object_mut() {
            Some(mount) if is_engine(mount, context) => {
                findings.need(Grant::EngineFull, &origin);
                engines.push((origin, text::of(mount.get("target")).unwrap_or_default()));
                continue;
            }
            Some(mount) => settle(&origin, mount, context, findings),
            None => findings.problems.push(format!("{origin}: was not normalised by compose config")),
        }
        mounts.push(mount);
    }
    if service.remove("use_api_socket").is_some_and(|wanted| is_true(&wanted)) {
        let origin = format!("{field}.use_api_socket");
        findings.need(Grant::EngineFull, &origin);
        engines.push((origin, ENGINE_TARGET.to_owned()));
    }
    ours::add(field, &mut mounts, service.get("tmpfs"), context, findings);
    let mut links = Vec::new();
    for (origin, target) in engines {
        links.extend(lead_to_gateway(&origin, &target, service, &mounts, findings));
    }
    service.insert("volumes".into(), Value::Array(mounts));
    links
}

/// Whether a mount is that of the engine's socket.
fn is_engine(mount: &Map<String, Value>, context: &Context) -> bool {
    let source = text::of(mount.get("source")).unwrap_or_default();
    mount.get("type") == Some(&json!("bind")) && paths::is_engine_socket(&source, context.engine_socket.as_deref())
}

/// Has what would be the engine's socket at `target` be the gateway's: the link that is to be laid there, or, where none
/// can be, the variable that clients of the engine look at.
fn lead_to_gateway(
    origin: &str,
    target: &str,
    service: &mut Map<String, Value>,
    mounts: &[Value],
    findings: &mut Findings,
) -> Option<String> {
    let Some(path) = absolute(target).filter(|path| path != "/" && !path.contains('\n')) else {
        findings.problems.push(format!("{origin}: {target:?} is no place for a socket"));
        return None;
    };
    if comparable(&path).as_deref() == Some(GATEWAY_SOCKET) {
        return None;
    }
    let mounted = mounts.iter().filter_map(|mount| text::of(mount.get("target")));
    let hidden = mounted.chain(tmpfs_targets(service.get("tmpfs"))).any(|mount| is_inside(&path, Path::new(&mount)));
    let read_only = service.get("read_only").is_some_and(is_true);
    if !hidden && !read_only {
        return Some(path);
    }
    let why = if hidden { "something else is mounted over it" } else { "the root file system is read-only" };
    let host = format!("unix://{GATEWAY_SOCKET}");
    let environment = service.entry("environment").or_insert_with(|| json!({}));
    let instead = match environment.as_object_mut() {
        Some(variables) => {
            let own = text::of(variables.get("DOCKER_HOST")).filter(|host| !host.starts_with("unix://"));
            if own.is_none() {
                variables.insert("DOCKER_HOST".into(), json!(host));
            }
            own.is_none()
        }
        None => false,
    };
    findings.warnings.push(format!(
        "{origin}: no link can be laid at {path}, since {why}; {}a program that opens {path} itself does not find it",
        if instead { format!("DOCKER_HOST is {host} instead, and ") } else { String::new() }
    ));
    None
}

/// Records what volumes need that are a place on the host in disguise (`o: bind`, a block device, an overlay).
pub(super) fn of_volumes(file: &Map<String, Value>, context: &Context, findings: &mut Findings) {
    for (key, entry) in file.get("volumes").and_then(Value::as_object).into_iter().flatten() {
        if is_external(entry) {
            // It was there before, so it holds somebody's data.
            findings.need(Grant::EngineFull, format!("volumes.{key}.external"));
            continue;
        }
        if text::of(entry.get("driver")).is_some_and(|driver| !driver.is_empty() && driver != "local") {
            findings.need(Grant::EngineFull, format!("volumes.{key}.driver"));
            continue;
        }
        let Some(options) = entry.get("driver_opts") else { continue };
        let origin = format!("volumes.{key}.driver_opts");
        let kind = text::of(options.get("type")).unwrap_or_default();
        let device = text::of(options.get("device")).unwrap_or_default();
        if is_bind(options) {
            need_path(&origin, &device, context, findings);
        } else if !device.is_empty() && kind != "tmpfs" {
            // The engine mounts it as root of its machine, in a file server's eyes as well.
            findings.need(Grant::BackendPrivileged, origin);
        }
    }
}

/// A source inside a directory that a container may write to can be turned into a link to anything before the next
/// start, and the engine follows links: such a source amounts to all of the host.
pub(super) fn check_nested(file: &Map<String, Value>, context: &Context, findings: &mut Findings) {
    let sources = sources(file);
    let writable: HashSet<&str> = sources.iter().filter(|source| source.writable).map(|s| s.path.as_str()).collect();
    let ours = ours::sources(&context.mounts);
    for source in sources.iter().filter(|source| !ours.contains(&source.path)) {
        let mut parents = source.path.match_indices('/').map(|(at, _)| &source.path[..at.max(1)]);
        if let Some(parent) = parents.find(|parent| *parent != source.path && writable.contains(parent)) {
            findings.need(Grant::EngineFull, &source.origin);
            findings.warnings.push(format!(
                "{}: {} lies in {parent}, which a container can write to; what is mounted may change to anything on the \
                 host",
                source.origin, source.path
            ));
        }
    }
}

/// A place on the host that is mounted.
struct BindSource {
    path: String,
    writable: bool,
    origin: String,
}

/// Every place on the host that the file mounts, after the rewriting.
fn sources(file: &Map<String, Value>) -> Vec<BindSource> {
    let mut sources = Vec::new();
    let mut add = |path: Option<String>, writable: bool, origin: String| {
        let path = path.as_deref().and_then(comparable);
        sources.extend(path.map(|path| BindSource { path, writable, origin }));
    };
    for (name, service) in file.get("services").and_then(Value::as_object).into_iter().flatten() {
        for (at, mount) in service.get("volumes").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let source = text::of(mount.get("source")).filter(|_| mount.get("type") == Some(&json!("bind")));
            add(source, !mount.get("read_only").is_some_and(is_true), format!("services.{name}.volumes[{at}]"));
        }
    }
    for (key, entry) in file.get("volumes").and_then(Value::as_object).into_iter().flatten() {
        if let Some(options) = entry.get("driver_opts").filter(|options| is_bind(options)) {
            add(text::of(options.get("device")), true, format!("volumes.{key}.driver_opts"));
        }
    }
    for section in ["secrets", "configs"] {
        for (key, entry) in file.get(section).and_then(Value::as_object).into_iter().flatten() {
            add(text::of(entry.get("file")), false, format!("{section}.{key}.file"));
        }
    }
    sources
}

fn is_bind(options: &Value) -> bool {
    let flags = text::of(options.get("o")).unwrap_or_default();
    flags.split(',').any(|flag| matches!(flag.trim(), "bind" | "rbind"))
}

/// Rewrites one mount and records what it needs.
fn settle(origin: &str, mount: &mut Map<String, Value>, context: &Context, findings: &mut Findings) {
    let kind = text::of(mount.get("type")).unwrap_or_default();
    if kind == "npipe" {
        findings.need(Grant::EngineFull, origin);
    }
    if kind != "bind" {
        return;
    }
    let source = text::of(mount.get("source")).unwrap_or_default();
    if let Some(rest) = paths::in_guest_services(&source) {
        return ours::settle_guest(origin, mount, &rest, context, findings);
    }
    match is_inside(&source, &context.files_dir) {
        true => ours::reach(origin, &source, context, findings),
        false => need_path(origin, &source, context, findings),
    }
}

/// Records what a place on the host needs.
fn need_path(origin: &str, source: &str, context: &Context, findings: &mut Findings) {
    let Some(path) = absolute(source) else {
        findings.problems.push(format!("{origin}: {source:?} is not an absolute path of this machine"));
        return;
    };
    if context.forbidden_binds.iter().any(|directory| is_inside(&path, directory)) {
        findings.problems.push(format!("{origin}: {path} belongs to the broker; no grant mounts it"));
        return;
    }
    let above = context.forbidden_binds.iter().any(|directory| paths::is_above(&path, directory));
    if above || paths::leads_to_engine(&path, context.engine_socket.as_deref()) {
        let what = if above { "the broker's own data" } else { "the engine itself" };
        findings.warnings.push(format!("{origin}: {path} holds {what}, so mounting it needs engine.full"));
        findings.need(Grant::EngineFull, origin);
    }
    findings.need(Grant::EngineBind(path), origin);
}

pub(super) fn tmpfs_targets(tmpfs: Option<&Value>) -> Vec<String> {
    let one = |value: &Value| text::of(Some(value)).map(|text| text.split(':').next().unwrap_or_default().to_owned());
    match tmpfs {
        Some(Value::Array(all)) => all.iter().filter_map(one).collect(),
        Some(value) => one(value).into_iter().collect(),
        None => Vec::new(),
    }
}
