//! Which fields of a service need a grant (mounts are in `binds`).

use serde_json::{Map, Value};

use super::{
    binds,
    plan::{Context, Findings, is_external},
    refused, text,
};
use crate::model::grant::Grant;

/// Capabilities that both Docker and Podman give to every container; to name them again raises nothing. Six of the real
/// extensions add DAC_OVERRIDE and FOWNER.
const DEFAULT_CAPABILITIES: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Fields that name a namespace to be in.
const NAMESPACES: [&str; 6] = ["network_mode", "pid", "ipc", "uts", "userns_mode", "cgroup"];
/// Log drivers that keep the log on this machine. With any other the engine, which is root, sends to wherever it is told.
const LOCAL_LOGS: [&str; 5] = ["", "none", "local", "json-file", "journald"];
/// Has the engine use a bridge that may be there for others: virtual machines, the network the host is in.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// Fields that need `backend.privileged` as soon as they hold anything.
const RAISING: [&str; 4] = ["devices", "device_cgroup_rules", "cgroup_parent", "gpus"];

/// Records what a service needs beside its mounts.
pub(super) fn of_service(field: &str, service: &Map<String, Value>, context: &Context, findings: &mut Findings) {
    if service.get("privileged").is_some_and(is_true) {
        findings.need(Grant::BackendPrivileged, format!("{field}.privileged"));
    }
    for key in RAISING {
        if service.get(key).is_some_and(is_something) {
            findings.need(Grant::BackendPrivileged, format!("{field}.{key}"));
        }
    }
    for key in NAMESPACES {
        match text::of(service.get(key)) {
            Some(mode) if mode == "host" => findings.need(Grant::BackendPrivileged, format!("{field}.{key}")),
            Some(mode) if mode.starts_with("container:") => findings.need(Grant::EngineFull, format!("{field}.{key}")),
            Some(mode) if key == "network_mode" && !is_own_network(&mode) => {
                findings.need(Grant::EngineFull, format!("{field}.{key}"));
            }
            _ => {}
        }
    }
    if strings(service.get("cap_add")).any(|name| raises(&name)) {
        findings.need(Grant::BackendPrivileged, format!("{field}.cap_add"));
    }
    if service.get("external_links").is_some_and(is_something) {
        // A link tells the variables of the container it leads to.
        findings.need(Grant::EngineFull, format!("{field}.external_links"));
    }
    if strings(service.get("volumes_from")).any(|from| from.starts_with("container:")) {
        findings.need(Grant::EngineFull, format!("{field}.volumes_from"));
    }
    let driver = service.get("logging").and_then(|logging| text::of(logging.get("driver"))).unwrap_or_default();
    if !LOCAL_LOGS.contains(&driver.as_str()) {
        findings.need(Grant::EngineFull, format!("{field}.logging.driver"));
    }
    if text::of(service.get("runtime")).is_some_and(|runtime| !runtime.is_empty()) {
        findings.need(Grant::BackendPrivileged, format!("{field}.runtime"));
    }
    of_security_options(field, service, context, findings);
    of_reservations(field, service, findings);
    for key in ["post_start", "pre_stop"] {
        let hooks = service.get(key).and_then(Value::as_array);
        if hooks.into_iter().flatten().any(|hook| hook.get("privileged").is_some_and(is_true)) {
            findings.need(Grant::BackendPrivileged, format!("{field}.{key}"));
        }
    }
}

/// Records what the networks need: the host's own stack, or a place in the network the host is in.
pub(super) fn of_networks(file: &Map<String, Value>, findings: &mut Findings) {
    for (key, entry) in file.get("networks").and_then(Value::as_object).into_iter().flatten() {
        let driver = text::of(entry.get("driver")).unwrap_or_default();
        let hosts_own = is_external(entry) && text::of(entry.get("name")).as_deref() == Some("host");
        if hosts_own || matches!(driver.as_str(), "host" | "macvlan" | "ipvlan") {
            findings.need(Grant::BackendPrivileged, format!("networks.{key}"));
        } else if is_external(entry) {
            // Somebody else's containers are in it.
            findings.need(Grant::EngineFull, format!("networks.{key}.external"));
        } else if !matches!(driver.as_str(), "" | "default" | "bridge" | "none" | "null") {
            findings.need(Grant::EngineFull, format!("networks.{key}.driver"));
        }
        if entry.get("driver_opts").and_then(|options| options.get(BRIDGE_NAME)).is_some() {
            findings.need(Grant::BackendPrivileged, format!("networks.{key}.driver_opts"));
        }
    }
}

/// Whether a network mode leads to nobody else's containers.
fn is_own_network(mode: &str) -> bool {
    matches!(mode, "" | "none" | "bridge" | "default" | "host") || mode.starts_with("service:")
}

fn of_security_options(field: &str, service: &Map<String, Value>, context: &Context, findings: &mut Findings) {
    for (at, option) in strings(service.get("security_opt")).enumerate() {
        let origin = format!("{field}.security_opt[{at}]");
        let outside = refused::seccomp_file(&option)
            .filter(|profile| !binds::is_inside(profile, &context.files_dir))
            .and_then(refused::outside);
        if let Some(why) = outside {
            findings.problems.push(format!("{origin}: {why}"));
        } else if loosens(&option) {
            findings.need(Grant::BackendPrivileged, origin);
        }
    }
}

/// Whether a security option may take something off. Only those that are known to tighten do not.
fn loosens(option: &str) -> bool {
    let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
    match name {
        "no-new-privileges" => false,
        "seccomp" => value != "builtin",
        "apparmor" => value != "docker-default",
        "label" => !value.starts_with("level:"),
        _ => true,
    }
}

fn of_reservations(field: &str, service: &Map<String, Value>, findings: &mut Findings) {
    let devices = service.get("deploy").and_then(|deploy| deploy.get("resources")?.get("reservations")?.get("devices"));
    if devices.is_some_and(is_something) {
        findings.need(Grant::BackendPrivileged, format!("{field}.deploy.resources.reservations.devices"));
    }
}

fn raises(capability: &str) -> bool {
    let name = capability.to_ascii_uppercase();
    !DEFAULT_CAPABILITIES.contains(&name.strip_prefix("CAP_").unwrap_or(&name))
}

fn strings(list: Option<&Value>) -> impl Iterator<Item = String> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(|item| text::of(Some(item)))
}

/// Compose also writes booleans as text in some versions.
pub(super) fn is_true(value: &Value) -> bool {
    *value == Value::Bool(true) || value.as_str() == Some("true")
}

fn is_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}
