//! What a client's side of the wire looks like, for the tests.

use super::huffman::CODES;

/// HPACK's Huffman code of `text`, out of the table under test; h2 decodes it in `tests.rs`.
pub(super) fn huffman(text: &[u8]) -> Vec<u8> {
    let (mut bits, mut count, mut coded) = (0_u64, 0, Vec::new());
    for octet in text {
        let (mut first, mut width) = (0_u64, 0);
        for (len, symbols) in CODES {
            first <<= len - width;
            width = *len;
            if let Some(n) = symbols.iter().position(|symbol| symbol == octet) {
                bits = bits << len | (first + n as u64);
                count += len;
                break;
            }
            first += symbols.len() as u64;
        }
        while count >= 8 {
            count -= 8;
            coded.push((bits >> count) as u8);
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        coded.push((bits << (8 - count)) as u8 | 0xff >> count);
    }
    coded
}

/// An integer with `flags` above its `prefix` bits.
pub(super) fn integer(flags: u8, prefix: u32, value: usize) -> Vec<u8> {
    let mask = (1 << prefix) - 1;
    if value < mask {
        return vec![flags | value as u8];
    }
    let mut octets = vec![flags | mask as u8];
    let mut rest = value - mask;
    while rest >= 0x80 {
        octets.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    octets.push(rest as u8);
    octets
}

/// A string literal.
pub(super) fn text(text: &[u8], coded: bool) -> Vec<u8> {
    let (flag, octets) = if coded { (0x80, huffman(text)) } else { (0, text.to_vec()) };
    [integer(flag, 7, octets.len()), octets].concat()
}

/// Kinds of literal: flags and prefix of the first octet.
pub(super) const INCREMENTAL: (u8, u32) = (0x40, 6);
pub(super) const WITHOUT: (u8, u32) = (0, 4);
pub(super) const NEVER: (u8, u32) = (0x10, 4);

/// A literal whose name is at `name`.
pub(super) fn literal(kind: (u8, u32), name: usize, value: &[u8], coded: bool) -> Vec<u8> {
    [integer(kind.0, kind.1, name), text(value, coded)].concat()
}

/// A literal with a literal name.
pub(super) fn named(kind: (u8, u32), name: &[u8], value: &[u8], coded: bool) -> Vec<u8> {
    [vec![kind.0], text(name, coded), text(value, coded)].concat()
}

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = &(payload.len() as u32).to_be_bytes()[1..];
    [len, &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// The preface and empty settings.
pub(super) fn opening() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()
}
