//! Lines out of text that comes in pieces.

/// Longest line that is put together, in bytes; of a longer one, pieces of about that length are delivered.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// Splits text into lines. `\n` and `\r\n` end a line and are not part of it; a `\r` elsewhere is.
#[derive(Debug, Default)]
pub struct LineSplitter {
    /// The beginning of a line whose end has not come.
    begun: String,
}

impl LineSplitter {
    /// A splitter at the beginning of a text.
    pub fn new() -> Self {
        LineSplitter::default()
    }

    /// Delivers the lines that this text completes. Those that lie in it as a whole are not copied.
    pub fn push(&mut self, text: &str, deliver: &mut dyn FnMut(&str)) {
        let mut rest = text;
        while let Some((line, after)) = rest.split_once('\n') {
            if self.begun.is_empty() {
                deliver(without_return(line));
            } else {
                self.begun.push_str(line);
                deliver(without_return(&self.begun));
                self.begun.clear();
            }
            rest = after;
        }
        self.begun.push_str(rest);
        if self.begun.len() >= MAX_LINE_BYTES {
            self.finish(deliver);
        }
    }

    /// Delivers the last line, where none of its ends came.
    pub fn finish(&mut self, deliver: &mut dyn FnMut(&str)) {
        if !self.begun.is_empty() {
            deliver(&std::mem::take(&mut self.begun));
        }
    }
}

fn without_return(line: &str) -> &str {
    line.strip_suffix('\r').unwrap_or(line)
}
