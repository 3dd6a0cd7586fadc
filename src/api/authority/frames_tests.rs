use super::super::testing::{INCREMENTAL, frame, literal, opening};
use super::*;

/// What the follower makes of the whole of `bytes`.
fn followed(bytes: &[u8]) -> (Vec<u8>, Follower) {
    let (mut follower, mut out, mut at) = (Follower::new(), Vec::new(), 0);
    while at < bytes.len() {
        match follower.next(&bytes[at..], &mut out) {
            Next::Pass(len) => {
                out.extend_from_slice(&bytes[at..at + len]);
                at += len;
            }
            Next::Replaced(len) => at += len,
            Next::More => break,
        }
    }
    (out, follower)
}

fn stream(frames: &[Vec<u8>]) -> Vec<u8> {
    [opening(), frames.concat()].concat()
}

fn bad() -> Vec<u8> {
    literal(INCREMENTAL, 1, b"/tmp/x.sock", true)
}

fn good() -> Vec<u8> {
    literal(INCREMENTAL, 1, b"x.localhost", false)
}

#[test]
fn padding_goes_and_priority_stays() {
    let payload = [&[3][..], b"prior", &bad(), &[0; 3]].concat();
    let (out, _) = followed(&stream(&[frame(1, 0x2d, 1, &payload), frame(0, 1, 1, b"body")]));
    let want = stream(&[frame(1, 0x25, 1, &[b"prior", &good()[..]].concat()), frame(0, 1, 1, b"body")]);
    assert_eq!(out, want);
}

#[test]
fn continuations_are_joined() {
    let block = [bad(), literal(INCREMENTAL, 4, b"/p", true)].concat();
    for cut in 0..block.len() {
        let (a, b) = block.split_at(cut);
        let frames = [frame(1, 1, 1, a), frame(9, 0, 1, &[]), frame(9, 4, 1, b)];
        let want = [good(), literal(INCREMENTAL, 4, b"/p", true)].concat();
        assert_eq!(followed(&stream(&frames)).0, stream(&[frame(1, 5, 1, &want)]));
    }
}

#[test]
fn a_block_that_grows_is_cut_at_the_frame_size() {
    let long = literal(INCREMENTAL, 4, &[b'a'; MAX_PAYLOAD], false);
    let block = [bad(), long.clone()].concat();
    let frames = [frame(1, 0x20, 1, &[b"prior", &block[..9000]].concat()), frame(9, 4, 1, &block[9000..])];
    let want = [&b"prior"[..], &good(), &long].concat();
    let (a, b) = want.split_at(MAX_PAYLOAD);
    assert_eq!(followed(&stream(&frames)).0, stream(&[frame(1, 0x20, 1, a), frame(9, 4, 1, b)]));
}

#[test]
fn what_cannot_be_followed_passes() {
    let cases: [(&str, Vec<Vec<u8>>); 9] = [
        ("pad length beyond the frame", vec![frame(1, 0xc, 1, &[9, 0])]),
        ("no pad length", vec![frame(1, 0xc, 1, &[])]),
        ("priority cut short", vec![frame(1, 0x24, 1, &[0; 4])]),
        ("continuation of nothing", vec![frame(9, 4, 1, &bad())]),
        ("push promise", vec![frame(5, 4, 1, &bad())]),
        ("other frame within a block", vec![frame(1, 0, 1, &bad()), frame(0, 0, 1, b"x"), frame(9, 4, 1, &[])]),
        ("other stream within a block", vec![frame(1, 0, 1, &bad()), frame(9, 4, 3, &[])]),
        ("broken block", vec![frame(1, 4, 1, &[0x80])]),
        ("too long", vec![frame(1, 0, 1, &vec![0; 40_000]), frame(9, 0, 1, &vec![0; 40_000])]),
    ];
    for (case, frames) in cases {
        let all = stream(&[frames, vec![frame(1, 4, 3, &bad())]].concat());
        let (out, follower) = followed(&all);
        assert!(follower.is_lost(), "{case}");
        assert_eq!(out, all, "{case}");
    }
    let http1 = b"PRI * HTTP/1.1\r\n\r\n";
    assert_eq!(followed(http1).0, http1);
}

#[test]
fn a_flood_of_empty_continuations_is_not_held_for_ever() {
    let mut frames = vec![frame(1, 0, 1, &bad())];
    frames.extend(std::iter::repeat_n(frame(9, 0, 1, &[]), MAX_HELD / HEAD_LEN));
    assert!(followed(&stream(&frames)).1.is_lost());
}
