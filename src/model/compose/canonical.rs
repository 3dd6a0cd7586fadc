//! Writes the tree that was checked as one line of JSON-like YAML, which is what Compose is given to read.
//!
//! Two YAML readers never agree on everything (line breaks inside comments, merge keys, encodings). If Compose read the
//! author's text itself, a file could show one thing to the checks and another to Compose. So Compose reads only what we
//! write: quoted text, no anchors, no merge keys, no comments.

use std::collections::HashSet;

use super::{
    flaw::Flaw,
    yaml::{MAX_EXPANDED_BYTES, MAX_VISITS, MERGE_KEY, Node, Value},
};

/// Writes the tree, every alias replaced by what it names.
///
/// # Errors
/// Aliases that unfold into more than the bounds of [`super::yaml`], or a merge key whose value is no mapping.
pub(super) fn write(root: &Node) -> Result<String, Flaw> {
    let mut writer = Writer { text: String::new(), visits: 0 };
    writer.node(root)?;
    Ok(writer.text)
}

const TOO_MUCH: &str = "the aliases of this file unfold into too much; use fewer of them";

struct Writer {
    text: String,
    visits: usize,
}

impl Writer {
    fn node(&mut self, node: &Node) -> Result<(), Flaw> {
        self.visits += 1;
        if self.visits > MAX_VISITS || self.text.len() > MAX_EXPANDED_BYTES {
            return Err(Flaw::at("", node.place, TOO_MUCH));
        }
        if let Some(tag) = node.tag {
            self.text.push_str(tag);
            self.text.push(' ');
        }
        match &node.value {
            Value::Scalar { text, plain } => {
                self.scalar(text, *plain);
                Ok(())
            }
            Value::List(items) => self.list(items.iter().map(AsRef::as_ref)),
            Value::Map(pairs) => {
                check_merges(pairs)?;
                let entries = node.entries_within_bounds();
                self.map(&entries.ok_or_else(|| Flaw::at("", node.place, TOO_MUCH))?)
            }
        }
    }

    fn list<'a>(&mut self, items: impl Iterator<Item = &'a Node>) -> Result<(), Flaw> {
        self.text.push('[');
        for (at, item) in items.enumerate() {
            if at > 0 {
                self.text.push(',');
            }
            self.node(item)?;
        }
        self.text.push(']');
        Ok(())
    }

    fn map(&mut self, entries: &[(&str, &Node)]) -> Result<(), Flaw> {
        self.text.push('{');
        for (at, (key, value)) in entries.iter().enumerate() {
            if at > 0 {
                self.text.push(',');
            }
            self.quoted(key);
            self.text.push(':');
            self.text.push(' ');
            self.node(value)?;
        }
        self.text.push('}');
        Ok(())
    }

    fn scalar(&mut self, text: &str, plain: bool) {
        match (plain, text) {
            (true, "") => self.text.push_str("null"),
            (true, text) if may_be_typed(text) => self.text.push_str(text),
            _ => self.quoted(text),
        }
    }

    fn quoted(&mut self, text: &str) {
        self.text.push('"');
        for c in text.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\t' => self.text.push_str("\\t"),
                // What some reader takes for a line break, a mark of byte order, or refuses when bare.
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                    self.text.push_str(&format!("\\u{:04x}", u32::from(c)));
                }
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }
}

/// Whether a text without quotes may be a number, a boolean or nothing. Any other is text and is quoted.
fn may_be_typed(text: &str) -> bool {
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "~" | "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | ".inf" | "-.inf" | "+.inf" | ".nan"
    );
    let digits = text.trim_start_matches(['-', '+', '.']);
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit())
        && text.len() - digits.len() <= 2
        && digits.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-'));
    word || numeric
}

/// Merge keys must name mappings, and other keys must be there once.
fn check_merges<K: AsRef<Node>, V: AsRef<Node>>(pairs: &[(K, V)]) -> Result<(), Flaw> {
    let mut seen = HashSet::new();
    for (key, value) in pairs {
        let (key, value) = (key.as_ref(), value.as_ref());
        let name = key.text().unwrap_or_default();
        if !seen.insert(name) {
            return Err(Flaw::at(name, key.place, "this key is there twice; remove one of them"));
        }
        let is_map = |node: &Node| matches!(node.value, Value::Map(_));
        if name == MERGE_KEY
            && !is_map(value)
            && !(value.text().is_none() && value.items().iter().all(|one| is_map(one)))
        {
            return Err(Flaw::at(name, value.place, "a merge key needs a mapping or a list of mappings"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::yaml, *};

    fn canonical(text: &str) -> String {
        write(&yaml::read(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn scalars_keep_their_meaning() {
        for (text, expected) in [
            ("a: 5000", r#"{"a": 5000}"#),
            ("a: \"5000\"", r#"{"a": "5000"}"#),
            ("a: 22:22", r#"{"a": "22:22"}"#),
            ("a: no", r#"{"a": no}"#),
            ("a: 'no'", r#"{"a": "no"}"#),
            ("a:", r#"{"a": null}"#),
            ("a: 512m", r#"{"a": 512m}"#),
            ("a: 0644", r#"{"a": 0644}"#),
            ("a: -1.5e+3", r#"{"a": -1.5e+3}"#),
            ("a: /x # y", r#"{"a": "/x"}"#),
            ("a: ...x", r#"{"a": "...x"}"#),
            ("a: \"\\x85\\u2028\\U0001F600\"", "{\"a\": \"\\u0085\\u2028\u{1f600}\"}"),
            ("a: |\n  x\n  \"y\"\n", r#"{"a": "x\n\"y\"\n"}"#),
            ("a: !reset null", r#"{"a": !reset null}"#),
            ("a: &x {b: 1}\nc: {<<: *x, b: 2}", r#"{"a": {"b": 1},"c": {"b": 2}}"#),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn a_bomb_of_aliases_does_not_go_off() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for at in 1..30 {
            let row = format!("*a{}, ", at - 1).repeat(9);
            text.push_str(&format!("a{at}: &a{at} [{row}]\n"));
        }
        assert!(write(&yaml::read(text.as_bytes()).unwrap()).unwrap_err().message.contains("unfold"));
    }

    #[test]
    fn duplicates_and_bad_merges_are_refused() {
        for text in ["a: 1\na: 2", "a: {<<: 1}", "a: {<<: [1]}"] {
            assert!(write(&yaml::read(text.as_bytes()).unwrap()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn writing_again_changes_nothing(text in "\\PC{0,60}", value in any::<String>()) {
            let quoted = format!("{{{}: {}}}", serde_json::to_string(&text).unwrap(), serde_json::to_string(&value).unwrap());
            if let Ok(root) = yaml::read(quoted.as_bytes())
                && let Ok(once) = write(&root)
            {
                prop_assert_eq!(write(&yaml::read(once.as_bytes()).unwrap()).unwrap(), once.clone());
            }
        }
    }
}
