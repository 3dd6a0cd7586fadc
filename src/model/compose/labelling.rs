//! Labels in a compose file: those that Docker Desktop puts on (F57, extensions look for them), and ours.

use serde_json::{Map, Value, json};

use super::{
    plan::{Context, is_external},
    text,
};
use crate::model::{
    extension::ResourceKind,
    labels::{DESKTOP_EXTENSION, DESKTOP_EXTENSION_NAME, EXTENSION, GENERATION, LINKS, NONCE, OURS, SIGNATURE},
    signature::Mark,
};

/// Labels a service whose containers have this name, or this and a number.
pub(super) fn on_service(service: &mut Map<String, Value>, name: &str, context: &Context) {
    let mut labels = cleaned(service.remove("labels"));
    labels.insert(DESKTOP_EXTENSION.into(), json!("true"));
    labels.insert(DESKTOP_EXTENSION_NAME.into(), text::escaped(&context.title));
    labels.extend(of_generation(name, context));
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
    let networks = ("networks", ResourceKind::Network, context.network_nonce.as_str());
    for (section, kind, nonce) in [networks, ("volumes", ResourceKind::Volume, "")] {
        for (key, entry) in file.get_mut(section).and_then(Value::as_object_mut).into_iter().flatten() {
            if is_external(entry) {
                continue;
            }
            if entry.is_null() {
                *entry = json!({});
            }
            let Some(entry) = entry.as_object_mut() else { continue };
            let mut labels = cleaned(entry.remove("labels"));
            let name = text::of(entry.get("name")).unwrap_or_else(|| key.clone());
            let mark = Mark { kind, extension: &context.extension, generation: 0, name: &name, nonce };
            labels.insert(EXTENSION.into(), text::escaped(&context.extension));
            labels.insert(SIGNATURE.into(), json!(context.key.sign(&mark)));
            if !nonce.is_empty() {
                labels.insert(NONCE.into(), text::escaped(nonce));
            }
            entry.insert("labels".into(), Value::Object(labels));
        }
    }
}

/// Whether a planned file has services in whose containers links must be laid before they start.
pub fn has_links(file: &Value) -> bool {
    let services = file.get("services").and_then(Value::as_object);
    services.into_iter().flatten().any(|(_, service)| service["labels"].get(LINKS).is_some())
}

fn of_generation(name: &str, context: &Context) -> Map<String, Value> {
    let (kind, generation) = (ResourceKind::Container, context.generation);
    let mark = Mark { kind, extension: &context.extension, generation, name, nonce: &context.nonce };
    Map::from_iter([
        (SIGNATURE.into(), json!(context.key.sign(&mark))),
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
