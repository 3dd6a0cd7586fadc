//! Text in a normalised compose file, in which `$$` stands for a dollar sign.

use serde_json::Value;

/// The text a value stands for.
pub(super) fn of(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.replace("$$", "$")),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        _ => None,
    }
}

/// The value that stands for a text.
pub(super) fn escaped(text: &str) -> Value {
    Value::String(text.replace('$', "$$"))
}
