//! Values as they are written: paths, durations, sizes. Each reader says what would be right.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{EngineFiles, LogFormat};
use crate::model::{
    audit::Audit,
    limits::{MAX_BODY_BYTES, MAX_TIME_LIMIT},
    platform::MAX_SOCKET_PATH_BYTES,
};

/// Where pipes of this machine are.
const PIPES: &str = r"\\.\pipe\";
/// Longest name of a pipe.
const MAX_PIPE_NAME_BYTES: usize = 256;

/// An absolute path.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("is empty; give an absolute path".into());
    }
    if text.contains('\0') {
        return Err("holds a NUL byte".into());
    }
    // Stands for bytes that were no UTF-8 where arguments and environment were read.
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(format!("{text:?} is not UTF-8"));
    }
    let path = Path::new(text);
    if path.is_absolute() { Ok(path.to_owned()) } else { Err(format!("{text:?} is relative; give an absolute path")) }
}

/// The path of a socket; on Windows it is the name of a pipe.
pub(super) fn socket(text: &str) -> Result<PathBuf, String> {
    if cfg!(windows) { pipe(text) } else { path(text).and_then(fits) }
}

/// The name of a pipe.
pub(super) fn pipe(text: &str) -> Result<PathBuf, String> {
    let name = text.get(..PIPES.len()).filter(|start| start.eq_ignore_ascii_case(PIPES)).map(|_| &text[PIPES.len()..]);
    match name {
        Some(name)
            if !name.is_empty()
                && !name.contains(['\\', '\0', char::REPLACEMENT_CHARACTER])
                && text.len() <= MAX_PIPE_NAME_BYTES =>
        {
            Ok(PathBuf::from(text))
        }
        _ => Err(format!(r"{text:?} is no pipe's name; write one like \\.\pipe\longshore")),
    }
}

/// Refuses a path that is too long for a socket's address.
pub(super) fn fits(path: PathBuf) -> Result<PathBuf, String> {
    let bytes = path.as_os_str().len();
    if bytes > MAX_SOCKET_PATH_BYTES {
        let shown = path.display();
        return Err(format!("{shown} is {bytes} bytes long; the path of a socket has at most {MAX_SOCKET_PATH_BYTES}"));
    }
    Ok(path)
}

/// A whole number with a unit: `500ms`, `10s`, `2m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write a whole number and a unit, such as 500ms, 10s, 2m, 1h");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let millis = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => return Err(format!("{text:?} has no unit; write {number}s for seconds")),
        _ => return Err(wrong()),
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .filter(|duration| *duration <= MAX_TIME_LIMIT)
        .ok_or_else(|| format!("{text:?} is too long; at most 24h"))
}

/// A duration that is not zero.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let found = duration(text)?;
    if found.is_zero() { Err(format!("{text:?} leaves no time; at least 1ms")) } else { Ok(found) }
}

/// A whole number of bytes.
pub(super) fn body_bytes(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(bytes) if (1..=MAX_BODY_BYTES).contains(&bytes) => Ok(bytes),
        _ => Err(format!("{text:?} does not fit; write a whole number of bytes from 1 to {MAX_BODY_BYTES}")),
    }
}

/// `http://host:port`, where a collector of OpenTelemetry takes gRPC.
pub(super) fn collector(text: &str) -> Result<String, String> {
    let is_collector = text.parse::<http::Uri>().is_ok_and(|uri| {
        let is_bare = matches!(uri.path_and_query().map(|path| path.as_str()), None | Some("" | "/"));
        uri.scheme_str() == Some("http") && uri.port_u16().is_some() && is_bare
    });
    match is_collector {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no collector's address; write one like http://127.0.0.1:4317")),
    }
}

/// Log directives.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    // The library cuts text that is not ASCII between characters, and panics.
    let is_filter = text.is_ascii() && tracing_subscriber::EnvFilter::builder().parse(text).is_ok();
    match is_filter && !text.trim().is_empty() {
        true => Ok(text.to_owned()),
        false => {
            Err(format!("{text:?} is no log filter; write error, warn, info, debug, trace or longshore=debug,info"))
        }
    }
}

/// `names` or `argv`.
pub(super) fn audit(text: &str) -> Result<Audit, String> {
    match text {
        "names" => Ok(Audit::Names),
        "argv" => Ok(Audit::Argv),
        _ => Err(format!("{text:?} is nothing that the audit can keep; write names or argv")),
    }
}

/// `true` or `false`.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{text:?} is neither true nor false"))
}

/// Users or groups, by name or number, parted by blanks or commas. `id` knows their numbers.
pub(super) fn ids(text: &str, id: impl Fn(&str) -> Option<u32>) -> Result<Vec<u32>, String> {
    let names = text.split([' ', ',']).filter(|name| !name.is_empty());
    names.map(|name| id(name).ok_or_else(|| format!("there is no {name:?} on this machine"))).collect()
}

/// `auto`, `shared` or `apart`.
pub(super) fn engine_files(text: &str) -> Result<EngineFiles, String> {
    match text {
        "auto" => Ok(EngineFiles::Auto),
        "shared" => Ok(EngineFiles::Shared),
        "apart" => Ok(EngineFiles::Apart),
        _ => Err(format!("{text:?} says nothing of an engine's files; write auto, shared or apart")),
    }
}

/// `text` or `json`.
pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is no log format; write text or json")),
    }
}

/// ` (did you mean …?)`, if one of the known names is close.
pub(super) fn suggestion(name: &str, known: &[&str]) -> String {
    let close = known
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    close.map(|(_, known)| format!("; did you mean {known}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, millis) in [("0s", 0), ("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("24h", 86_400_000)] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for wrong in
            ["", "10", "s", "-1s", "1.5s", "10 s", "25h", "99999999999999999999s", "18446744073709551615h", "1ß"]
        {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
        assert!(duration("10").unwrap_err().contains("10s"));
        assert!(timeout("0s").is_err());
    }

    #[test]
    fn a_socket_has_107_bytes() {
        assert!(socket(&format!("/{}", "x".repeat(106))).is_ok());
        assert!(socket(&format!("/{}", "x".repeat(107))).unwrap_err().contains("107"));
    }

    #[test]
    fn a_collector_is_named_by_scheme_host_and_port() {
        for right in ["http://127.0.0.1:4317", "http://[::1]:4317/", "http://collector:4317"] {
            assert!(collector(right).is_ok(), "{right}");
        }
        for wrong in
            ["", "127.0.0.1:4317", "https://collector:4317", "http://collector", "http://collector:1/v1/traces"]
        {
            assert!(collector(wrong).unwrap_err().contains("http://127.0.0.1:4317"), "{wrong}");
        }
    }

    #[test]
    fn a_log_filter_is_ascii() {
        assert!(log_filter("longshore=debug,info").is_ok());
        assert!(log_filter("\u{b}\u{b}Ⰰ=").is_err());
        assert!(log_filter(" ").is_err());
    }

    #[test]
    fn pipes_are_named_below_the_root_of_all() {
        for name in [r"\\.\pipe\docker_engine", r"\\.\PIPE\long shore"] {
            assert_eq!(pipe(name), Ok(name.into()));
        }
        let long = format!(r"\\.\pipe\{}", "x".repeat(300));
        for wrong in [r"\\.\pipe\", r"\\.\pipe\a\b", r"\\there\pipe\a", r"\\.\pip\u{e9}\a", "/run/x.sock", "", &long] {
            assert!(pipe(wrong).unwrap_err().contains(r"write one like \\.\pipe\longshore"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (path(&text), duration(&text), body_bytes(&text), log_filter(&text));
            let _ = suggestion(&text, &["socket"]);
        }
    }
}
