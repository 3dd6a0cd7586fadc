//! Text from others, made fit for a terminal, and text from the command line, read.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

/// The text on one line, without control characters: titles and messages come from strangers, and an escape sequence
/// could rewrite the screen.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_unsafe(c) || c == '\n' || c == '\t' { ' ' } else { c }).collect()
}

/// The same with line ends and tabs kept.
pub(super) fn plain_lines(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_unsafe) {
        return text.chars().filter(|c| !is_unsafe(*c)).collect();
    }
    Cow::Borrowed(text)
}

/// Control characters, and those that change the direction of writing (Unicode TR 36, 3.2).
pub(super) fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The name of a protobuf enum value as people write it: `EXTENSION_STATE_READY` is `ready`.
pub(super) fn enum_name(value: &str, prefix: &str) -> String {
    value.strip_prefix(prefix).unwrap_or(value).to_ascii_lowercase()
}

/// Adds bytes to a JSON object: as text under `name` where they are UTF-8, else in base64 under `<name>_base64`.
pub(super) fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), BASE64_STANDARD.encode(bytes).into()),
    };
}

/// Reads a time span such as `500ms`, `10s` or `1m 30s`; a bare number is seconds.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    humantime::parse_duration(text).map_err(|_| format!("{text:?} is not a time span; write 500ms, 10s or 1m30s"))
}

/// The same for a limit, which cannot be nothing.
pub(super) fn parse_limit(text: &str) -> Result<Duration, String> {
    match parse_span(text) {
        Ok(span) if span.is_zero() => Err("it has to be more than nothing; leave it out for no limit".into()),
        span => span,
    }
}

/// Reads a time such as `2026-01-31T10:00:00Z`, or how long ago it was, such as `10m`.
pub(super) fn parse_time(text: &str) -> Result<prost_types::Timestamp, String> {
    if let Ok(ago) = parse_span(text) {
        return Ok(SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH).into());
    }
    text.parse().map_err(|_| format!("{text:?} is not a time; write 2026-01-31T10:00:00Z, or how long ago: 10m"))
}

/// A time span as people write it, such as `1m 30s`.
pub(super) fn span(span: Duration) -> String {
    humantime::format_duration(span).to_string()
}

/// How long ago that was, in the largest unit that counts: `12s`, `3m`, `5h`, `2d`.
pub(super) fn age(since: SystemTime) -> String {
    let seconds = since.elapsed().unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A count and its noun: `1 error`, `2 errors`, `2 processes`.
pub(super) fn count(number: usize, noun: &str) -> String {
    let ending = match number {
        1 => "",
        _ if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{number} {noun}{ending}")
}

/// What the operating system says, without the number that Rust adds.
pub(super) fn without_number(text: &str) -> &str {
    text.split(" (os error").next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_rewrite_the_screen_is_taken_out() {
        assert_eq!(plain("a\x1b[2Jb\nc"), "a [2Jb c");
        assert_eq!(plain_lines("a\x1b[2Jb\nc\u{202e}d"), "a[2Jb\ncd");
        assert_eq!(plain_lines("Grüße 🚢\tx"), "Grüße 🚢\tx");
    }

    #[test]
    fn bytes_are_text_where_they_can_be() {
        let mut object = Map::new();
        put_bytes(&mut object, "body", b"ok");
        put_bytes(&mut object, "raw", &[0xff, 0]);
        assert_eq!(Value::Object(object).to_string(), r#"{"body":"ok","raw_base64":"/wA="}"#);
    }

    #[test]
    fn time_spans_are_read_with_or_without_unit() {
        assert_eq!(parse_span("3"), Ok(Duration::from_secs(3)));
        assert_eq!(parse_span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_span("1m30s"), Ok(Duration::from_secs(90)));
        assert!(parse_span("soon").is_err() && parse_span("-1s").is_err());
        assert!(parse_limit("0").is_err() && parse_limit("0ms").is_err());
        assert_eq!(parse_limit("1").map(span).as_deref(), Ok("1s"));
    }

    #[test]
    fn counts_and_ages_are_as_people_say_them() {
        assert_eq!((count(1, "process"), count(2, "process")), ("1 process".into(), "2 processes".into()));
        let ago = |seconds| age(SystemTime::now() - Duration::from_secs(seconds));
        assert_eq!([ago(61), ago(7_199), ago(90_000)], ["1m", "1h", "1d"]);
        assert_eq!(age(SystemTime::now() + Duration::from_secs(60)), "0s");
    }

    proptest! {
        #[test]
        fn no_time_panics(text in ".{0,40}", digits in "[0-9]{1,25}[smhdwy]?", date in "[0-9]{1,6}-[0-9]{2}-[0-9]{2}T.{0,12}") {
            for text in [text, digits, date] {
                let _ = parse_time(&text);
            }
        }
    }
}
