//! A way in for the fuzzer.

use serde_json::Value;

use super::{
    chunked::Chunked,
    create::{self, Body, Stamp},
    head::{Answer, Request, end_of},
};
use crate::model::extension::ResourceKind;

/// A request: its head, and behind that a body, taken in every way that one is.
pub(crate) fn request(bytes: &[u8]) {
    let Ok(Some(end)) = end_of(bytes, 0) else { return };
    assert!((0..end).all(|seen| end_of(bytes, seen) == Ok(Some(end))), "it ends where it ends");
    let (head, body) = bytes.split_at(end);
    let _ = Answer::parse(head, "GET");
    if let Ok(request) = Request::parse(head) {
        assert!(request.target.starts_with('/'));
        assert!(request.lines.iter().all(|line| !line.value.iter().any(|byte| b"\r\n\0".contains(byte))));
        let _ = create::kind(&request);
    }
    let whole = chunked(body, usize::MAX);
    for size in [1, 7, 100] {
        assert_eq!(chunked(body, size), whole, "in pieces of {size}");
    }
    if let Ok(body) = Body::parse(body) {
        let _ = body.create(ResourceKind::Container);
        let own = vec![("dev.longshore.extension".to_owned(), "a/b".to_owned())];
        if let Ok(stamped) = body.stamped(&Stamp { own, defaults: vec![] }) {
            check(&stamped);
        }
    }
}

/// What goes on to the engine: one set of labels, ours among them and nobody else's in our name.
fn check(stamped: &[u8]) {
    let Ok(Value::Object(fields)) = serde_json::from_slice(stamped) else { return };
    let is_labels = |key: &&String| key.replace('\u{17f}', "s").eq_ignore_ascii_case("labels");
    assert_eq!(fields.keys().filter(is_labels).count(), 1);
    let ours =
        fields["Labels"].as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("dev.longshore."));
    assert_eq!(ours.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), [Some("a/b")]);
}

fn chunked(body: &[u8], size: usize) -> Option<(Vec<u8>, usize, bool)> {
    let (mut chunked, mut data, mut all) = (Chunked::new(), Vec::new(), 0);
    for piece in body.chunks(size) {
        let read = chunked.read(piece, |bytes| data.extend_from_slice(bytes)).ok()?;
        all += read;
        if read < piece.len() {
            break;
        }
    }
    Some((data, all, chunked.is_done()))
}
