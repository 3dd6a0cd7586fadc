//! A backend's response.

use serde_json::{Map, Value, json};

use crate::{cli::text::put_bytes, pb};

/// The value of a header line, as bytes.
pub(in crate::cli) fn header_bytes(header: &pb::Header) -> &[u8] {
    match &header.content {
        Some(pb::header::Content::Value(text)) => text.as_bytes(),
        Some(pb::header::Content::ValueBytes(bytes)) => bytes,
        None => b"",
    }
}

/// The whole response as JSON; what is not UTF-8 is in base64.
pub(in crate::cli) fn response_json(response: &pb::FetchResponse) -> Value {
    let mut object = Map::new();
    object.insert("status".into(), response.status.into());
    object.insert("headers".into(), headers_json(&response.headers));
    put_bytes(&mut object, "body", &response.body);
    object.insert("trailers".into(), headers_json(&response.trailers));
    Value::Object(object)
}

fn headers_json(headers: &[pb::Header]) -> Value {
    let one = |header: &pb::Header| {
        let mut object = Map::new();
        object.insert("name".into(), json!(header.name));
        put_bytes(&mut object, "value", header_bytes(header));
        Value::Object(object)
    };
    headers.iter().map(one).collect()
}
