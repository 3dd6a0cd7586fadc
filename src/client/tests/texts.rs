//! Bytes to text, text to lines, whatever way they are cut.

use std::borrow::Cow;

use proptest::prelude::*;

use crate::client::{Code, ExecResult, LineSplitter, MAX_LINE_BYTES, Utf8Decoder};

/// Cuts into pieces of these lengths, over and over.
fn pieces<'a>(bytes: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    lengths.iter().cycle().map_while(move |length| {
        let (piece, after) = rest.split_at((*length).min(rest.len()));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

fn decoded(bytes: &[u8], lengths: &[usize]) -> String {
    let mut decoder = Utf8Decoder::new();
    let mut text: String = pieces(bytes, lengths).map(|piece| decoder.push(piece).into_owned()).collect();
    text.push_str(decoder.finish());
    text
}

fn lines(pieces: &[&str]) -> Vec<String> {
    let (mut splitter, mut found) = (LineSplitter::new(), Vec::new());
    for piece in pieces {
        splitter.push(piece, &mut |line| found.push(line.to_owned()));
    }
    splitter.finish(&mut |line| found.push(line.to_owned()));
    found
}

#[test]
fn a_character_that_is_cut_is_put_together() {
    let mut decoder = Utf8Decoder::new();
    assert_eq!(decoder.push(b"a\xe2"), "a");
    assert_eq!(decoder.push(b"\x9c"), "");
    assert_eq!(decoder.push(b"\x85b"), "\u{2705}b");
    assert_eq!(decoder.push(b"\xf0\x9f"), "");
    assert_eq!(decoder.push(b"x"), "\u{fffd}x");
    assert!(matches!(decoder.push("plain ✅".as_bytes()), Cow::Borrowed(_)));
    assert_eq!(decoder.push(b"\xff\xe2\x9c"), "\u{fffd}");
    assert_eq!(decoder.finish(), "\u{fffd}");
    assert_eq!(decoder.finish(), "");
}

#[test]
fn the_last_line_is_delivered() {
    assert_eq!(lines(&["a\r\nb", "c\r", "\n\nd\re"]), ["a", "bc", "", "d\re"]);
    assert_eq!(lines(&["a\n"]), ["a"]);
    assert_eq!(lines(&[]), [""; 0]);
}

#[test]
fn a_line_without_end_is_not_kept_for_ever() {
    let mut splitter = LineSplitter::new();
    let (mut longest, mut bytes) = (0, 0);
    let piece = "x".repeat(1 << 20);
    for _ in 0..40 {
        splitter.push(&piece, &mut |line| {
            longest = longest.max(line.len());
            bytes += line.len();
        });
    }
    splitter.finish(&mut |line| bytes += line.len());
    assert_eq!((longest, bytes), (MAX_LINE_BYTES, 40 << 20));
}

#[test]
fn a_result_is_read_as_lines_and_as_json() {
    let result = |stdout: &str| ExecResult { stdout: stdout.into(), ..ExecResult::default() };
    assert_eq!(result("a\r\nb\n").lines().collect::<Vec<_>>(), ["a", "b", ""]);
    assert_eq!(result("").lines().collect::<Vec<_>>(), [""]);
    let values: Vec<serde_json::Value> = result("{\"a\":1}\n\n [2]\r\n").parse_json_lines().unwrap();
    assert_eq!(values, [serde_json::json!({ "a": 1 }), serde_json::json!([2])]);
    assert_eq!(result("{\"a\":\n1}").parse_json_object::<serde_json::Value>().unwrap(), values[0]);
    assert!(result("no").parse_json_object::<serde_json::Value>().is_err());
    assert!(result("1\nno").parse_json_lines::<i32>().is_err());
}

#[test]
fn a_result_has_the_fields_that_pages_read() {
    let mut result = ExecResult { cmd: "docker ps".into(), ..ExecResult::default() };
    let json = serde_json::json!(result);
    assert_eq!(
        json,
        serde_json::json!({ "cmd": "docker ps", "killed": false, "signal": null, "stdout": "", "stderr": "" })
    );
    result.code = Some(Code::Number(3));
    assert_eq!(serde_json::json!(result)["code"], 3);
}

proptest! {
    #[test]
    fn it_does_not_matter_where_bytes_are_cut(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\xe2\x9c\x85\xf0\x9f\x9a\xa2a\xc3".to_vec())], 0..60),
        lengths in prop::collection::vec(1_usize..5, 1..6),
    ) {
        prop_assert_eq!(decoded(&bytes, &lengths), String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn it_does_not_matter_where_text_is_cut(text in "[aé\r\n]{0,40}", lengths in prop::collection::vec(1_usize..5, 1..6)) {
        let characters: Vec<char> = text.chars().collect();
        let mut rest = characters.as_slice();
        let parts: Vec<String> = lengths.iter().cycle().map_while(|length| {
            let (part, after) = rest.split_at((*length).min(rest.len()));
            rest = after;
            (!part.is_empty()).then(|| part.iter().collect())
        }).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let mut expected: Vec<&str> = text.split('\n').collect();
        let last = expected.pop().filter(|last| !last.is_empty());
        let expected: Vec<&str> = expected.into_iter().map(|line| line.strip_suffix('\r').unwrap_or(line)).chain(last).collect();
        prop_assert_eq!(lines(&parts), expected);
    }
}
