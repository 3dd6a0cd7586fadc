//! What Compose writes to standard error, made fit for a message.

use std::path::Path;

/// How many of the last lines are kept.
const MAX_LINES: usize = 6;
/// Longest message, in bytes.
const MAX_BYTES: usize = 2000;

/// Compose's last words, without colours, progress, warnings and the paths of staged files.
pub(super) fn of_failure(stderr: &[u8], dir: &Path) -> String {
    let text = cleaned(stderr, dir);
    let said: Vec<&str> = text.lines().filter(|line| !is_progress(line) && warning(line).is_none()).collect();
    let last = said[said.len().saturating_sub(MAX_LINES)..].join("; ");
    if last.is_empty() {
        return "it failed without a word".into();
    }
    let end = (0..=MAX_BYTES.min(last.len())).rev().find(|end| last.is_char_boundary(*end)).unwrap_or(0);
    last[..end].to_owned()
}

/// What it warned of, without the notice that every older file gets.
pub(super) fn warnings(stderr: &[u8], dir: &Path) -> Vec<String> {
    let text = cleaned(stderr, dir);
    let mut found: Vec<String> =
        text.lines().filter_map(warning).filter(|said| !said.contains("`version` is obsolete")).collect();
    found.sort();
    found.dedup();
    found
}

/// Whether the engine is why it failed. Compose has no code for it, only these words.
pub(super) fn is_engine_away(stderr: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stderr);
    ["Cannot connect to the Docker daemon", "error during connect", "Is the docker daemon running"]
        .iter()
        .any(|words| text.contains(words))
}

/// ` Container x  Creating`: progress lines begin with a space where there is no terminal.
fn is_progress(line: &str) -> bool {
    line.trim().is_empty()
        || [" Container ", " Network ", " Volume "].iter().any(|begin| line.starts_with(begin))
            && !line.contains("rror")
}

/// The text of a logged warning.
fn warning(line: &str) -> Option<String> {
    let (head, said) = line.split_once(" msg=")?;
    if !head.contains("level=warning") {
        return None;
    }
    serde_json::from_str(said).ok().or_else(|| Some(said.trim_matches('"').to_owned()))
}

fn cleaned(stderr: &[u8], dir: &Path) -> String {
    let text = String::from_utf8_lossy(stderr);
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            // A sequence ends with its first letter.
            let _ = rest.find(|c| c.is_ascii_alphabetic());
        } else if !c.is_control() || c == '\n' {
            plain.push(c);
        }
    }
    match dir.to_str().filter(|dir| dir.len() > 1) {
        Some(dir) => plain.replace(&format!("{dir}/"), "").replace(dir, "."),
        None => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_what_is_left() {
        let dir = Path::new("/data/x/vm");
        let stderr =
            b"time=\"2026\" level=warning msg=\"The \\\"A\\\" variable is not set.\"\n Container a-b-1  Creating\n\
            \x1b[31mError response from daemon: driver failed\x1b[0m\n";
        assert_eq!(of_failure(stderr, dir), "Error response from daemon: driver failed");
        assert_eq!(warnings(stderr, dir), ["The \"A\" variable is not set."]);
        assert_eq!(of_failure(b"env file /data/x/vm/my.env not found\n", dir), "env file my.env not found");
        assert_eq!(of_failure(b"", dir), "it failed without a word");
        assert!(of_failure("\u{e9}".repeat(5000).as_bytes(), dir).len() <= MAX_BYTES);
    }

    #[test]
    fn an_engine_that_is_away_is_told_apart() {
        assert!(is_engine_away(b"Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?"));
        assert!(!is_engine_away(b"Error response from daemon: port is already allocated"));
    }
}
