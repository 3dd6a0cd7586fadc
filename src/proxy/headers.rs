//! Which header lines travel, in both directions.

use std::collections::HashSet;

use super::HeaderLine;
use crate::model::{
    error::{Error, Reason, Result},
    token::is_token,
};

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

/// Writes a caller's header lines as they go on the wire, checked: names as they are usually written, `Host: localhost`
/// first where there is no `Host`, else that. Order is kept.
///
/// # Errors
///
/// `HEADER_INVALID`: name is not a token, value holds control characters, the header is the broker's to set, `Host`
/// twice, or over [`MAX_HEADER_BYTES`] or [`MAX_HEADER_LINES`].
pub fn write_request(out: &mut Vec<u8>, lines: &[HeaderLine]) -> Result<()> {
    check_size(lines)?;
    let mut hosts = lines.iter().filter(|line| is_named(line, "host"));
    // Host stands first, as RFC 9110 7.2 asks for.
    match (hosts.next(), hosts.next()) {
        (None, _) => out.extend_from_slice(b"Host: localhost\r\n"),
        (Some(host), None) => write_checked(out, host)?,
        (Some(_), Some(second)) => return Err(refused(&second.name, "is given twice; give it once")),
    }
    for line in lines.iter().filter(|line| !is_named(line, "host")) {
        if OURS.iter().any(|ours| is_named(line, ours)) {
            return Err(refused(&line.name, "is set by the broker; leave it out"));
        }
        write_checked(out, line)?;
    }
    Ok(())
}

/// Writes one line that is known to be right.
pub(super) fn write_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let mut begins = true;
    for byte in name.bytes() {
        // Hand-written backends look for `Content-Length` as it is usually written.
        out.push(if begins { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() });
        begins = byte == b'-';
    }
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_checked(out: &mut Vec<u8>, line: &HeaderLine) -> Result<()> {
    check(line)?;
    write_line(out, &line.name, &line.value);
    Ok(())
}

/// One line that was checked, as HTTP/2 has it.
pub(super) fn for_http2(line: &HeaderLine) -> Result<(http::HeaderName, http::HeaderValue)> {
    let name = http::HeaderName::from_bytes(line.name.as_bytes());
    let name = name.map_err(|_| refused(&line.name, "is not a header name; use letters, digits and - only"))?;
    let value = http::HeaderValue::from_maybe_shared(line.value.clone());
    Ok((name, value.map_err(|_| refused(&line.name, "has a value that cannot be sent"))?))
}

/// A line of an answer, as it was parsed.
pub(super) fn received(header: &httparse::Header<'_>) -> HeaderLine {
    let mut value = header.value.to_vec();
    if value.contains(&b'\n') {
        // RFC 9112 5.2: a folded line is one line.
        value = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect::<Vec<_>>().join(&b' ');
    }
    HeaderLine { name: header.name.to_ascii_lowercase(), value: value.into() }
}

/// The lines of an answer's head or trailers that travel on: all but the hop-by-hop ones and those that `Connection`
/// names. Order is kept.
pub fn forwardable(mut lines: Vec<HeaderLine>) -> Vec<HeaderLine> {
    let named: HashSet<Vec<u8>> = lines.iter().filter(|line| line.name == "connection").flat_map(tokens).collect();
    lines.retain(|line| !HOP_BY_HOP.contains(&line.name.as_str()) && !named.contains(line.name.as_bytes()));
    lines
}

/// The lines of trailers that travel on.
pub(super) fn forwardable_trailers(lines: Vec<HeaderLine>) -> Vec<HeaderLine> {
    let mut lines = forwardable(lines);
    // RFC 9110 6.5.1: what frames the message means nothing after it.
    lines.retain(|line| line.name != "content-length");
    lines
}

/// The names in a list, in lower case.
fn tokens(line: &HeaderLine) -> impl Iterator<Item = Vec<u8>> {
    let names = line.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    names.filter(|name| !name.is_empty()).map(<[u8]>::to_ascii_lowercase)
}

/// Checks the name of a trailer, as it is announced.
///
/// # Errors
///
/// `HEADER_INVALID`: not a token, or a header that means nothing after the body.
pub(super) fn check_trailer_name(name: &str) -> Result<()> {
    if !is_token(name.as_bytes()) {
        return Err(refused(name, "is not the name of a trailer; use letters, digits and - only"));
    }
    if OURS.iter().chain(&["host"]).any(|ours| name.eq_ignore_ascii_case(ours)) {
        return Err(refused(name, "cannot be a trailer; it belongs before the body"));
    }
    Ok(())
}

/// The trailers of a request.
///
/// # Errors
///
/// `HEADER_INVALID`, as for [`write_request`], and for what means nothing behind a body, such as `Content-Length`.
pub fn trailers(lines: Vec<HeaderLine>) -> Result<Vec<HeaderLine>> {
    check_size(&lines)?;
    for line in &lines {
        check_trailer_name(&line.name)?;
        check(line)?;
    }
    Ok(lines)
}

/// Checks a protocol to switch to, such as `websocket` or `h2c/1`.
///
/// # Errors
///
/// `HEADER_INVALID`.
pub(super) fn check_protocol(name: &str) -> Result<()> {
    match name.splitn(2, '/').all(|part| is_token(part.as_bytes())) {
        true => Ok(()),
        false => Err(refused("Upgrade", "must name one protocol, such as websocket")),
    }
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

fn check(line: &HeaderLine) -> Result<()> {
    if !is_token(line.name.as_bytes()) {
        return Err(refused(&line.name, "is not a header name; use letters, digits and - only"));
    }
    let is_value = |byte: &u8| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f;
    if !line.value.iter().all(is_value) {
        return Err(refused(&line.name, "has a value with control characters; CR, LF and NUL cannot be sent"));
    }
    Ok(())
}

fn is_named(line: &HeaderLine, name: &str) -> bool {
    line.name.eq_ignore_ascii_case(name)
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

    fn request(lines: &[HeaderLine]) -> Result<Vec<u8>> {
        let mut written = Vec::new();
        write_request(&mut written, lines).map(|()| written)
    }

    fn written(pairs: &[(&str, &str)]) -> String {
        String::from_utf8(request(&lines(pairs)).unwrap()).unwrap()
    }

    #[test]
    fn host_is_first_and_localhost() {
        assert_eq!(written(&[("Accept", "*/*")]), "Host: localhost\r\nAccept: */*\r\n");
        assert_eq!(written(&[("Accept", "*/*"), ("HOST", "db")]), "Host: db\r\nAccept: */*\r\n");
        let error = request(&lines(&[("Host", "a"), ("host", "b")])).unwrap_err();
        assert!(error.message().contains("twice"));
    }

    #[test]
    fn order_and_duplicates_are_kept() {
        let written = written(&[("X-A", "1"), ("x-b", "2"), ("x-a", "3"), ("X-a-BC", "1")]);
        assert_eq!(written, "Host: localhost\r\nX-A: 1\r\nX-B: 2\r\nX-A: 3\r\nX-A-Bc: 1\r\n");
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
        let written = request(&[HeaderLine::new("X-A", &b"\xff\xe9\t\"\\"[..])]).unwrap();
        assert_eq!(written, b"Host: localhost\r\nX-A: \xff\xe9\t\"\\\r\n");
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
        let came = lines(&[
            ("connection", "close, X-Private,"),
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
        ]);
        assert_eq!(forwardable(came), lines(&[("set-cookie", "a=1"), ("x-kept", "1"), ("set-cookie", "b=2")]));
    }

    /// However many there are of both.
    #[test]
    fn many_names_in_many_lines_are_looked_up() {
        let many = "a,".repeat(MAX_HEADER_BYTES / 2);
        let mut came = lines(&[("connection", many.as_str()); 2]);
        came.extend(lines(&[("x-kept", "1"), ("a", "1")]));
        assert_eq!(forwardable(came), lines(&[("x-kept", "1")]));
    }

    proptest! {
        #[test]
        fn nothing_accepted_can_break_a_line(name in ".{0,8}", value in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(written) = request(&[HeaderLine::new(name, value)]) {
                let lines: Vec<&[u8]> = written.split(|byte| *byte == b'\n').collect();
                // One of them may be the host itself.
                prop_assert!(matches!(lines.len(), 2 | 3) && lines.last() == Some(&&b""[..]));
                for line in &lines[..lines.len() - 1] {
                    let line = line.strip_suffix(b"\r").unwrap();
                    prop_assert!(!line.iter().any(|byte| b"\r\n\0".contains(byte)));
                    let colon = line.iter().position(|byte| *byte == b':').unwrap();
                    prop_assert!(colon > 0 && line[..colon].iter().all(u8::is_ascii_graphic));
                }
            }
        }
    }
}
