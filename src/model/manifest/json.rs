//! JSON with places: strict, lazy, and able to say where each value stands.
//!
//! `serde_json` checks the whole text once; after that each value is a slice of it ([`RawValue`]), whose offset gives
//! line and column. No tree is built, and depth is no concern: only the known keys are descended into.

use std::fmt;

use serde::{
    Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::model::problem::{Problem, Severity};

/// The file's name, at the root of an image and in every problem.
pub const FILE: &str = "metadata.json";
/// Largest file in bytes; the largest real one is far below it (gefyra: 299 entries, some 30 KiB).
pub const MAX_BYTES: usize = 1 << 20;
/// Most problems that are reported, so that a hostile file cannot blow up the answer.
const MAX_PROBLEMS: usize = 1000;
/// Longest piece of the author's text that is repeated in a message, in characters.
const MAX_SHOWN_CHARS: usize = 80;

/// Reads values and gathers what is wrong with them.
pub(super) struct Reader<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
    problems: Vec<Problem>,
}

/// A value in the text.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    raw: &'a RawValue,
    pointer: String,
}

/// The members of an object that are known to its reader.
#[derive(Debug)]
pub(super) struct Object<'a> {
    members: Vec<(&'static str, Node<'a>)>,
}

/// The keys of one kind of object.
pub(super) struct Keys {
    /// Those that mean something.
    pub(super) known: &'static [&'static str],
    /// Those that did once, or that authors believe in, each with what to do instead.
    pub(super) obsolete: &'static [(&'static str, &'static str)],
}

impl<'a> Reader<'a> {
    /// Checks that `bytes` are one strict JSON text and gives its root; else the problem that prevents it.
    pub(super) fn open(bytes: &'a [u8]) -> Result<(Self, Node<'a>), Problem> {
        let whole = |message: String| Problem::error(FILE, "", message);
        if bytes.len() > MAX_BYTES {
            return Err(whole(format!("is {} bytes long; at most {MAX_BYTES} are read", bytes.len())));
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let line_starts = line_starts(bytes);
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let (line, column) = place(&line_starts, error.valid_up_to());
            whole("is not UTF-8 text".into()).at(line, column)
        })?;
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| syntax_problem(&error))?;
        Ok((Reader { text, line_starts, problems: Vec::new() }, Node { raw, pointer: String::new() }))
    }

    /// The findings in the order of the file.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems
    }

    /// Whether an error was found.
    pub(super) fn has_errors(&self) -> bool {
        self.problems.iter().any(Problem::is_error)
    }

    /// Reports something that prevents the install.
    pub(super) fn error(&mut self, node: &Node<'_>, message: impl Into<String>) {
        self.report(Severity::Error, node, message.into());
    }

    /// Reports something that will not work or is ignored.
    pub(super) fn warning(&mut self, node: &Node<'_>, message: impl Into<String>) {
        self.report(Severity::Warning, node, message.into());
    }

    /// Reports something worth knowing.
    pub(super) fn note(&mut self, node: &Node<'_>, message: impl Into<String>) {
        self.report(Severity::Note, node, message.into());
    }

    /// Past the limit warnings and notes are dropped, and the first error takes the place of the last of them: what
    /// cannot be installed must never look as if it could.
    fn report(&mut self, severity: Severity, node: &Node<'_>, message: String) {
        if self.problems.len() >= MAX_PROBLEMS {
            if severity != Severity::Error || self.has_errors() {
                return;
            }
            self.problems.pop();
        }
        let (line, column) = place(&self.line_starts, self.offset(node.raw));
        self.problems.push(Problem::new(severity, FILE, node.pointer.clone(), message).at(line, column));
    }

    /// Where a value begins: each one is a slice of the text.
    fn offset(&self, raw: &RawValue) -> usize {
        raw.get().as_ptr().addr().saturating_sub(self.text.as_ptr().addr())
    }

    /// The members of an object; of a key written twice the last one, as JavaScript and Go have it. `None` and a
    /// problem for anything else.
    pub(super) fn object(&mut self, node: &Node<'a>, keys: &Keys) -> Option<Object<'a>> {
        let Some(members) = members(node.raw) else {
            self.wrong_type(node, "an object");
            return None;
        };
        let mut object = Object { members: Vec::new() };
        for (key, raw) in members {
            let member = Node { raw, pointer: format!("{}/{}", node.pointer, pointer_token(&key)) };
            let Some(known) = keys.known.iter().find(|known| **known == key) else {
                self.unknown_key(&member, &key, keys);
                continue;
            };
            match object.members.iter_mut().find(|(name, _)| name == known) {
                Some((_, earlier)) => {
                    self.warning(&member, format!("{} is written twice; this one counts", shown(&key)));
                    *earlier = member;
                }
                None => object.members.push((known, member)),
            }
        }
        // `null` stands for absent, as it does for Docker Desktop.
        object.members.retain(|(_, member)| member.raw.get() != "null");
        Some(object)
    }

    fn unknown_key(&mut self, member: &Node<'_>, key: &str, keys: &Keys) {
        if let Some((_, instead)) = keys.obsolete.iter().find(|(name, _)| *name == key) {
            self.note(member, format!("{} is ignored: {instead}", shown(key)));
        } else if let Some(meant) = keys.known.iter().find(|known| known.eq_ignore_ascii_case(key)) {
            self.warning(member, format!("{} is ignored; the key is written {meant:?}", shown(key)));
        } else if key != "$schema" {
            self.note(member, format!("{} is ignored: no such key is known here", shown(key)));
        }
    }

    /// The elements of an array; `None` and a problem for anything else.
    pub(super) fn array(&mut self, node: &Node<'a>) -> Option<Vec<Node<'a>>> {
        let Some(elements) = elements(node.raw) else {
            self.wrong_type(node, "an array");
            return None;
        };
        let nodes = elements.into_iter().enumerate();
        Some(nodes.map(|(i, raw)| Node { raw, pointer: format!("{}/{i}", node.pointer) }).collect())
    }

    /// A text; `None` and a problem for anything else.
    pub(super) fn string(&mut self, node: &Node<'a>) -> Option<String> {
        if kind(node.raw) != "a string" {
            self.wrong_type(node, "a string");
            return None;
        }
        let text = serde_json::from_str(node.raw.get()).ok();
        if text.is_none() {
            self.error(node, "holds half of a surrogate pair, which is no character");
        }
        text
    }

    fn wrong_type(&mut self, node: &Node<'_>, wanted: &str) {
        self.error(node, format!("must be {wanted}, not {}", kind(node.raw)));
    }
}

impl<'a> Object<'a> {
    /// A member that is there and not `null`.
    pub(super) fn get(&self, key: &str) -> Option<&Node<'a>> {
        self.members.iter().find(|(name, _)| *name == key).map(|(_, node)| node)
    }
}

impl Node<'_> {
    /// Its JSON pointer.
    pub(super) fn pointer(&self) -> &str {
        &self.pointer
    }
}

/// Line and column of the value that a JSON pointer leads to, for what is found once the files are looked at; `None`
/// where there is none.
pub(super) fn place_of(bytes: &[u8], pointer: &str) -> Option<(u32, u32)> {
    let (reader, root) = Reader::open(bytes).ok()?;
    let found = pointer.split('/').skip(1).try_fold(root.raw, |raw, token| match kind(raw) {
        "an object" => members(raw)?.into_iter().rev().find(|(key, _)| pointer_token(key) == token).map(|(_, raw)| raw),
        "an array" => elements(raw)?.get(token.parse::<usize>().ok()?).copied(),
        _ => None,
    });
    Some(place(&reader.line_starts, reader.offset(found?)))
}

/// A piece of the author's text, quoted, shortened, control characters escaped.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// A key as a part of a JSON pointer (RFC 6901); overlong ones are cut, control characters escaped.
fn pointer_token(key: &str) -> String {
    let mut token = String::with_capacity(key.len().min(MAX_SHOWN_CHARS));
    for c in key.chars().take(MAX_SHOWN_CHARS) {
        match c {
            '~' => token.push_str("~0"),
            '/' => token.push_str("~1"),
            c if c.is_control() => token.extend(c.escape_debug()),
            c => token.push(c),
        }
    }
    token
}

fn syntax_problem(error: &serde_json::Error) -> Problem {
    let (line, column) = (to_u32(error.line().max(1)), to_u32(error.column().max(1)));
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    // These are what a comma too many, a comment or a single quote looks like to the parser.
    let lax = matches!(what, "trailing comma" | "key must be a string" | "expected value");
    let hint =
        if lax { "; JSON has no comma behind the last element, no comments, and only double quotes" } else { "" };
    Problem::error(FILE, "", format!("is not valid JSON: {}{hint}", lower_first(what))).at(line, column)
}

fn lower_first(text: &str) -> String {
    // "EOF while parsing" stays as it is: an abbreviation.
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

fn line_starts(bytes: &[u8]) -> Vec<usize> {
    let breaks = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect()
}

/// Line and column, from 1, of a byte.
fn place(line_starts: &[usize], offset: usize) -> (u32, u32) {
    let line = line_starts.partition_point(|start| *start <= offset);
    let start = line.checked_sub(1).and_then(|index| line_starts.get(index)).copied().unwrap_or(0);
    (to_u32(line), to_u32(offset - start + 1))
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn kind(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn members(raw: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                // A key that is no text at all matches nothing that is known; its raw form will do.
                let key = serde_json::from_str(key.get()).unwrap_or_else(|_| key.get().to_owned());
                members.push((key, value));
            }
            Ok(members)
        }
    }

    serde_json::Deserializer::from_str(raw.get()).deserialize_map(Members).ok()
}

fn elements(raw: &RawValue) -> Option<Vec<&RawValue>> {
    struct Elements;

    impl<'de> Visitor<'de> for Elements {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = seq.next_element()? {
                elements.push(element);
            }
            Ok(elements)
        }
    }

    serde_json::Deserializer::from_str(raw.get()).deserialize_seq(Elements).ok()
}
