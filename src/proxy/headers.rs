//! Which header lines travel, in both directions.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, HOST},
};

use super::HeaderLine;
use crate::model::error::{Error, Reason, Result};

/// Most bytes of headers, counted as written on the wire: names, values, separators and line ends.
pub const MAX_HEADER_BYTES: usize = 64 << 10;

/// Most header lines.
pub const MAX_HEADER_LINES: usize = 200;

/// What concerns one connection, or how the body is framed: the broker's to set. RFC 9110 7.6.1, and `Proxy-Connection`
/// for those who still send it.
const OURS: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers of an answer that end at the broker.
const HOP_BY_HOP: &[&str] =
    &["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// Checks a caller's header lines; adds `Host: localhost`, first, where there is none. Order is kept, lines of one name
/// come to stand together.
///
/// # Errors
///
/// `HEADER_INVALID`: name is not a token, value holds control characters, the header is the broker's to set, `Host`
/// twice, or over [`MAX_HEADER_BYTES`] or [`MAX_HEADER_LINES`].
pub fn request(lines: &[HeaderLine]) -> Result<HeaderMap> {
    check_size(lines)?;
    // Host stands first, as RFC 9110 7.2 asks for; room for Content-Length.
    let mut headers = HeaderMap::with_capacity(lines.len() + 2);
    headers.insert(HOST, HeaderValue::from_static("localhost"));
    let mut own_host = false;
    for line in lines {
        let (name, value) = parse(line)?;
        if OURS.contains(&name.as_str()) {
            return Err(refused(&line.name, "is set by the broker; leave it out"));
        }
        if name != HOST {
            headers.append(name, value);
        } else if std::mem::replace(&mut own_host, true) {
            return Err(refused(&line.name, "is given twice; give it once"));
        } else {
            headers.insert(HOST, value);
        }
    }
    Ok(headers)
}

/// The lines of an answer's head or trailers that travel on: all but the hop-by-hop ones and those that `Connection`
/// names.
pub fn forwardable(headers: &HeaderMap) -> Vec<HeaderLine> {
    let named = named_by_connection(headers);
    headers
        .iter()
        .filter(|(name, _)| !HOP_BY_HOP.contains(&name.as_str()) && !named.contains(name))
        .map(|(name, value)| HeaderLine::new(name.as_str(), Bytes::copy_from_slice(value.as_bytes())))
        .collect()
}

/// The name of a trailer as it is announced.
///
/// # Errors
///
/// `HEADER_INVALID`: not a token, or a header that means nothing after the body.
pub(super) fn trailer_name(name: &str) -> Result<HeaderValue> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| refused(name, "is not the name of a trailer; use letters, digits and - only"))?;
    if OURS.contains(&parsed.as_str()) || parsed == HOST {
        return Err(refused(name, "cannot be a trailer; it belongs before the body"));
    }
    Ok(HeaderValue::from(parsed))
}

/// The trailers of a request.
///
/// # Errors
///
/// `HEADER_INVALID`, as for [`request`], and for what means nothing behind a body, such as `Content-Length`.
pub fn trailers(lines: &[HeaderLine]) -> Result<HeaderMap> {
    check_size(lines)?;
    let mut headers = HeaderMap::with_capacity(lines.len());
    for line in lines {
        trailer_name(&line.name)?;
        let (name, value) = parse(line)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// A protocol to switch to, such as `websocket` or `h2c/1`.
///
/// # Errors
///
/// `HEADER_INVALID`.
pub(super) fn protocol(name: &str) -> Result<HeaderValue> {
    let is_token = |part: &str| !part.is_empty() && HeaderName::from_bytes(part.as_bytes()).is_ok();
    if !name.splitn(2, '/').all(is_token) {
        return Err(refused("Upgrade", "must name one protocol, such as websocket"));
    }
    HeaderValue::from_str(name).map_err(|_| refused("Upgrade", "must name one protocol, such as websocket"))
}

fn check_size(lines: &[HeaderLine]) -> Result<()> {
    if lines.len() > MAX_HEADER_LINES {
        let message = format!("there are {} header lines; give at most {MAX_HEADER_LINES}", lines.len());
        return Err(Error::new(Reason::HeaderInvalid, "headers", message));
    }
    let bytes: usize = lines.iter().map(|line| line.name.len() + line.value.len() + ": \r\n".len()).sum();
    if bytes > MAX_HEADER_BYTES {
        let message = format!("the headers take {bytes} bytes; give at most {MAX_HEADER_BYTES}");
        return Err(Error::new(Reason::HeaderInvalid, "headers", message));
    }
    Ok(())
}

fn parse(line: &HeaderLine) -> Result<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(line.name.as_bytes())
        .map_err(|_| refused(&line.name, "is not a header name; use letters, digits and - only"))?;
    let value = HeaderValue::from_maybe_shared(line.value.clone())
        .map_err(|_| refused(&line.name, "has a value with control characters; CR, LF and NUL cannot be sent"))?;
    Ok((name, value))
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(CONNECTION).iter();
    let names = lines.flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}

/// Names the header, never its value: it may be a secret.
fn refused(name: &str, what: &str) -> Error {
    let shown: String = name.chars().take(64).collect();
    let message = format!("header \"{}\" {what}", shown.escape_debug());
    Error::new(Reason::HeaderInvalid, "headers", message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pairs: &[(&str, &str)]) -> Vec<HeaderLine> {
        pairs.iter().map(|(name, value)| HeaderLine::new(*name, value.as_bytes().to_vec())).collect()
    }

    fn shown(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
        headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn host_is_first_and_localhost() {
        let headers = request(&lines(&[("Accept", "*/*")])).unwrap();
        assert_eq!(shown(&headers), [("host".into(), b"localhost".to_vec()), ("accept".into(), b"*/*".to_vec())]);
        let headers = request(&lines(&[("Accept", "*/*"), ("HOST", "db")])).unwrap();
        assert_eq!(shown(&headers)[0], ("host".into(), b"db".to_vec()));
        let error = request(&lines(&[("Host", "a"), ("host", "b")])).unwrap_err();
        assert!(error.message().contains("twice"));
    }

    #[test]
    fn order_and_duplicates_are_kept() {
        let headers = request(&lines(&[("X-A", "1"), ("x-b", "2"), ("x-a", "3"), ("x-a", "1")])).unwrap();
        let values: Vec<_> = headers.get_all("x-a").iter().map(|value| value.as_bytes().to_vec()).collect();
        assert_eq!(values, [b"1".to_vec(), b"3".to_vec(), b"1".to_vec()]);
    }

    #[test]
    fn the_brokers_own_are_refused_by_name() {
        for name in [
            "Connection",
            "Transfer-Encoding",
            "CONTENT-LENGTH",
            "expect",
            "Keep-Alive",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Upgrade",
        ] {
            let error = request(&lines(&[(name, "x")])).unwrap_err();
            assert_eq!(error.reason(), Reason::HeaderInvalid);
            assert!(error.message().contains(name), "{}", error.message());
        }
    }

    #[test]
    fn injection_is_refused_and_the_value_not_shown() {
        for (name, value) in [
            ("X-A", "secret\r\nX-B: 1"),
            ("X-A", "secret\nX"),
            ("X-A", "secret\0"),
            ("X-A\r\nX-B", "secret"),
            ("X A", "secret"),
            ("X-A:", "secret"),
            ("", "secret"),
            ("é", "secret"),
        ] {
            let error = request(&lines(&[(name, value)])).unwrap_err();
            assert_eq!(error.reason(), Reason::HeaderInvalid);
            assert!(!error.message().contains("secret") && !error.message().contains('\n'));
        }
    }

    #[test]
    fn any_other_bytes_travel() {
        let headers = request(&[HeaderLine::new("X-A", &b"\xff\xe9\t\"\\"[..])]).unwrap();
        assert_eq!(headers["x-a"].as_bytes(), b"\xff\xe9\t\"\\");
    }

    #[test]
    fn size_is_bounded() {
        assert!(request(&vec![HeaderLine::new("a", "b"); MAX_HEADER_LINES]).is_ok());
        assert!(request(&vec![HeaderLine::new("a", "b"); MAX_HEADER_LINES + 1]).is_err());
        assert!(request(&[HeaderLine::new("a", vec![b'x'; MAX_HEADER_BYTES - 5])]).is_ok());
        assert!(request(&[HeaderLine::new("a", vec![b'x'; MAX_HEADER_BYTES - 4])]).is_err());
    }

    #[test]
    fn hop_by_hop_and_connection_named_lines_end_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("connection", "x-other"),
            ("x-private", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-t"),
            ("upgrade", "h2c"),
            ("set-cookie", "a=1"),
            ("x-kept", "1"),
            ("set-cookie", "b=2"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        assert_eq!(forwardable(&headers), lines(&[("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-kept", "1")]));
    }

    proptest! {
        #[test]
        fn nothing_accepted_can_break_a_line(name in ".{0,8}", value in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(headers) = request(&[HeaderLine::new(name, value)]) {
                for (name, value) in &headers {
                    prop_assert!(name.as_str().bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
                    prop_assert!(!value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte)));
                }
            }
        }
    }
}
