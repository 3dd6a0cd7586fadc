//! What the engine has, as its API lists it, for extensions that may read that.

use std::collections::HashMap;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::{Broker, grants::grants_required};
use crate::model::{
    error::{Error, Reason, Result},
    grant::{Grant, Need},
    reference::ExtensionId,
};

/// Options of a list, as Docker Desktop's extensions send them.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// JSON: an object whose fields are parameters of the engine's API. `filters` may be an object or its JSON as a text.
    /// Empty for none.
    pub json: String,
}

impl Broker {
    /// All containers as the engine's API lists them, unchanged. Options: `all`, `limit`, `size`, `filters`.
    ///
    /// # Errors
    ///
    /// `EXTENSION_NOT_FOUND`, `REQUEST_INVALID`, `GRANTS_REQUIRED` (`engine.read`), `ENGINE_UNAVAILABLE`,
    /// `ENGINE_REFUSED`.
    pub async fn engine_containers_json(&self, id: &ExtensionId, options: &ListOptions) -> Result<Bytes> {
        self.engine_json(id, "/containers/json", options).await
    }

    /// All images as the engine's API lists them, unchanged. Options: `all`, `digests`, `filters`.
    ///
    /// # Errors
    ///
    /// As [`Broker::engine_containers_json`].
    pub async fn engine_images_json(&self, id: &ExtensionId, options: &ListOptions) -> Result<Bytes> {
        self.engine_json(id, "/images/json", options).await
    }

    async fn engine_json(&self, id: &ExtensionId, path: &str, options: &ListOptions) -> Result<Bytes> {
        self.installed(id).await?;
        if !self.decisions(id).await?.allows(&Grant::EngineRead) {
            let need = Need { grant: Grant::EngineRead, origin: path.into() };
            return Err(grants_required(id.as_str(), vec![need]));
        }
        self.engine.json(&format!("{path}{}", query(&options.json)?)).await
    }
}

/// The query that options amount to.
fn query(options: &str) -> Result<String> {
    let invalid = |why: &str| Error::new(Reason::RequestInvalid, "options_json", format!("options_json: {why}"));
    if options.trim().is_empty() {
        return Ok(String::new());
    }
    let options: Map<String, Value> =
        serde_json::from_str(options).map_err(|error| invalid(&format!("must be a JSON object: {error}")))?;
    let mut pairs = Vec::new();
    for (name, value) in options {
        let value = match value {
            Value::Null => continue,
            Value::Bool(set) => u8::from(set).to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => text,
            Value::Object(filters) if name == "filters" => filters_of(filters)?.to_string(),
            _ => return Err(invalid(&format!("{name} must be true, false, a number or a text"))),
        };
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        pairs.push(format!("{}={}", encoded(&name), encoded(&value)));
    }
    Ok(if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) })
}

/// Filters as the engine takes them: a list of texts for each name.
fn filters_of(filters: Map<String, Value>) -> Result<Value> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    let mut all: HashMap<String, Vec<String>> = HashMap::new();
    for (name, value) in filters {
        let values = match &value {
            Value::Array(values) => values.iter().map(text).collect(),
            Value::Object(values) => Some(values.keys().cloned().collect()),
            value => text(value).map(|one| vec![one]),
        };
        let Some(values) = values else {
            let message = format!("options_json: filters.{name} must be a list of texts");
            return Err(Error::new(Reason::RequestInvalid, "options_json", message));
        };
        all.insert(name, values);
    }
    Ok(json!(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_a_query() {
        let decoded = |options: &str| {
            query(options).map(|query| percent_encoding::percent_decode_str(&query).decode_utf8_lossy().into_owned())
        };
        assert_eq!(decoded("").unwrap(), "");
        assert_eq!(decoded("{}").unwrap(), "");
        assert_eq!(decoded(r#"{"all": true, "limit": 3, "size": null}"#).unwrap(), "?all=1&limit=3");
        let filters = r#"?filters={"label":["a=b&c"]}"#;
        for given in [r#"{"label": ["a=b&c"]}"#, r#"{"label": "a=b&c"}"#, r#"{"label": {"a=b&c": true}}"#] {
            assert_eq!(decoded(&format!(r#"{{"filters": {given}}}"#)).unwrap(), filters, "{given}");
        }
        let text = Value::String(r#"{"label":["a=b&c"]}"#.into());
        assert_eq!(decoded(&json!({ "filters": text }).to_string()).unwrap(), filters);
        assert!(!query(r#"{"x y": "a&all=1"}"#).unwrap()[1..].contains(['&', ' ']));
        for wrong in ["[]", "x", r#"{"all": []}"#, r#"{"filters": {"label": [[]]}}"#] {
            assert_eq!(query(wrong).unwrap_err().reason(), Reason::RequestInvalid, "{wrong}");
        }
    }
}
