//! Requests that make something, and what becomes of their bodies.
//!
//! The engine matches the keys of a body without regard to case, takes them twice, and decodes paths: so do we. What goes
//! on to it is written anew, with one set of labels.

use std::collections::HashSet;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use super::head::{Refusal, Request};
use crate::model::{extension::ResourceKind, labels::OURS};

/// What a create is marked with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Our own labels; no caller sets or keeps one of these.
    pub own: Vec<(String, String)>,
    /// Labels for where the caller sets none of that name.
    pub defaults: Vec<(String, String)>,
}

/// A create, as far as it must be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// What it makes.
    pub kind: ResourceKind,
    /// Names of the volumes that a container is to have, which are made where there are none.
    pub volumes: Vec<String>,
    /// Whether a container is to have the volumes of other containers.
    pub borrows: bool,
}

/// The body of a create, taken apart at its top.
#[derive(Debug)]
pub(super) struct Body {
    fields: Vec<(String, Box<RawValue>)>,
}

/// What a request makes, if it is a create.
///
/// # Errors
///
/// Its path cannot be read.
pub(super) fn kind(request: &Request) -> Result<Option<ResourceKind>, Refusal> {
    if request.method != "POST" {
        return Ok(None);
    }
    let path = request.path()?;
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    Ok(match parts[..] {
        [.., b"containers", b"create"] => Some(ResourceKind::Container),
        [.., b"networks", b"create"] => Some(ResourceKind::Network),
        [.., b"volumes", b"create"] => Some(ResourceKind::Volume),
        _ => None,
    })
}

impl Body {
    /// Reads a body; an empty one is an empty object.
    ///
    /// # Errors
    ///
    /// It is no JSON object.
    pub(super) fn parse(body: &[u8]) -> Result<Body, Refusal> {
        if body.trim_ascii().is_empty() {
            return Ok(Body { fields: vec![] });
        }
        let fields = serde_json::from_slice::<Fields>(body);
        fields.map(|Fields(fields)| Body { fields }).map_err(|_| Refusal("the body of a create must be a JSON object"))
    }

    /// What the create amounts to.
    pub(super) fn create(&self, kind: ResourceKind) -> Create {
        let mut create = Create { kind, volumes: vec![], borrows: false };
        if kind == ResourceKind::Container {
            for (_, host) in self.fields.iter().filter(|(key, _)| is_key(key, "HostConfig")) {
                // What cannot be read here the engine refuses as well.
                if let Ok(Fields(fields)) = serde_json::from_str::<Fields>(host.get()) {
                    fields.iter().for_each(|(key, value)| create.note(key, value));
                }
            }
            let mut seen = HashSet::new();
            create.volumes.retain(|volume| seen.insert(volume.clone()));
        }
        create
    }

    /// The body with the stamp on it.
    ///
    /// # Errors
    ///
    /// Its labels are not what labels are.
    pub(super) fn stamped(&self, stamp: &Stamp) -> Result<Vec<u8>, Refusal> {
        let mut labels: Map<String, Value> = Map::new();
        for (_, value) in self.fields.iter().filter(|(key, _)| is_key(key, "Labels")) {
            match serde_json::from_str::<Value>(value.get()) {
                // To the engine, a second set adds to the first and `null` takes it away.
                Ok(Value::Null) => labels.clear(),
                Ok(Value::Object(more)) if more.values().all(|value| value.is_string() || value.is_null()) => {
                    labels.extend(more.into_iter().map(|(name, value)| match value {
                        Value::Null => (name, Value::String(String::new())),
                        value => (name, value),
                    }));
                }
                _ => return Err(Refusal("the labels of a create must be an object of strings")),
            }
        }
        labels.retain(|name, _| !name.starts_with(OURS));
        for (name, value) in &stamp.defaults {
            labels.entry(name.clone()).or_insert_with(|| Value::String(value.clone()));
        }
        labels.extend(stamp.own.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))));
        let mut out = String::from("{\"Labels\":");
        out.push_str(&Value::Object(labels).to_string());
        for (key, value) in self.fields.iter().filter(|(key, _)| !is_key(key, "Labels")) {
            out.push(',');
            out.push_str(&Value::String(key.clone()).to_string());
            out.push(':');
            out.push_str(value.get());
        }
        out.push('}');
        Ok(out.into_bytes())
    }
}

impl Create {
    /// Takes note of one field of a `HostConfig`.
    fn note(&mut self, key: &str, value: &RawValue) {
        let Ok(value) = serde_json::from_str::<Value>(value.get()) else { return };
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if is_key(key, "Binds") {
            let sources = items.iter().filter_map(|bind| bind.as_str()?.split_once(':')).map(|(source, _)| source);
            self.volumes.extend(sources.filter(|source| !source.starts_with('/')).map(ToOwned::to_owned));
        } else if is_key(key, "Mounts") {
            let field = |mount: &Value, name| {
                let fields = mount.as_object().into_iter().flatten();
                fields
                    .filter(|(key, _)| is_key(key, name))
                    .filter_map(|(_, value)| value.as_str())
                    .next_back()
                    .map(ToOwned::to_owned)
            };
            let volumes = items.iter().filter(|mount| field(mount, "Type").as_deref() == Some("volume"));
            self.volumes.extend(volumes.filter_map(|mount| field(mount, "Source")).filter(|name| !name.is_empty()));
        } else if is_key(key, "VolumesFrom") {
            self.borrows |= !items.is_empty();
        }
    }
}

/// Whether the engine takes `key` for its field `name`: letters of either case are one, and two letters beyond ASCII are
/// the same as ones in it.
fn is_key(key: &str, name: &str) -> bool {
    let plain = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(plain).eq(name.chars().map(plain))
}

/// The fields of a JSON object in their order, doubles kept.
struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn stamp() -> Stamp {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Stamp { own: vec![pair("dev.longshore.extension", "a/b")], defaults: vec![pair("desktop", "true")] }
    }

    fn stamped(body: &str) -> Value {
        let stamped = Body::parse(body.as_bytes()).unwrap().stamped(&stamp()).unwrap();
        serde_json::from_slice(&stamped).unwrap()
    }

    fn kind_of(method: &str, target: &str) -> Option<ResourceKind> {
        kind(&Request::parse(format!("{method} {target} HTTP/1.1\r\n\r\n").as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn creates_are_known_however_their_path_is_spelled() {
        for target in [
            "/containers/create",
            "/v1.41/containers/create?name=x",
            "/v1.41/containers/%63reate",
            "//containers//create",
            "/x/../containers/./create/",
            "/v4.0.0/libpod/containers/create",
        ] {
            assert_eq!(kind_of("POST", target), Some(ResourceKind::Container), "{target}");
        }
        assert_eq!(kind_of("POST", "/v1.41/networks/create"), Some(ResourceKind::Network));
        assert_eq!(kind_of("POST", "/volumes/create"), Some(ResourceKind::Volume));
        for target in ["/images/create", "/containers/create/start", "/containers/x/rename?name=create", "/containers"]
        {
            assert_eq!(kind_of("POST", target), None, "{target}");
        }
        assert_eq!(kind_of("GET", "/containers/create"), None);
    }

    #[test]
    fn the_stamp_wins_and_the_rest_stays() {
        let body = r#"{"Image":"x","labels":{"a":"1","dev.longshore.extension":"c/d"},"LABELS":{"desktop":"false"},
                       "\u004cabel\u017f":{"dev.longshore.nonce":"n","b":null},"HostConfig":{"Big":18446744073709551617}}"#;
        assert_eq!(
            stamped(body)["Labels"],
            json!({"a": "1", "desktop": "false", "b": "", "dev.longshore.extension": "a/b"})
        );
        let text = Body::parse(body.as_bytes()).unwrap().stamped(&stamp()).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(r#""Image":"x","HostConfig":{"Big":18446744073709551617}"#), "{text}");
        assert_eq!(text.matches("abel").count(), 1, "{text}");
        for empty in ["", " \r\n", "{}", r#"{"Labels":{"a":"b"},"labels":null}"#] {
            assert_eq!(stamped(empty)["Labels"], json!({"desktop": "true", "dev.longshore.extension": "a/b"}));
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["[]", "null", "{", "{}{}", "\"x\"", "{\"a\":1,}", "\u{feff}{}"] {
            assert!(Body::parse(body.as_bytes()).is_err(), "{body:?}");
        }
        assert!(Body::parse(b"{\"\xff\":1}").is_err());
        for labels in ["[]", "1", "{\"a\":1}"] {
            let body = Body::parse(format!("{{\"Labels\":{labels}}}").as_bytes()).unwrap();
            assert!(body.stamped(&stamp()).is_err(), "{labels}");
        }
    }

    #[test]
    fn volumes_that_it_makes_on_the_way_are_known() {
        let body = r#"{"HostConfig":{"binds":["data:/data","/host:/x:ro","data:/again"],
            "Mounts":[{"type":"volume","Source":"more"},{"Type":"bind","Source":"/x"},{"Type":"volume"}]},
            "hostconfig":{"VolumesFrom":["other"]}}"#;
        let create = Body::parse(body.as_bytes()).unwrap().create(ResourceKind::Container);
        let volumes = vec!["data".to_owned(), "more".to_owned()];
        assert_eq!(create, Create { kind: ResourceKind::Container, volumes, borrows: true });
    }

    proptest! {
        #[test]
        fn no_caller_keeps_a_label_of_ours(
            keys in prop::collection::vec("[LlaAbBeEſsS]{6}|Labels|labelſ", 0..4),
            names in prop::collection::vec("(dev\\.longshore\\.)?[a-c]", 4),
        ) {
            let fields = keys.iter().zip(&names);
            let fields: Vec<String> = fields.map(|(key, name)| format!("\"{key}\":{{\"{name}\":\"forged\"}}")).collect();
            let labels = &stamped(&format!("{{{}}}", fields.join(",")))["Labels"];
            for (name, value) in labels.as_object().unwrap() {
                prop_assert!(!name.starts_with(OURS) || value == "a/b", "{} {}", name, value);
            }
        }
    }
}
