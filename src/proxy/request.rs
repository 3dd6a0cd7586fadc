//! From a caller's request to the one on the wire.

use bytes::Bytes;
use http::{HeaderValue, Method, Uri, header::CONTENT_LENGTH};
use http_body_util::Full;

use super::{Request, headers, path};
use crate::model::error::{Error, Reason, Result};

const MAX_METHOD_BYTES: usize = 64;

/// Checks a request and frames it. Its target is always in origin form, its length always known.
pub(super) fn build(request: Request) -> Result<http::Request<Full<Bytes>>> {
    let method = parse_method(&request.method)?;
    let target = path::encode(&request.path)?;
    let mut headers = headers::request(&request.headers)?;
    // RFC 9110 8.6: methods that usually carry a body say so when they do not.
    if !request.body.is_empty() || matches!(method, Method::POST | Method::PUT | Method::PATCH) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(request.body.len()));
    }
    let mut built = http::Request::new(Full::new(request.body));
    *built.method_mut() = method;
    *built.uri_mut() = Uri::from(target);
    *built.headers_mut() = headers;
    Ok(built)
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

    fn request(method: &str, body: &'static str) -> Request {
        Request {
            method: method.into(),
            path: "/".into(),
            headers: Vec::new(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn length_is_said_where_there_is_or_should_be_a_body() {
        for (method, body, wanted) in [
            ("GET", "", None),
            ("DELETE", "", None),
            ("GET", "x", Some("1")),
            ("POST", "", Some("0")),
            ("PUT", "", Some("0")),
            ("PATCH", "", Some("0")),
            ("POST", "xy", Some("2")),
        ] {
            let built = build(request(method, body)).unwrap();
            assert_eq!(built.headers().get(CONTENT_LENGTH).map(|value| value.to_str().unwrap()), wanted);
        }
    }

    #[test]
    fn any_token_is_a_method_but_connect() {
        assert_eq!(build(request("M-SEARCH", "")).unwrap().method().as_str(), "M-SEARCH");
        for method in ["", "GET /x", "G\r\nT", "é", "CONNECT", "connect", &"A".repeat(65)] {
            assert_eq!(build(request(method, "")).unwrap_err().reason(), Reason::MethodInvalid, "{method:?}");
        }
    }
}
