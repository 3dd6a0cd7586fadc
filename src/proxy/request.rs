//! From a caller's request to the bytes on the wire.

use bytes::Bytes;
use http::{
    Method, Uri, Version,
    header::{CONTENT_LENGTH, TRAILER},
    uri::{Authority, PathAndQuery, Scheme},
};

use super::{HeaderLine, RequestHead, headers, path, response::Asked, upload::Length};
use crate::model::error::{Error, Reason, Result};

const MAX_METHOD_BYTES: usize = 64;
/// Room for the heads of most requests.
const ROOM_BYTES: usize = 512;

/// A checked request without its body.
#[derive(Debug)]
pub(super) struct Built {
    /// Its head as it goes on the wire.
    pub(super) head: Bytes,
    /// Whether a backend that read only a part of it cannot have acted on it: it asks for nothing but an answer, and ends
    /// with its head.
    pub(super) is_safe: bool,
    /// What it asks for.
    pub(super) asked: Asked,
}

/// Checks a request and frames it. Its target is always in origin form.
///
/// # Errors
///
/// `PATH_INVALID`, `HEADER_INVALID`, `METHOD_INVALID`.
pub(super) fn build(request: &RequestHead, length: Length) -> Result<Built> {
    let method = parse_method(&request.method)?;
    let target = path::encode(&request.path)?;
    let mut head = Vec::with_capacity(ROOM_BYTES);
    for part in [method.as_str(), " ", target.as_str(), " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    headers::write_request(&mut head, &request.headers)?;
    if let Some(bytes) = said_length(&method, length) {
        headers::write_line(&mut head, "content-length", bytes.to_string().as_bytes());
    }
    if length == Length::Unknown {
        headers::write_line(&mut head, "transfer-encoding", b"chunked");
        for name in &request.trailers {
            headers::check_trailer_name(name)?;
            headers::write_line(&mut head, "trailer", name.to_ascii_lowercase().as_bytes());
        }
    }
    if let Some(protocol) = &request.upgrade {
        headers::check_protocol(protocol)?;
        headers::write_line(&mut head, "connection", b"Upgrade");
        headers::write_line(&mut head, "upgrade", protocol.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    let may_switch = request.upgrade.is_some();
    let is_safe = method.is_safe() && length == Length::Known(0) && !may_switch;
    Ok(Built { head: head.into(), is_safe, asked: Asked { head_only: method == Method::HEAD, may_switch } })
}

/// The same for HTTP/2, once [`build`] found nothing wrong with it. One for another protocol is an extended CONNECT
/// (RFC 8441).
///
/// # Errors
///
/// `HEADER_INVALID` for a `Host` that is none; `PATH_INVALID`.
pub(super) fn build_http2(request: &RequestHead, length: Length) -> Result<http::Request<()>> {
    let method = parse_method(&request.method)?;
    let host = request.headers.iter().find(|line| line.name.eq_ignore_ascii_case("host"));
    let host = host.map_or(&b"localhost"[..], |line| &line.value);
    let authority = Authority::try_from(host).map_err(|_| {
        Error::new(Reason::HeaderInvalid, "headers", "header \"Host\" is no authority, which HTTP/2 needs it to be")
    })?;
    let target = path::encode(&request.path)?;
    let wrong = |error: http::Error| {
        Error::new(Reason::PathInvalid, "path", "the path cannot be sent over HTTP/2").caused_by(error)
    };
    let target = PathAndQuery::try_from(target.as_str()).map_err(|error| wrong(error.into()))?;
    let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(target).build().map_err(wrong)?;
    let mut built =
        http::Request::builder().method(&method).uri(uri).version(Version::HTTP_2).body(()).map_err(wrong)?;
    for line in request.headers.iter().filter(|line| !line.name.eq_ignore_ascii_case("host")) {
        let (name, value) = headers::for_http2(line)?;
        built.headers_mut().append(name, value);
    }
    if let Some(bytes) = said_length(&method, length) {
        built.headers_mut().insert(CONTENT_LENGTH, bytes.into());
    }
    for name in request.trailers.iter().filter(|_| length == Length::Unknown) {
        let (_, value) = headers::for_http2(&HeaderLine::new("trailer", name.to_ascii_lowercase()))?;
        built.headers_mut().append(TRAILER, value);
    }
    if let Some(protocol) = &request.upgrade {
        *built.method_mut() = Method::CONNECT;
        built.headers_mut().remove(CONTENT_LENGTH);
        built.extensions_mut().insert(h2::ext::Protocol::from(protocol.as_str()));
    }
    Ok(built)
}

/// The length that is said (RFC 9110 8.6): methods that usually carry a body say so when they do not.
fn said_length(method: &Method, length: Length) -> Option<u64> {
    match length {
        Length::Known(bytes) if bytes > 0 || matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
            Some(bytes)
        }
        Length::Known(_) | Length::Unknown => None,
    }
}

fn parse_method(method: &str) -> Result<Method> {
    let refused = |message: &str| Error::new(Reason::MethodInvalid, "method", message);
    if method.len() > MAX_METHOD_BYTES {
        return Err(refused("the method is longer than 64 bytes; give a token such as GET"));
    }
    if method.eq_ignore_ascii_case("CONNECT") {
        return Err(refused("CONNECT has no response, but raw bytes after it; give another method"));
    }
    Method::from_bytes(method.as_bytes()).map_err(|_| refused("the method is not a token; give one such as GET"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(head: &RequestHead, length: Length) -> Result<String> {
        build(head, length).map(|built| String::from_utf8(built.head.to_vec()).unwrap())
    }

    fn asking(method: &str) -> RequestHead {
        RequestHead { method: method.into(), path: "/".into(), ..RequestHead::default() }
    }

    #[test]
    fn length_is_said_where_there_is_or_should_be_a_body() {
        for (method, bytes, wanted) in [
            ("GET", 0, None),
            ("DELETE", 0, None),
            ("GET", 1, Some("1")),
            ("POST", 0, Some("0")),
            ("PUT", 0, Some("0")),
            ("PATCH", 0, Some("0")),
            ("POST", 2, Some("2")),
        ] {
            let written = written(&asking(method), Length::Known(bytes)).unwrap();
            let length = wanted.map(|bytes| format!("Content-Length: {bytes}\r\n")).unwrap_or_default();
            assert_eq!(written, format!("{method} / HTTP/1.1\r\nHost: localhost\r\n{length}\r\n"));
        }
        for method in ["GET", "POST"] {
            let written = written(&asking(method), Length::Unknown).unwrap();
            let wanted = format!("{method} / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
            assert_eq!(written, wanted);
        }
    }

    #[test]
    fn any_token_is_a_method_but_connect() {
        assert!(written(&asking("M-SEARCH"), Length::Known(0)).unwrap().starts_with("M-SEARCH / "));
        for method in ["", "GET /x", "G\r\nT", "é", "CONNECT", "connect", &"A".repeat(65)] {
            let refused = written(&asking(method), Length::Known(0)).unwrap_err();
            assert_eq!(refused.reason(), Reason::MethodInvalid, "{method:?}");
        }
    }

    #[test]
    fn trailers_and_protocols_are_announced() {
        let head = RequestHead {
            trailers: vec!["X-Sum".into(), "x-end".into()],
            upgrade: Some("websocket".into()),
            ..asking("POST")
        };
        let told = "Trailer: x-sum\r\nTrailer: x-end\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert!(written(&head, Length::Unknown).unwrap().ends_with(told));
        for name in ["content-length", "Transfer-Encoding", "host", "a b", ""] {
            let head = RequestHead { trailers: vec![name.into()], ..head.clone() };
            assert_eq!(written(&head, Length::Unknown).unwrap_err().reason(), Reason::HeaderInvalid);
        }
        for protocol in ["", "h2c\r\nX: y", "web socket", "a/b/c"] {
            let head = RequestHead { upgrade: Some(protocol.into()), ..head.clone() };
            assert_eq!(written(&head, Length::Unknown).unwrap_err().reason(), Reason::HeaderInvalid);
        }
    }

    #[test]
    fn only_what_asks_for_an_answer_and_ends_with_its_head_is_safe() {
        let is_safe = |head: &RequestHead, length| build(head, length).unwrap().is_safe;
        assert!(is_safe(&asking("GET"), Length::Known(0)) && is_safe(&asking("HEAD"), Length::Known(0)));
        let switching = RequestHead { upgrade: Some("x".into()), ..asking("GET") };
        let (post, with_body) = (is_safe(&asking("POST"), Length::Known(0)), is_safe(&asking("GET"), Length::Known(1)));
        assert!(!post && !with_body && !is_safe(&asking("GET"), Length::Unknown));
        assert!(!is_safe(&switching, Length::Known(0)));
    }
}
