//! Tokens of HTTP, such as methods and names of headers (RFC 9110 5.6.2).

/// Whether it is a token.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}
