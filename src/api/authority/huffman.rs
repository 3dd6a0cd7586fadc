//! Decoding of HPACK's Huffman code (RFC 7541 section 5.2 and appendix B).
//!
//! Only decoding: what Longshore writes itself is sent plain, which every HPACK decoder must accept. The code is canonical
//! (codes of one length are consecutive and ascend with the symbol), so listing the symbols by length is the whole table.

/// The symbols of each code length in bits, in code order. `EOS` (thirty ones) follows the last and is left out: a string
/// that contains it must be refused (RFC 7541 section 5.2), which is what happens to a code that no row holds.
pub(super) const CODES: &[(u32, &[u8])] = &[
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\x00$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (
        22,
        b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9",
    ),
    (
        23,
        b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef",
    ),
    (24, b"\x09\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (
        27,
        b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe",
    ),
    (
        28,
        b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9",
    ),
    (30, b"\x0a\x0d\x16"),
];

/// Decodes `coded`, giving each octet to `symbol`, or answers `None` when it is not a Huffman-coded string.
///
/// The padding must be fewer than eight bits, all ones (RFC 7541 section 5.2).
pub(super) fn decode(coded: &[u8], mut symbol: impl FnMut(u8)) -> Option<()> {
    let end = coded.len() * 8;
    let mut at = 0;
    while at < end {
        let window = window(coded, at);
        if end - at < 8 && window == u32::MAX {
            return Some(());
        }
        let (found, bits) = first_symbol(window)?;
        at += bits as usize;
        if at > end {
            return None;
        }
        symbol(found);
    }
    Some(())
}

/// The 32 bits of `coded` from bit `at` on; ones stand for the bits beyond its end.
fn window(coded: &[u8], at: usize) -> u32 {
    let octets = coded.iter().skip(at / 8).chain(std::iter::repeat(&0xff));
    let bits = octets.take(5).fold(0_u64, |bits, octet| bits << 8 | u64::from(*octet));
    (bits >> (8 - at % 8)) as u32
}

/// The symbol whose code begins `window`, and how many bits its code has.
fn first_symbol(window: u32) -> Option<(u8, u32)> {
    let (mut first, mut width) = (0_u32, 0);
    for &(bits, symbols) in CODES {
        first <<= bits - width;
        width = bits;
        let code = window >> (32 - bits);
        if let Some(&symbol) = symbols.get(code.checked_sub(first)? as usize) {
            return Some((symbol, bits));
        }
        first += symbols.len() as u32;
    }
    None
}
