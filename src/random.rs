//! Random names and secrets, from the kernel.

use rustix::rand::{GetRandomFlags, getrandom};

/// Fills `bytes`. The kernel's pool is ready long before a broker runs, so this neither blocks nor fails.
fn fill(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        if let Ok(len) = getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            filled += len;
        }
    }
}

/// Random bytes.
pub(crate) fn bytes<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    fill(&mut bytes);
    bytes
}

/// A random number.
pub(crate) fn number() -> u64 {
    u64::from_le_bytes(bytes())
}

/// `BYTES` random bytes as hexadecimal digits, two for each.
pub(crate) fn hex<const BYTES: usize>() -> String {
    ::hex::encode(bytes::<BYTES>())
}

/// What nobody can guess: 128 random bits as 32 hexadecimal digits.
pub(crate) fn nonce() -> String {
    hex::<16>()
}
