//! HPACK as far as replacing an unusable `:authority` needs it (RFC 7541).
//!
//! A header block is walked representation by representation. Names and values are looked at only where they decide which
//! field is an `:authority` or how large a dynamic table entry is; all else is stepped over and stays as it came.

use std::borrow::Cow;
use std::collections::VecDeque;

use http::uri::Authority;

use super::huffman;

/// The name of the field that is looked for (RFC 9113 section 8.3.1).
const AUTHORITY: &[u8] = b":authority";

/// The dynamic table's greatest size: what a server that sends no `SETTINGS_HEADER_TABLE_SIZE` grants (RFC 9113 section
/// 6.5.2). tonic offers no way to send it, so h2 decodes with this size too.
const TABLE_SIZE: usize = 4096;

/// What an entry costs beyond its name and its value (RFC 7541 section 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// The lengths of the static table's names from index 1 on (RFC 7541 appendix A): a field that takes its name from there
/// becomes an entry of that size. Index 1 is `:authority`.
const STATIC_NAMES: [usize; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4,
    4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];

/// The block cannot be understood. What h2 makes of it is h2's affair; this side has lost track of the dynamic table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What is remembered of a field name, in the dynamic table or while a field is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name {
    /// Whether the name is `:authority`.
    is_authority: bool,
    /// The name's length, decoded.
    len: usize,
}

/// The shape of the decoder's dynamic table (RFC 7541 section 2.3.2): its names, and the sizes that decide what is evicted.
#[derive(Debug)]
struct Table {
    /// Name and size of each entry, the newest first.
    entries: VecDeque<(Name, usize)>,
    /// The sum of the entries' sizes.
    size: usize,
    /// The size that the peer's encoder chose last.
    max: usize,
}

impl Table {
    /// The name at `index` of the common index space (RFC 7541 section 2.3.3).
    fn name(&self, index: usize) -> Result<Name, Malformed> {
        let index = index.checked_sub(1).ok_or(Malformed)?;
        if let Some(&len) = STATIC_NAMES.get(index) {
            return Ok(Name { is_authority: index == 0, len });
        }
        let entry = self.entries.get(index - STATIC_NAMES.len());
        entry.map(|(name, _)| *name).ok_or(Malformed)
    }

    /// Adds a field as RFC 7541 section 4.4 says: one that is too large empties the table.
    fn insert(&mut self, name: Name, value_len: usize) {
        let size = name.len + value_len + ENTRY_OVERHEAD;
        self.evict(self.max.saturating_sub(size));
        if size <= self.max {
            self.size += size;
            self.entries.push_front((name, size));
        }
    }

    /// Follows a dynamic table size update (RFC 7541 section 6.3).
    fn resize(&mut self, max: usize) -> Result<(), Malformed> {
        if max > TABLE_SIZE {
            return Err(Malformed);
        }
        self.max = max;
        self.evict(max);
        Ok(())
    }

    /// Drops the oldest entries until the rest is no larger than `room` (RFC 7541 section 4.3).
    fn evict(&mut self, room: usize) {
        while self.size > room
            && let Some((_, size)) = self.entries.pop_back()
        {
            self.size -= size;
        }
    }
}

/// One of HPACK's representations, told by its first octet's leading bits (RFC 7541 section 6).
enum Representation {
    /// A whole field out of a table (section 6.1).
    Indexed,
    /// A literal (section 6.2), with the prefix of its name index and whether it is added to the dynamic table.
    Literal {
        /// How many bits of the first octet belong to the name index.
        prefix: u32,
        /// Whether the field enters the dynamic table.
        added: bool,
    },
    /// A dynamic table size update (section 6.3).
    SizeUpdate,
}

impl Representation {
    /// The representation that begins with `octet`.
    fn of(octet: u8) -> Self {
        match octet.leading_zeros() {
            0 => Self::Indexed,
            1 => Self::Literal { prefix: 6, added: true },
            2 => Self::SizeUpdate,
            _ => Self::Literal { prefix: 4, added: false },
        }
    }
}

/// A string literal, not yet decoded (RFC 7541 section 5.2).
#[derive(Clone, Copy)]
struct Text<'a> {
    /// Whether `octets` are Huffman-coded.
    huffman: bool,
    /// The string as it is on the wire.
    octets: &'a [u8],
}

impl<'a> Text<'a> {
    /// The length of the decoded string.
    fn len(self) -> Result<usize, Malformed> {
        if !self.huffman {
            return Ok(self.octets.len());
        }
        let mut len = 0;
        huffman::decode(self.octets, |_| len += 1).ok_or(Malformed)?;
        Ok(len)
    }

    /// The decoded string.
    fn decoded(self) -> Result<Cow<'a, [u8]>, Malformed> {
        if !self.huffman {
            return Ok(Cow::Borrowed(self.octets));
        }
        let mut text = Vec::with_capacity(self.octets.len() * 8 / 5);
        huffman::decode(self.octets, |octet| text.push(octet)).ok_or(Malformed)?;
        Ok(Cow::Owned(text))
    }
}

/// A place in a header block.
struct Cursor<'a> {
    /// The whole block.
    block: &'a [u8],
    /// How much of it has been read.
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The next octet, left where it is.
    fn peek(&self) -> Option<u8> {
        self.block.get(self.at).copied()
    }

    /// The next octet.
    fn octet(&mut self) -> Result<u8, Malformed> {
        let octet = self.peek().ok_or(Malformed)?;
        self.at += 1;
        Ok(octet)
    }

    /// An integer whose first `prefix` bits end the next octet (RFC 7541 section 5.1). Five octets at most, as in h2.
    fn integer(&mut self, prefix: u32) -> Result<usize, Malformed> {
        let mask = (1 << prefix) - 1;
        let mut value = usize::from(self.octet()?) & mask;
        if value < mask {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let octet = self.octet()?;
            value += usize::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// A string literal (RFC 7541 section 5.2).
    fn text(&mut self) -> Result<Text<'a>, Malformed> {
        let huffman = self.peek().ok_or(Malformed)? & 0x80 != 0;
        let len = self.integer(7)?;
        let octets = self.block.get(self.at..).and_then(|rest| rest.get(..len)).ok_or(Malformed)?;
        self.at += len;
        Ok(Text { huffman, octets })
    }
}

/// Follows one direction's header blocks and replaces each `:authority` that the server could not accept.
#[derive(Debug)]
pub(super) struct Rewriter {
    /// What h2's decoder holds.
    table: Table,
}

impl Rewriter {
    /// A rewriter for a new connection.
    pub(super) fn new() -> Self {
        Self { table: Table { entries: VecDeque::new(), size: 0, max: TABLE_SIZE } }
    }

    /// Reads the connection's next complete header block; answers the block to use in its place, if it must be another.
    pub(super) fn block(&mut self, block: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        let mut cursor = Cursor { block, at: 0 };
        let mut rewritten = Vec::new();
        let mut copied = 0;
        let mut seen_field = false;
        while let Some(octet) = cursor.peek() {
            match Representation::of(octet) {
                Representation::Indexed => {
                    let index = cursor.integer(7)?;
                    self.table.name(index)?;
                }
                Representation::SizeUpdate if seen_field => return Err(Malformed),
                Representation::SizeUpdate => {
                    let size = cursor.integer(5)?;
                    self.table.resize(size)?;
                    continue;
                }
                Representation::Literal { prefix, added } => {
                    let name = self.literal_name(&mut cursor, prefix)?;
                    let value_at = cursor.at;
                    let value = cursor.text()?;
                    if added {
                        self.table.insert(name, value.len()?);
                    }
                    if name.is_authority
                        && let Some(text) = replacement(value)?
                    {
                        rewritten.extend_from_slice(&block[copied..value_at]);
                        put_text(&mut rewritten, &text);
                        copied = cursor.at;
                    }
                }
            }
            seen_field = true;
        }
        if copied == 0 {
            return Ok(None);
        }
        rewritten.extend_from_slice(&block[copied..]);
        Ok(Some(rewritten))
    }

    /// The name of a literal: out of a table, or, with index 0, a literal too (RFC 7541 section 6.2).
    fn literal_name(&self, cursor: &mut Cursor<'_>, prefix: u32) -> Result<Name, Malformed> {
        match cursor.integer(prefix)? {
            0 => {
                let name = cursor.text()?.decoded()?;
                Ok(Name { is_authority: *name == *AUTHORITY, len: name.len() })
            }
            index => self.table.name(index),
        }
    }
}

/// The text to put in place of an `:authority` that h2 would refuse: it asks [`Authority`] and resets the stream with
/// `PROTOCOL_ERROR` when that says no. An empty value stays, for there is nothing of its length to offer.
fn replacement(value: Text<'_>) -> Result<Option<Vec<u8>>, Malformed> {
    let value = value.decoded()?;
    if value.is_empty() || Authority::try_from(value.as_ref()).is_ok() {
        return Ok(None);
    }
    Ok(Some(stand_in(value.len())))
}

/// A valid authority of exactly `len` octets: `localhost`, cut short where it must be, or else a name below `.localhost`,
/// which means the same machine whatever comes before it (RFC 6761 section 6.3).
fn stand_in(len: usize) -> Vec<u8> {
    const LOCALHOST: &[u8] = b"localhost";
    match len.checked_sub(LOCALHOST.len()) {
        None => LOCALHOST[..len].to_vec(),
        Some(0) => LOCALHOST.to_vec(),
        Some(1) => [LOCALHOST, b"."].concat(),
        Some(more) => [&b"x".repeat(more - 1), &b"."[..], LOCALHOST].concat(),
    }
}

/// Writes a string literal without Huffman coding (RFC 7541 section 5.2).
fn put_text(block: &mut Vec<u8>, text: &[u8]) {
    const PREFIX: usize = 0x7f;
    match text.len().checked_sub(PREFIX) {
        None => block.push(text.len() as u8),
        Some(mut rest) => {
            block.push(PREFIX as u8);
            while rest >= 0x80 {
                block.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            block.push(rest as u8);
        }
    }
    block.extend_from_slice(text);
}

#[cfg(test)]
#[path = "hpack_tests.rs"]
mod tests;
