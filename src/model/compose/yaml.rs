//! A bounded YAML reader that keeps the author's order and places.
//!
//! The tree shares what anchors name instead of copying it, so a text of a few lines cannot grow in memory; whoever
//! walks the tree counts what it visits against [`MAX_VISITS`].

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    rc::Rc,
};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::flaw::Flaw;

/// Longest text that is read, in bytes. The largest compose file of the real extensions has 24 KiB.
pub const MAX_TEXT_BYTES: usize = 1024 * 1024;
/// Deepest nesting of lists and mappings.
const MAX_DEPTH: usize = 64;
/// How many nodes the tree may have once every alias is replaced by what it names.
pub(super) const MAX_VISITS: usize = 100_000;
/// How many bytes the tree may have once every alias is replaced by what it names.
pub(super) const MAX_EXPANDED_BYTES: usize = 8 * 1024 * 1024;

/// How many bytes are read again because a line was not indented enough.
const MAX_REREAD_BYTES: usize = 64 * 1024 * 1024;
/// How far such a line is indented, in columns: deeper than files are.
const INDENTATION: usize = 200;
/// How many mappings one mapping may take in through merge keys.
pub(super) const MAX_MERGES: usize = 256;
/// The key whose value is merged into the mapping it stands in.
pub(super) const MERGE_KEY: &str = "<<";

/// One value of the file.
#[derive(Debug)]
pub(super) struct Node {
    /// What it is.
    pub(super) value: Value,
    /// `!reset` or `!override`, which are Compose's own, or a core tag such as `!!str`.
    pub(super) tag: Option<&'static str>,
    /// Where it begins.
    pub(super) place: Place,
    /// How many levels lie below it, those that aliases bring included.
    height: usize,
}

/// A place in the text, both counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// The three shapes of YAML.
#[derive(Debug)]
pub(super) enum Value {
    Scalar {
        text: String,
        /// Whether it was written without quotes, and so may be a number, a boolean or nothing.
        plain: bool,
    },
    List(Vec<Rc<Node>>),
    /// In the author's order; merge keys are still in it.
    Map(Vec<(Rc<Node>, Rc<Node>)>),
}

/// Tags that a compose file may use. A tag outside this list could make Compose read another value than we do.
const TAGS: [(&str, &str, &str); 9] = [
    ("!", "reset", "!reset"),
    ("!", "override", "!override"),
    ("tag:yaml.org,2002:", "str", "!!str"),
    ("tag:yaml.org,2002:", "int", "!!int"),
    ("tag:yaml.org,2002:", "float", "!!float"),
    ("tag:yaml.org,2002:", "bool", "!!bool"),
    ("tag:yaml.org,2002:", "null", "!!null"),
    ("tag:yaml.org,2002:", "map", "!!map"),
    ("tag:yaml.org,2002:", "seq", "!!seq"),
];

impl Node {
    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether it is nothing: empty, `~` or `null` without quotes.
    pub(super) fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain: true } => matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"),
            _ => false,
        }
    }

    /// The items of a list; nothing for what is no list.
    pub(super) fn items(&self) -> &[Rc<Node>] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The entries of a mapping, those of merge keys (`<<`) behind its own, each key once, the first one winning.
    /// `None` where more than [`MAX_MERGES`] mappings are merged.
    pub(super) fn entries_within_bounds(&self) -> Option<Vec<(&str, &Node)>> {
        let mut merge = Merge::default();
        merge.gather(self).then_some(merge.found)
    }

    /// The same, of a tree whose bounds were checked (`canonical::write`).
    pub(super) fn entries(&self) -> Vec<(&str, &Node)> {
        self.entries_within_bounds().unwrap_or_default()
    }

    /// The value of a key, merge keys included.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().into_iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }
}

/// The entries of a mapping while those of merge keys come in.
#[derive(Default)]
struct Merge<'a> {
    found: Vec<(&'a str, &'a Node)>,
    keys: HashSet<&'a str>,
    /// Mappings that were merged, by address: merging one twice adds nothing.
    merged: HashSet<*const Node>,
}

impl<'a> Merge<'a> {
    /// Adds the entries of `map`; whether that stayed within bounds.
    fn gather(&mut self, map: &'a Node) -> bool {
        if !self.merged.insert(map) {
            return true;
        }
        let Value::Map(pairs) = &map.value else { return true };
        if self.merged.len() > MAX_MERGES {
            return false;
        }
        for (key, value) in pairs {
            if let Some(name) = key.text()
                && name != MERGE_KEY
                && self.keys.insert(name)
            {
                self.found.push((name, value));
            }
        }
        pairs.iter().filter(|(key, _)| key.text() == Some(MERGE_KEY)).all(|(_, merged)| match &merged.value {
            Value::List(several) => several.iter().all(|one| self.gather(one)),
            _ => self.gather(merged),
        })
    }
}

/// Reads one document.
///
/// # Errors
/// A text that is too long, not UTF-8, not YAML, more than one document, nested too deeply, with an unknown tag or with
/// an anchor that contains itself.
pub(super) fn read(bytes: &[u8]) -> Result<Rc<Node>, Flaw> {
    if bytes.len() > MAX_TEXT_BYTES {
        return Err(Flaw::of_text(format!("holds more than {MAX_TEXT_BYTES} bytes, which is the most that is read")));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Flaw::of_text("is not UTF-8 text"))?;
    let mut text = Indented::new(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut budget = MAX_REREAD_BYTES;
    loop {
        match read_once(&text) {
            Ok(root) => {
                return root.ok_or_else(|| Flaw::of_text("is empty; a compose file has a mapping `services`"));
            }
            Err(Failure::Refused(problem)) => return Err(problem),
            Err(Failure::Unreadable(wrong)) => {
                budget = budget.saturating_sub(text.text.len());
                if budget == 0 || !text.indent(&wrong) {
                    let why = format!("is not YAML that can be read: {}", wrong.info());
                    return Err(Flaw::at("", text.place(wrong.marker()), why));
                }
            }
        }
    }
}

fn read_once(text: &Indented) -> Result<Option<Rc<Node>>, Failure> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(&text.text) {
        let (event, span) = event.map_err(Failure::Unreadable)?;
        builder.take(event, text.place(&span.start)).map_err(Failure::Refused)?;
    }
    Ok(builder.root)
}

/// Why a text was not read.
enum Failure {
    Unreadable(ScanError),
    Refused(Flaw),
}

/// A text in which lines that are not indented enough are.
///
/// Inside brackets and quotes the indentation of a line means nothing. Compose's reader takes it for nothing, as real
/// files show (a closing bracket right below its key); ours follows YAML 1.2, which asks for some.
struct Indented {
    text: String,
    /// The lines that were indented, counted from one.
    lines: HashSet<usize>,
}

impl Indented {
    fn new(text: &str) -> Self {
        Indented { text: text.to_owned(), lines: HashSet::new() }
    }

    /// Indents the line that `wrong` is about; whether there was one.
    fn indent(&mut self, wrong: &ScanError) -> bool {
        let line = match wrong.info() {
            "invalid indentation" | "invalid indentation in flow construct" => wrong.marker().line(),
            // The place is where the text begins. The lines up to the one that is meant are all inside the quotes.
            "invalid indentation in quoted scalar" => {
                (wrong.marker().line() + 1..).find(|line| !self.lines.contains(line)).unwrap_or_default()
            }
            _ => return false,
        };
        let begin = match line {
            0 | 1 => return false,
            _ => self.text.match_indices('\n').nth(line - 2).map(|(at, _)| at + 1),
        };
        let Some(begin) = begin.filter(|_| self.lines.insert(line)) else { return false };
        self.text.insert_str(begin, &" ".repeat(INDENTATION));
        true
    }

    /// A place as it is in the author's text.
    fn place(&self, marker: &Marker) -> Place {
        let added = if self.lines.contains(&marker.line()) { INDENTATION } else { 0 };
        Place { line: marker.line(), column: marker.col().saturating_sub(added) + 1 }
    }
}

/// What is open while events come in.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
}

struct Open {
    anchor: usize,
    node: Node,
    /// The key that waits for its value.
    key: Option<Rc<Node>>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, place: Place) -> Result<(), Flaw> {
        match event {
            Event::Alias(anchor) => {
                let named = self.anchors.get(&anchor).cloned();
                self.put(named.ok_or_else(|| Flaw::at("", place, "this alias stands inside what it names"))?)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = Value::Scalar { text: text.into_owned(), plain: matches!(style, ScalarStyle::Plain) };
                self.open(anchor, Node { value, tag: known(tag, place)?, place, height: 0 })?;
                self.close()
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(anchor, Node { value: Value::List(Vec::new()), tag: known(tag, place)?, place, height: 0 })
            }
            Event::MappingStart(anchor, tag) => {
                self.open(anchor, Node { value: Value::Map(Vec::new()), tag: known(tag, place)?, place, height: 0 })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(Flaw::at("", place, "a second document begins here; a compose file has one"))
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, anchor: usize, node: Node) -> Result<(), Flaw> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Flaw::at("", node.place, format!("is nested more than {MAX_DEPTH} deep")));
        }
        self.open.push(Open { anchor, node, key: None });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Flaw> {
        let Some(done) = self.open.pop() else { return Ok(()) };
        let node = Rc::new(done.node);
        if done.anchor > 0 {
            self.anchors.insert(done.anchor, Rc::clone(&node));
        }
        self.put(node)
    }

    fn put(&mut self, node: Rc<Node>) -> Result<(), Flaw> {
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        // Aliases nest too, and what walks or frees the tree goes down as far.
        parent.node.height = parent.node.height.max(node.height + 1);
        if parent.node.height > MAX_DEPTH {
            return Err(Flaw::at("", node.place, format!("is nested more than {MAX_DEPTH} deep")));
        }
        match &mut parent.node.value {
            Value::List(items) => items.push(node),
            Value::Map(pairs) => match parent.key.take() {
                Some(key) => pairs.push((key, node)),
                None if node.text().is_none() => {
                    return Err(Flaw::at("", node.place, "a key must be text, not a list or a mapping"));
                }
                None => parent.key = Some(node),
            },
            Value::Scalar { .. } => {}
        }
        Ok(())
    }
}

fn known(tag: Option<Cow<'_, Tag>>, place: Place) -> Result<Option<&'static str>, Flaw> {
    let Some(tag) = tag else { return Ok(None) };
    let found = TAGS.iter().find(|(handle, suffix, _)| tag.handle == *handle && tag.suffix == *suffix);
    match found {
        Some((.., written)) => Ok(Some(written)),
        None => Err(Flaw::at("", place, format!("the tag {tag} is not one that compose files use"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> String {
        read(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn order_and_merge_keys_are_kept() {
        let root = read(b"x: &a {p: 1, q: 2}\ny: &b {q: 3, r: 4}\nz:\n  q: 0\n  <<: [*a, *b]\n  \"n\": 5\n").unwrap();
        let z = root.get("z").unwrap();
        let seen: Vec<_> = z.entries().into_iter().map(|(key, value)| (key, value.text().unwrap())).collect();
        assert_eq!(seen, [("q", "0"), ("n", "5"), ("p", "1"), ("r", "4")]);
        assert_eq!(z.place, Place { line: 4, column: 3 });
    }

    #[test]
    fn lines_in_brackets_and_quotes_need_no_indentation() {
        let root = read(b"a:\n  b: [\n    x,\ny\n  ]\n  c: \"p\n\nq\n r\"\n  d: {\n e: f\n}\n  g: 'h'\n").unwrap();
        let a = root.get("a").unwrap();
        let b: Vec<_> = a.get("b").unwrap().items().iter().filter_map(|item| item.text()).collect();
        assert_eq!((b, a.get("c").unwrap().text()), (vec!["x", "y"], Some("p\nq r")));
        assert_eq!(a.get("d").unwrap().get("e").unwrap().place, Place { line: 11, column: 5 });
        assert_eq!(a.get("g").unwrap().place, Place { line: 13, column: 6 });
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (text, expected) in [
            ("a: *b", "unknown anchor"),
            ("a: &a [*a]", "inside what it names"),
            ("a: 1\n---\nb: 2\n", "second document"),
            ("? [a]\n: b\n", "key must be text"),
            ("!!binary aW5jbHVkZQ==: x", "is not one that compose files use"),
            ("a: [", "is not YAML that can be read"),
            ("", "is empty"),
        ] {
            assert!(why(text).contains(expected), "{text:?}: {}", why(text));
        }
        assert!(read(b"\xff\xfea\0").unwrap_err().to_string().contains("UTF-8"));
        assert!(why(&"[".repeat(100)).contains("deep"));
        assert!(why(&" ".repeat(MAX_TEXT_BYTES + 1)).contains("bytes"));
    }
}
