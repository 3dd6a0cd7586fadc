//! Text out of bytes that come in pieces.

use std::borrow::Cow;

/// Takes for what is not UTF-8.
const REPLACEMENT: &str = "\u{fffd}";

/// Decodes UTF-8 that is cut anywhere. What cannot be decoded becomes U+FFFD, as often as it would have in one piece.
#[derive(Debug, Default)]
pub struct Utf8Decoder {
    /// The beginning of a character whose end has not come: at most 3 bytes.
    begun: Vec<u8>,
}

impl Utf8Decoder {
    /// A decoder at the beginning of a text.
    pub fn new() -> Self {
        Utf8Decoder::default()
    }

    /// The text that these bytes complete. Copies nothing where they are valid and begin and end between characters.
    pub fn push<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, str> {
        if !self.begun.is_empty() {
            let mut all = std::mem::take(&mut self.begun);
            all.extend_from_slice(bytes);
            return Cow::Owned(self.decode(&all).into_owned());
        }
        self.decode(bytes)
    }

    /// What is left when no more comes.
    pub fn finish(&mut self) -> &'static str {
        if self.begun.is_empty() {
            return "";
        }
        self.begun.clear();
        REPLACEMENT
    }

    fn decode<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, str> {
        let whole = match std::str::from_utf8(bytes) {
            Ok(text) => return Cow::Borrowed(text),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => bytes.len() - begun_length(bytes),
        };
        let (whole, begun) = bytes.split_at(whole);
        self.begun.extend_from_slice(begun);
        String::from_utf8_lossy(whole)
    }
}

/// How many bytes at the end begin a character that more bytes could complete.
fn begun_length(bytes: &[u8]) -> usize {
    let could_go_on = |length: &usize| {
        let end = &bytes[bytes.len() - length..];
        std::str::from_utf8(end).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (1..=bytes.len().min(3)).find(could_go_on).unwrap_or(0)
}
