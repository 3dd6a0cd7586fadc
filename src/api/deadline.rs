//! The deadline that a call brings with it (`grpc-timeout`, gRPC over HTTP/2).

use std::time::Duration;

use http::HeaderMap;

use crate::model::error::{Error, Reason};

/// Most digits that the number may have.
const MAX_DIGITS: usize = 8;

/// How long the call may take; `None` where it does not say, or says it wrongly.
pub(super) fn of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > MAX_DIGITS || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// The failure of a call whose deadline has passed.
pub(super) fn passed() -> Error {
    Error::new(Reason::DeadlinePassed, "", "the deadline of the call has passed; give it more time")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Duration> {
        of(&HeaderMap::from_iter([(http::HeaderName::from_static("grpc-timeout"), text.parse().ok()?)]))
    }

    #[test]
    fn every_unit_is_read_and_nothing_else() {
        for (text, wanted) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("10S", Some(Duration::from_secs(10))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("5", None),
            ("+5S", None),
            ("100000000S", None),
            ("5\u{e9}", None),
        ] {
            assert_eq!(read(text), wanted, "{text:?}");
        }
        assert_eq!(of(&HeaderMap::new()), None);
    }
}
