//! What a caller may put where a path goes, and how it is made legal.
//!
//! Real front ends do not encode: JSON, host paths and blanks stand raw in queries, so what is illegal is encoded rather
//! than refused. What could make the request go elsewhere (an absolute URL, a second leading slash) or split it in two
//! (control characters) is refused.

use bytes::Bytes;
use http::uri::PathAndQuery;

use crate::model::error::{Error, Reason, Result};

/// Longest path and query in bytes, as written and as encoded: 64 KiB less the two bytes that [`http::Uri`] keeps for
/// itself.
pub const MAX_PATH_BYTES: usize = 65_534;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Makes `path` (path and query) legal in a request line.
///
/// Kept: what RFC 3986 allows in a path or query, `%` with two hexadecimal digits, `//`, `@`, dot segments. Encoded:
/// every other byte, `\` and `#` included, and a `%` that encodes nothing. Encoding twice changes nothing.
///
/// # Errors
///
/// `PATH_INVALID`: does not begin with one `/`, second byte `/` or `\`, control characters, over [`MAX_PATH_BYTES`].
pub fn encode(path: &str) -> Result<PathAndQuery> {
    let bytes = path.as_bytes();
    check_start(bytes)?;
    if bytes.len() > MAX_PATH_BYTES {
        return Err(too_long());
    }
    if let Some(control) = bytes.iter().find(|byte| byte.is_ascii_control()) {
        return Err(refused(format!(
            "the path holds the control character 0x{control:02x}; encode it as %{control:02X}"
        )));
    }
    let encoded = encode_bytes(bytes);
    if encoded.len() > MAX_PATH_BYTES {
        return Err(too_long());
    }
    PathAndQuery::from_maybe_shared(Bytes::from(encoded))
        .map_err(|error| refused("the path cannot be encoded; give a path such as /hello?name=x").caused_by(error))
}

fn check_start(path: &[u8]) -> Result<()> {
    match path {
        [b'/', b'/' | b'\\', ..] => {
            Err(refused("the path begins with two slashes, which names another host; begin it with one /"))
        }
        [b'/', ..] => Ok(()),
        [] => Err(refused("the path is empty; give at least /")),
        _ if path.windows(3).any(|part| part == b"://") => {
            Err(refused("the path is an absolute URL; give path and query only, such as /hello?name=x"))
        }
        _ => Err(refused("the path does not begin with /; give a path such as /hello?name=x")),
    }
}

fn encode_bytes(path: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(path.len());
    for (at, &byte) in path.iter().enumerate() {
        if is_legal(byte) || (byte == b'%' && begins_escape(&path[at..])) {
            encoded.push(byte);
        } else {
            let digits = [b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            encoded.extend_from_slice(&digits);
        }
    }
    encoded
}

/// RFC 3986: pchar, `/` and `?`.
fn is_legal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&byte)
}

fn begins_escape(rest: &[u8]) -> bool {
    matches!(rest, [_, high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

fn too_long() -> Error {
    refused(format!("the path is longer than {MAX_PATH_BYTES} bytes; send large values in the body"))
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(Reason::PathInvalid, "path", message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(path: &str) -> String {
        encode(path).unwrap().as_str().to_owned()
    }

    #[test]
    fn keeps_what_is_legal() {
        for path in
            ["/", "/a//b", "/%2F%2f", "/user@host/x", "/a/../b", "/?a=b&c=d?e/f", "/x;v=1,2", "/a:b", "/%2F/", "/@x"]
        {
            assert_eq!(encoded(path), path);
        }
    }

    #[test]
    fn encodes_what_is_not() {
        for (path, wanted) in [
            (r#"/p?creds={"a":"b c"}"#, "/p?creds=%7B%22a%22:%22b%20c%22%7D"),
            (r"/export?path=C:\Users\me", "/export?path=C:%5CUsers%5Cme"),
            ("/a\\b", "/a%5Cb"),
            ("/a#b", "/a%23b"),
            ("/100%", "/100%25"),
            ("/100%2", "/100%252"),
            ("/%zz", "/%25zz"),
            ("/%%41", "/%25%41"),
            ("/a|b^c`d<e>", "/a%7Cb%5Ec%60d%3Ce%3E"),
            ("/?a[]=1", "/?a%5B%5D=1"),
            ("/é", "/%C3%A9"),
            ("/\u{85}", "/%C2%85"),
        ] {
            assert_eq!(encoded(path), wanted);
        }
    }

    #[test]
    fn refuses_what_leads_elsewhere() {
        for path in [
            "",
            "hello",
            "*",
            "//host/x",
            "/\\host/x",
            "\\x",
            "http://host/x",
            " /x",
            "?x",
            "/a\r\nb",
            "/a\nb",
            "/a\0b",
            "/a\tb",
            "/a\x7fb",
            "/?a\rb",
        ] {
            assert_eq!(encode(path).unwrap_err().reason(), Reason::PathInvalid, "{path:?}");
        }
    }

    #[test]
    fn says_what_would_be_right() {
        assert!(encode("http://localhost:7000").unwrap_err().message().contains("absolute URL"));
        assert!(encode("/a\rb").unwrap_err().message().contains("%0D"));
    }

    #[test]
    fn is_bounded_before_and_after() {
        let longest = format!("/{}", "a".repeat(MAX_PATH_BYTES - 1));
        assert_eq!(encoded(&longest), longest);
        assert!(encode(&format!("{longest}a")).is_err());
        assert!(encode(&format!("/{}", " ".repeat(30_000))).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_made_legal(path in "(/|//|)?.{0,40}") {
            if let Ok(once) = encode(&path) {
                let once = once.as_str().to_owned();
                prop_assert!(once.bytes().all(|byte| is_legal(byte) || byte == b'%'));
                prop_assert!(once.starts_with('/') && !once.starts_with("//"));
                prop_assert_eq!(encoded(&once), once);
            }
        }

        #[test]
        fn printable_paths_are_taken(rest in r#"[a-z{}"\\ |^%#@é]{0,30}"#) {
            let path = format!("/x{rest}");
            let once = encoded(&path);
            prop_assert_eq!(encoded(&once), once);
        }
    }
}
