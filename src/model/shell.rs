//! How command lines are written down, for people to copy.

use std::{borrow::Cow, path::Path};

/// A word as a POSIX shell has to be given it.
pub fn word(text: &str) -> Cow<'_, str> {
    let is_harmless = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

/// What mends a damaged or missing store in a data directory.
pub fn repair(data_dir: &Path) -> String {
    format!("longshore repair --data-dir {}", word(&data_dir.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_it_for_one_word() {
        assert_eq!(word("a/b:1.0"), "a/b:1.0");
        assert_eq!(word(""), "''");
        assert_eq!(word("it's $HOME"), r"'it'\''s $HOME'");
    }
}
