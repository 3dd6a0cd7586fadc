use proptest::prelude::*;

use super::super::testing::{INCREMENTAL, NEVER, WITHOUT, huffman, integer, literal, named, text};
use super::*;

const PATH: &[u8] = b"/tmp/x.sock";
const STAND_IN: &[u8] = b"x.localhost";

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    huffman::decode(coded, |octet| text.push(octet)).map(|()| text)
}

#[test]
fn huffman_agrees_with_the_rfc_examples_and_with_another_encoder() {
    for (coded, text) in [
        ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
        ("a8eb10649cbf", "no-cache"),
        (
            "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
        ),
    ] {
        assert_eq!(decoded(&hex(coded)).as_deref(), Some(text.as_bytes()));
    }
    // All 256 octets in order, by Python's hpack.
    let all = include_str!("huffman_all.hex").trim();
    assert_eq!(decoded(&hex(all)), Some((0..=255).collect()));
    assert_eq!(huffman(&(0..=255).collect::<Vec<u8>>()), hex(all));
}

#[test]
fn huffman_padding_must_be_short_and_ones() {
    assert_eq!(decoded(&[]), Some(vec![]));
    assert_eq!(decoded(&[0b0000_0111]), Some(b"0".to_vec()));
    assert_eq!(decoded(&[0b0000_0110]), None, "zero in the padding");
    assert_eq!(decoded(&[0b0000_0111, 0xff]), None, "eight bits or more");
    assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), None, "EOS");
}

#[test]
fn stand_ins_are_authorities_of_the_asked_length() {
    assert_eq!(stand_in(9), b"localhost");
    assert_eq!(stand_in(11), STAND_IN);
    for len in 1..3000 {
        let text = stand_in(len);
        assert_eq!(text.len(), len);
        assert!(Authority::try_from(text.as_slice()).is_ok(), "{len}");
    }
}

#[test]
fn each_kind_of_literal_keeps_its_kind_and_its_name() {
    for kind in [INCREMENTAL, WITHOUT, NEVER] {
        for coded in [false, true] {
            let block = [vec![0x83], literal(kind, 1, PATH, coded), vec![0x86]].concat();
            let want = [vec![0x83], literal(kind, 1, STAND_IN, false), vec![0x86]].concat();
            assert_eq!(Rewriter::new().block(&block), Ok(Some(want)));
            let block = named(kind, AUTHORITY, PATH, coded);
            let want = [vec![kind.0], text(AUTHORITY, coded), text(STAND_IN, false)].concat();
            assert_eq!(Rewriter::new().block(&block), Ok(Some(want)));
        }
    }
}

#[test]
fn what_is_acceptable_stays() {
    for value in ["localhost", "h:80", "[::1]:80", "u@h", ""] {
        assert_eq!(Rewriter::new().block(&literal(INCREMENTAL, 1, value.as_bytes(), true)), Ok(None), "{value}");
    }
    assert_eq!(Rewriter::new().block(&literal(INCREMENTAL, 4, b"/not an authority", true)), Ok(None));
    assert_eq!(Rewriter::new().block(&[0x81]), Ok(None), "the static table's empty :authority");
}

#[test]
fn percent_encoded_and_non_utf8_paths_are_replaced() {
    for value in [&b"%2Ftmp%2Fx.sock"[..], b"/tmp/\xff.sock", b"a b"] {
        let want = literal(INCREMENTAL, 1, &stand_in(value.len()), false);
        assert_eq!(Rewriter::new().block(&literal(INCREMENTAL, 1, value, true)), Ok(Some(want)));
    }
}

#[test]
fn a_dynamic_name_is_known_until_it_is_evicted() {
    let mut rewriter = Rewriter::new();
    rewriter.block(&literal(INCREMENTAL, 1, PATH, false)).unwrap();
    rewriter.block(&named(INCREMENTAL, b"newer", b"entry", true)).unwrap();
    assert_eq!(rewriter.block(&[0xbf]), Ok(None), "a reference needs no change");
    let want = literal(WITHOUT, 63, STAND_IN, false);
    assert_eq!(rewriter.block(&literal(WITHOUT, 63, PATH, true)), Ok(Some(want)));
    assert_eq!(rewriter.block(&literal(WITHOUT, 62, PATH, true)), Ok(None), "only a name of its own");
    // 53 octets for :authority with its value, 42 for the newer entry: room for one of them.
    assert_eq!(rewriter.block(&integer(0x20, 5, 94)), Ok(None));
    assert_eq!(rewriter.block(&[0xbf]), Err(Malformed));
}

#[test]
fn a_field_larger_than_the_table_empties_it() {
    let mut rewriter = Rewriter::new();
    rewriter.block(&literal(INCREMENTAL, 1, PATH, false)).unwrap();
    assert_eq!(rewriter.block(&[0xbe]), Ok(None));
    rewriter.block(&literal(INCREMENTAL, 4, &[b'a'; 5000], true)).unwrap();
    assert_eq!(rewriter.block(&[0xbe]), Err(Malformed));
}

#[test]
fn malformed_blocks_are_told() {
    let too_long = [0x7f, 0xff, 0xff, 0xff, 0xff, 0x01];
    let late_update = [&[0x83][..], &integer(0x20, 5, 0)].concat();
    for block in [&[0x80][..], &[0xbe], &[0x41], &[0x41, 5, b'a'], &too_long, &late_update, &integer(0x20, 5, 4097)] {
        assert_eq!(Rewriter::new().block(block), Err(Malformed), "{block:x?}");
    }
}

proptest! {
    #[test]
    fn no_block_makes_it_panic(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4)) {
        let mut rewriter = Rewriter::new();
        for block in blocks {
            let _ = rewriter.block(&block);
        }
    }

    #[test]
    fn huffman_round_trips(text in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(decoded(&huffman(&text)), Some(text));
    }
}
