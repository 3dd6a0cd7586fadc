//! Pages of lists. A token is the key of the last entry of the page before, in hexadecimal, so that it is opaque, safe
//! in any transport, and holds no state in the broker.

use crate::model::error::{Error, Reason, Result};

/// Entries of a page where the caller does not say.
const DEFAULT_SIZE: usize = 100;
/// Most entries of a page.
const MAX_SIZE: i32 = 1000;

/// What a caller asks for: so many entries behind a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    /// How many entries.
    pub(super) size: usize,
    /// The key that they come behind; empty for the first page.
    pub(super) after: String,
}

impl Page {
    /// Reads the fields of a request.
    ///
    /// # Errors
    ///
    /// `REQUEST_INVALID`, `PAGE_TOKEN_INVALID`.
    pub(super) fn read(size: i32, token: &str) -> Result<Page> {
        let size = match usize::try_from(size) {
            Ok(0) => DEFAULT_SIZE,
            Ok(size) if size <= MAX_SIZE as usize => size,
            _ => {
                let message = format!("page_size must lie between 0 and {MAX_SIZE}");
                return Err(Error::new(Reason::RequestInvalid, "page_size", message));
            }
        };
        let after = hex::decode(token).ok().and_then(|key| String::from_utf8(key).ok()).ok_or_else(not_ours)?;
        Ok(Page { size, after })
    }

    /// The key, where keys are numbers; `None` for the first page.
    ///
    /// # Errors
    ///
    /// `PAGE_TOKEN_INVALID`.
    pub(super) fn after_number(&self) -> Result<Option<i64>> {
        match self.after.as_str() {
            "" => Ok(None),
            key => key.parse().map(Some).map_err(|_| not_ours()),
        }
    }

    /// Cuts a list, which may hold one entry more than the page, and returns the token of the next page.
    pub(super) fn cut<T>(&self, entries: &mut Vec<T>, key: impl Fn(&T) -> String) -> String {
        if entries.len() <= self.size {
            return String::new();
        }
        entries.truncate(self.size);
        entries.last().map(|last| hex::encode(key(last))).unwrap_or_default()
    }

    /// The same, of a list whose entries may be large: the page ends before they are more than `most` bytes, but has one.
    pub(super) fn cut_by_size<T>(
        &self,
        entries: &mut Vec<T>,
        most: usize,
        size: impl Fn(&T) -> usize,
        key: impl Fn(&T) -> String,
    ) -> String {
        let mut room = most;
        let mut fits = |entry: &T| {
            let size = size(entry);
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        };
        let count = entries.iter().take_while(|entry| fits(entry)).count().clamp(1, self.size);
        Page { size: count, after: String::new() }.cut(entries, key)
    }
}

fn not_ours() -> Error {
    Error::new(Reason::PageTokenInvalid, "page_token", "take page_token from next_page_token of the page before")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other() {
        let all = ["a", "b", "c"];
        let first = Page::read(2, "").unwrap();
        let mut entries = all.to_vec();
        let token = first.cut(&mut entries, |e| (*e).to_owned());
        assert_eq!(entries, ["a", "b"]);
        let second = Page::read(2, &token).unwrap();
        assert_eq!(second.after, "b");
        let mut rest = vec!["c"];
        assert_eq!(second.cut(&mut rest, |e| (*e).to_owned()), "");
    }

    #[test]
    fn a_page_of_large_entries_is_shorter() {
        let page = Page::read(3, "").unwrap();
        let cut = |mut entries: Vec<usize>| {
            let token = page.cut_by_size(&mut entries, 10, |size| *size, usize::to_string);
            (entries, Page::read(3, &token).unwrap().after_number().unwrap())
        };
        assert_eq!(cut(vec![]), (vec![], None));
        assert_eq!(cut(vec![4, 4]), (vec![4, 4], None));
        assert_eq!(cut(vec![4, 4, 4]), (vec![4, 4], Some(4)));
        assert_eq!(cut(vec![1, 1, 2, 1]), (vec![1, 1, 2], Some(2)));
        assert_eq!(cut(vec![50, 1]), (vec![50], Some(50)));
    }

    #[test]
    fn wrong_pages_are_refused() {
        assert_eq!(Page::read(-1, "").unwrap_err().reason(), Reason::RequestInvalid);
        assert_eq!(Page::read(1001, "").unwrap_err().reason(), Reason::RequestInvalid);
        for token in ["x", "abc", "ff", "é"] {
            assert_eq!(Page::read(1, token).unwrap_err().reason(), Reason::PageTokenInvalid, "{token}");
        }
        let word = Page::read(1, &hex::encode("a")).unwrap();
        assert_eq!(word.after_number().unwrap_err().reason(), Reason::PageTokenInvalid);
    }
}
