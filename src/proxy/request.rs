//! From a caller's request to the one on the wire.

use http::{
    HeaderMap, HeaderValue, Method, Uri,
    header::{CONNECTION, CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING, UPGRADE},
};

use super::{
    RequestHead, headers, path,
    upload::{Length, Sending},
};
use crate::model::error::{Error, Reason, Result};

const MAX_METHOD_BYTES: usize = 64;

/// A checked request, without its body.
pub(super) struct Built {
    method: Method,
    target: Uri,
    headers: HeaderMap,
}

impl Built {
    /// The request with a body.
    pub(super) fn request(&self, body: Sending) -> http::Request<Sending> {
        let mut request = http::Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// Whether a backend that read only a part of it cannot have acted on it: it asks for nothing but an answer, and
    /// ends with its head.
    pub(super) fn is_safe(&self) -> bool {
        let has_body = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| self.headers.contains_key(name));
        self.method.is_safe() && !has_body && !self.may_switch()
    }

    /// Whether it asks for another protocol.
    pub(super) fn may_switch(&self) -> bool {
        self.headers.contains_key(UPGRADE)
    }
}

/// Checks a request and frames it. Its target is always in origin form.
///
/// # Errors
///
/// `PATH_INVALID`, `HEADER_INVALID`, `METHOD_INVALID`.
pub(super) fn build(head: &RequestHead, length: Length) -> Result<Built> {
    let method = parse_method(&head.method)?;
    let target = Uri::from(path::encode(&head.path)?);
    let mut headers = headers::request(&head.headers)?;
    match length {
        // RFC 9110 8.6: methods that usually carry a body say so when they do not.
        Length::Known(bytes) if bytes > 0 || matches!(method, Method::POST | Method::PUT | Method::PATCH) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
        }
        Length::Known(_) => {}
        Length::Unknown => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            for name in &head.trailers {
                headers.append(TRAILER, headers::trailer_name(name)?);
            }
        }
    }
    if let Some(protocol) = &head.upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, headers::protocol(protocol)?);
    }
    Ok(Built { method, target, headers })
}

fn parse_method(method: &str) -> Result<Method> {
    let refused = |message: &str| Error::new(Reason::MethodInvalid, "method", message);
    if method.len() > MAX_METHOD_BYTES {
        return Err(refused("the method is longer than 64 bytes; give a token such as GET"));
    }
    if method.eq_ignore_ascii_case("CONNECT") {
        return Err(refused("CONNECT asks for a tunnel, which has no response; give another method"));
    }
    Method::from_bytes(method.as_bytes()).map_err(|_| refused("the method is not a token; give one such as GET"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(method: &str, length: Length) -> Result<Built> {
        build(&RequestHead { method: method.into(), path: "/".into(), ..RequestHead::default() }, length)
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
            let built = built(method, Length::Known(bytes)).unwrap();
            assert_eq!(built.headers.get(CONTENT_LENGTH).map(|value| value.to_str().unwrap()), wanted);
            assert!(!built.headers.contains_key(TRANSFER_ENCODING));
        }
        for method in ["GET", "POST"] {
            let built = built(method, Length::Unknown).unwrap();
            assert_eq!(built.headers[TRANSFER_ENCODING], "chunked");
            assert!(!built.headers.contains_key(CONTENT_LENGTH));
        }
    }

    #[test]
    fn any_token_is_a_method_but_connect() {
        assert_eq!(built("M-SEARCH", Length::Known(0)).unwrap().method.as_str(), "M-SEARCH");
        for method in ["", "GET /x", "G\r\nT", "é", "CONNECT", "connect", &"A".repeat(65)] {
            let refused = built(method, Length::Known(0)).map(|_| ()).unwrap_err();
            assert_eq!(refused.reason(), Reason::MethodInvalid, "{method:?}");
        }
    }

    #[test]
    fn trailers_and_protocols_are_announced() {
        let head = RequestHead {
            method: "POST".into(),
            path: "/".into(),
            trailers: vec!["X-Sum".into(), "x-end".into()],
            upgrade: Some("websocket".into()),
            ..RequestHead::default()
        };
        let built = build(&head, Length::Unknown).unwrap();
        let names: Vec<&HeaderValue> = built.headers.get_all(TRAILER).iter().collect();
        assert_eq!(names, ["x-sum", "x-end"]);
        assert_eq!(
            (&built.headers[CONNECTION], &built.headers[UPGRADE]),
            (&"Upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
        for name in ["content-length", "Transfer-Encoding", "host", "a b", ""] {
            let head = RequestHead { trailers: vec![name.into()], ..head.clone() };
            assert_eq!(build(&head, Length::Unknown).map(|_| ()).unwrap_err().reason(), Reason::HeaderInvalid);
        }
        for protocol in ["", "h2c\r\nX: y", "web socket"] {
            let head = RequestHead { upgrade: Some(protocol.into()), ..head.clone() };
            assert_eq!(build(&head, Length::Unknown).map(|_| ()).unwrap_err().reason(), Reason::HeaderInvalid);
        }
    }
}
