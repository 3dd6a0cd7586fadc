//! What every service has of the broker: directories where the engine shares them, and volumes in their place where not.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{
    binds::tmpfs_targets,
    paths::{absolute, below, comparable},
    plan::{Context, Findings},
    text,
};
use crate::model::mounts::{CONTAINER_DIR, DOORS_BYTES, GUEST_DIR, Mounts, SHIM_DIR};

/// What the volumes are called in the file.
const GUEST_KEY: &str = "dev.longshore.guest";
const SHIM_KEY: &str = "dev.longshore.shim";
/// Mode of the directory with a tunnel's doors.
const DOORS_MODE: u32 = 0o755;

/// Adds ours to a service's mounts.
pub(super) fn add(
    field: &str,
    mounts: &mut Vec<Value>,
    tmpfs: Option<&Value>,
    context: &Context,
    findings: &mut Findings,
) {
    let targets: HashSet<String> = mounts
        .iter()
        .filter_map(|mount| text::of(mount.get("target")))
        .chain(tmpfs_targets(tmpfs))
        .filter_map(|target| comparable(&target))
        .collect();
    if targets.iter().any(|target| below(target, CONTAINER_DIR).is_some()) {
        findings.problems.push(format!("{field}.volumes: mounts something at {CONTAINER_DIR}, which is the broker's"));
    }
    let guest = guest(&context.mounts);
    if !targets.contains(GUEST_DIR) {
        let mut mount = guest.clone();
        mount["target"] = json!(GUEST_DIR);
        mounts.push(mount);
    } else if !mounts.iter().any(|mount| mount.get("source") == guest.get("source")) {
        findings
            .warnings
            .push(format!("{field}.volumes: mounts something else at {GUEST_DIR}; a socket there cannot be reached"));
    }
    match &context.mounts {
        Mounts::Shared { broker_dir, .. } => {
            let source = text::escaped(&broker_dir.to_string_lossy());
            mounts.push(json!({"type": "bind", "source": source, "target": CONTAINER_DIR, "read_only": true}));
        }
        Mounts::Apart { .. } => {
            let doors = json!({"size": DOORS_BYTES, "mode": DOORS_MODE});
            mounts.push(json!({"type": "tmpfs", "target": CONTAINER_DIR, "tmpfs": doors}));
            let mut shim = volume(SHIM_KEY);
            shim["target"] = json!(SHIM_DIR);
            shim["read_only"] = json!(true);
            mounts.push(shim);
        }
    }
}

/// Names the volumes, which are there before Compose is.
pub(super) fn add_volumes(file: &mut Value, mounts: &Mounts) {
    let Mounts::Apart { guest, shim } = mounts else { return };
    for (key, name) in [(GUEST_KEY, guest), (SHIM_KEY, shim)] {
        file["volumes"][key] = json!({"external": true, "name": text::escaped(name)});
    }
}

/// Directories of the broker that services mount.
pub(super) fn sources(mounts: &Mounts) -> Vec<String> {
    match mounts {
        Mounts::Shared { guest_dir, broker_dir } => {
            [guest_dir, broker_dir].iter().filter_map(|path| path.to_str().and_then(comparable)).collect()
        }
        Mounts::Apart { .. } => Vec::new(),
    }
}

/// Puts ours in the place of a source in Docker Desktop's shared directory, `rest` of which is named. There each
/// extension has a directory in it; here only its own is to be had, and everything else is taken to be a name inside
/// that.
pub(super) fn settle_guest(
    origin: &str,
    mount: &mut Map<String, Value>,
    rest: &str,
    context: &Context,
    findings: &mut Findings,
) {
    let own = context.project.strip_suffix("-desktop-extension").unwrap_or(&context.project);
    let inner = below(rest, own).unwrap_or(rest);
    let target = text::of(mount.get("target")).unwrap_or_default();
    let is_whole = inner.is_empty() || absolute(&target).as_deref() == Some(GUEST_DIR);
    match &context.mounts {
        Mounts::Shared { guest_dir, .. } => {
            let guest = guest_dir.to_string_lossy();
            let source = if is_whole { guest.into_owned() } else { format!("{guest}/{inner}") };
            mount.insert("source".into(), text::escaped(&source));
        }
        Mounts::Apart { .. } if is_whole => {
            mount.remove("bind");
            if let Value::Object(guest) = guest(&context.mounts) {
                mount.extend(guest);
            }
        }
        Mounts::Apart { .. } => {
            let why = format!(
                "{inner} of {GUEST_DIR} cannot be mounted by itself: the engine shares no directory with the broker; mount \
                 the whole at {GUEST_DIR}"
            );
            findings.out_of_reach.push((origin.to_owned(), why));
        }
    }
}

/// Notes what lies beside the compose file where the engine does not see it.
pub(super) fn reach(origin: &str, source: &str, context: &Context, findings: &mut Findings) {
    if matches!(context.mounts, Mounts::Apart { .. }) {
        let shown = source.strip_prefix(&*context.files_dir.to_string_lossy()).unwrap_or(source);
        let why = format!(
            "./{} lies beside the compose file, and the engine shares no directory with the broker; have it in the image \
             of the service, or as the content of a config",
            shown.trim_start_matches('/')
        );
        findings.out_of_reach.push((origin.to_owned(), why));
    }
}

/// A mount of the guest directory, without its target.
fn guest(mounts: &Mounts) -> Value {
    match mounts {
        Mounts::Shared { guest_dir, .. } => {
            json!({"type": "bind", "source": text::escaped(&guest_dir.to_string_lossy())})
        }
        Mounts::Apart { .. } => volume(GUEST_KEY),
    }
}

/// A mount of a volume. What an image has at its place is not copied into it.
fn volume(key: &str) -> Value {
    json!({"type": "volume", "source": key, "volume": {"nocopy": true}})
}
