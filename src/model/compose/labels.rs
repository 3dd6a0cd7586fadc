//! Labels: those that Docker Desktop puts on (F57, extensions look for them), and ours.

use serde_json::{Map, Value, json};

use super::{
    plan::{Context, is_external},
    text,
};

/// Marks what belongs to an extension, as Docker Desktop does.
pub const DESKTOP_EXTENSION: &str = "com.docker.desktop.extension";
/// The extension's title, as Docker Desktop gives it.
pub const DESKTOP_EXTENSION_NAME: &str = "com.docker.desktop.extension.name";
/// The id of the extension something belongs to.
pub const EXTENSION: &str = "dev.longshore.extension";
/// The generation something was created for.
pub const GENERATION: &str = "dev.longshore.generation";
/// The intent under which something was created.
pub const NONCE: &str = "dev.longshore.nonce";
/// Whose restart policy a container has.
pub const RESTART: &str = "dev.longshore.restart";
/// The value of [`RESTART`] where the author gave no policy and ours stands in.
pub const RESTART_DEFAULT: &str = "default";
/// Where in a container links to its extension's engine gateway lie, one path a line.
pub const LINKS: &str = "dev.longshore.links";
/// Where all our labels begin. What an author puts there is taken off: it would claim to be ours.
const OURS: &str = "dev.longshore.";

/// Labels a service.
pub(super) fn on_service(service: &mut Map<String, Value>, context: &Context) {
    let mut labels = cleaned(service.remove("labels"));
    labels.insert(DESKTOP_EXTENSION.into(), json!("true"));
    labels.insert(DESKTOP_EXTENSION_NAME.into(), text::escaped(&context.title));
    labels.extend(of_generation(context));
    service.insert("labels".into(), Value::Object(labels));
}

/// Adds one label to a service that has been labelled.
pub(super) fn add(service: &mut Map<String, Value>, name: &str, value: &str) {
    if let Some(labels) = service.get_mut("labels").and_then(Value::as_object_mut) {
        labels.insert(name.into(), text::escaped(value));
    }
}

/// Labels the networks and volumes that Compose creates. Both outlive generations, and newer Compose asks whether to
/// recreate one whose labels changed: they bear only what stays the same.
pub(super) fn on_resources(file: &mut Map<String, Value>, context: &Context) {
    let nonce = || (NONCE.to_owned(), text::escaped(&context.network_nonce));
    for (section, marks) in [("networks", Some(nonce())), ("volumes", None)] {
        for (_, entry) in file.get_mut(section).and_then(Value::as_object_mut).into_iter().flatten() {
            if is_external(entry) {
                continue;
            }
            if entry.is_null() {
                *entry = json!({});
            }
            let Some(entry) = entry.as_object_mut() else { continue };
            let mut labels = cleaned(entry.remove("labels"));
            labels.insert(EXTENSION.into(), text::escaped(&context.extension));
            labels.extend(marks.clone());
            entry.insert("labels".into(), Value::Object(labels));
        }
    }
}

/// Whether a planned file has services in whose containers links must be laid before they start.
pub fn has_links(file: &Value) -> bool {
    let services = file.get("services").and_then(Value::as_object);
    services.into_iter().flatten().any(|(_, service)| service["labels"].get(LINKS).is_some())
}

fn of_generation(context: &Context) -> Map<String, Value> {
    Map::from_iter([
        (EXTENSION.into(), text::escaped(&context.extension)),
        (GENERATION.into(), json!(context.generation.to_string())),
        (NONCE.into(), text::escaped(&context.nonce)),
    ])
}

/// The author's labels as a mapping, without those that claim to be ours.
fn cleaned(labels: Option<Value>) -> Map<String, Value> {
    let mut labels = match labels {
        Some(Value::Object(labels)) => labels,
        Some(Value::Array(list)) => list
            .iter()
            .filter_map(Value::as_str)
            .map(|label| label.split_once('=').unwrap_or((label, "")))
            .map(|(key, value)| (key.to_owned(), json!(value)))
            .collect(),
        _ => Map::new(),
    };
    labels.retain(|key, _| !key.starts_with(OURS));
    labels
}
