//! The variables a compose file refers to.

use super::yaml::{Node, Value};

/// One variable of the host that a compose file refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Whether the file says everywhere what to use where it is not set.
    pub has_default: bool,
    /// The field that first refers to it.
    pub field: String,
}

/// The variable that stands for the extension's own image.
pub const PLUGIN_VARIABLE: &str = "DESKTOP_PLUGIN_IMAGE";
/// Variables that are always set for a compose file.
const ALWAYS_SET: [&str; 2] = ["HOME", PLUGIN_VARIABLE];
/// How deep a default may hold another variable.
const MAX_NESTING: usize = 16;
/// How many different variables are kept; a file with more is refused.
pub(super) const MAX_VARIABLES: usize = 1000;

/// Adds the variables in every text of `node`, which is the field `field`.
pub(super) fn gather(node: &Node, field: &str, found: &mut Vec<Variable>) {
    match &node.value {
        Value::Scalar { text, .. } => {
            references(text, 0, &mut |name, has_default| add(found, name, has_default, field));
        }
        Value::List(items) => items.iter().for_each(|item| gather(item, field, found)),
        Value::Map(_) => {
            for (key, value) in node.entries() {
                let inner = if field.is_empty() { key.to_owned() } else { format!("{field}.{key}") };
                // Only the first levels help a reader: services.web.environment.
                let inner = if field.matches('.').count() >= 3 { field } else { inner.as_str() };
                gather(value, inner, found);
            }
        }
    }
}

/// Adds one variable, unless it is always set.
pub(super) fn add(found: &mut Vec<Variable>, name: &str, has_default: bool, field: &str) {
    if ALWAYS_SET.contains(&name) {
        return;
    }
    let full = found.len() > MAX_VARIABLES;
    match found.iter_mut().find(|variable| variable.name == name) {
        Some(known) => known.has_default &= has_default,
        None if full => {}
        None => found.push(Variable { name: name.into(), has_default, field: field.into() }),
    }
}

/// Whether Compose would put the value of a variable into `text`.
pub(super) fn has_reference(text: &str) -> bool {
    let mut any = false;
    references(text, 0, &mut |_, _| any = true);
    any
}

/// Whether `text` is that variable and nothing else, in any spelling.
pub(super) fn is_only(text: &str, variable: &str) -> bool {
    let text = text.trim();
    let mut names = Vec::new();
    references(text, 0, &mut |name, _| names.push(name.to_owned()));
    names.first().is_some_and(|name| name == variable)
        && (text.strip_prefix('$') == Some(variable)
            || (text.starts_with("${") && closing(&text[2..]) == Some(text.len() - 3)))
}

/// Calls `found` with the name of each variable and whether it has a default: `$A`, `${A}`, `${A:-b}`, `${A-b}`,
/// `${A:+b}`, `${A+b}`, `${A:?e}`, `${A?e}`; `$$` stands for a dollar sign.
fn references(text: &str, depth: usize, found: &mut dyn FnMut(&str, bool)) {
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            rest = behind;
        } else if let Some(inner) = rest.strip_prefix('{') {
            let end = closing(inner).unwrap_or(inner.len());
            braced(&inner[..end], depth, found);
            rest = inner.get(end + 1..).unwrap_or_default();
        } else {
            let name = leading_name(rest);
            if !name.is_empty() {
                found(name, false);
            }
            rest = &rest[name.len()..];
        }
    }
}

fn braced(inner: &str, depth: usize, found: &mut dyn FnMut(&str, bool)) {
    let name = leading_name(inner);
    if name.is_empty() {
        return;
    }
    let operation = &inner[name.len()..];
    let operation = operation.strip_prefix(':').unwrap_or(operation);
    found(name, operation.starts_with(['-', '+']));
    if depth < MAX_NESTING
        && let Some(word) = operation.get(1..)
    {
        references(word, depth + 1, found);
    }
}

/// Where the brace closes that was opened right before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1usize;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}

fn leading_name(text: &str) -> &str {
    let end = text.find(|c: char| !is_name(c)).unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) { "" } else { &text[..end] }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &str) -> Vec<(String, bool)> {
        let mut names = Vec::new();
        references(text, 0, &mut |name, default| names.push((name.to_owned(), default)));
        names
    }

    #[test]
    fn every_spelling_is_found() {
        for (text, expected) in [
            ("$A ${B}", vec![("A", false), ("B", false)]),
            ("${APP_DB_PORT:-1521}", vec![("APP_DB_PORT", true)]),
            ("${A-b}${C:+d}${E+f}", vec![("A", true), ("C", true), ("E", true)]),
            ("${A:?needed}${B?needed}", vec![("A", false), ("B", false)]),
            ("${A:-${B:-${C}}}x$D", vec![("A", true), ("B", true), ("C", false), ("D", false)]),
            ("${IMAGE:-ghcr.io/a/b@sha256:12}", vec![("IMAGE", true)]),
            ("$$$$2a$$$$", vec![]),
            ("$$(curl $$X) $$", vec![]),
            ("$$$A", vec![("A", false)]),
            ("cost: 5$ $1 ${} ${1}", vec![]),
            ("${A", vec![("A", false)]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(name, default)| (name.to_owned(), default)).collect();
            assert_eq!(names(text), expected, "{text}");
        }
    }

    #[test]
    fn the_plugin_image_is_known_in_any_spelling() {
        let name = "DESKTOP_PLUGIN_IMAGE";
        for text in ["${DESKTOP_PLUGIN_IMAGE}", "$DESKTOP_PLUGIN_IMAGE", " ${DESKTOP_PLUGIN_IMAGE:-a/b:${T}} "] {
            assert!(is_only(text, name), "{text}");
        }
        for text in [
            "${DESKTOP_PLUGIN_IMAGE}-x",
            "x$DESKTOP_PLUGIN_IMAGE",
            "${A:-${DESKTOP_PLUGIN_IMAGE}}",
            "$$DESKTOP_PLUGIN_IMAGE",
        ] {
            assert!(!is_only(text, name), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[$${}:?+A-C\u{e9} -]{0,80}") {
            names(&text);
            is_only(&text, "A");
        }
    }
}
