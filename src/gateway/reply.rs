//! Answers of our own, in the engine's form: clients show their message as the engine's.

use crate::model::error::{Error, Kind};

/// An answer that refuses.
#[derive(Debug)]
pub(super) struct Reply {
    status: u16,
    message: String,
}

impl Reply {
    /// With a status and words.
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Reply { status, message: message.into() }
    }

    /// The engine cannot be reached, or broke off.
    pub(super) fn engine_away(why: impl std::fmt::Display) -> Self {
        Reply::new(502, format!("the engine does not answer: {why}"))
    }

    /// The bytes to send. `is_head`: without the body. The connection ends with it.
    pub(super) fn to_bytes(&self, is_head: bool) -> Vec<u8> {
        let phrase = http::StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let body = serde_json::json!({ "message": format!("longshore: {}", self.message) }).to_string() + "\n";
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.status,
            phrase.unwrap_or_default(),
            body.len()
        );
        if is_head { head.into_bytes() } else { (head + &body).into_bytes() }
    }
}

impl From<Error> for Reply {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            Kind::Invalid => 400,
            Kind::Denied => 403,
            Kind::NotFound => 404,
            Kind::Exists | Kind::State | Kind::Busy => 409,
            Kind::Unavailable | Kind::Timeout | Kind::Exhausted => 503,
            Kind::Gone => 410,
            Kind::Unknown => 501,
            Kind::DataLoss | Kind::Internal => 500,
        };
        if status == 500 {
            // Its message is for the log only.
            tracing::error!(%error, "the gateway failed");
            return Reply::new(status, "an internal error, which the broker's log tells");
        }
        Reply::new(status, error.message())
    }
}

impl From<super::head::Refusal> for Reply {
    fn from(refusal: super::head::Refusal) -> Self {
        Reply::new(400, refusal.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::error::Reason;

    #[test]
    fn it_reads_like_the_engines_own() {
        let error = Error::new(Reason::GrantsRequired, "a/b", "a \"b\" needs engine.full");
        let reply = String::from_utf8(Reply::from(error).to_bytes(false)).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert_eq!(body, "{\"message\":\"longshore: a \\\"b\\\" needs engine.full\"}\n");
        assert!(Reply::engine_away("x").to_bytes(true).ends_with(b"\r\n\r\n"));
    }
}
