//! Random names and secrets, from the kernel.

/// Fills `bytes`. The kernel's pool is ready long before a broker runs, so this neither blocks nor fails.
#[cfg(unix)]
fn fill(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        if let Ok(len) = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            filled += len;
        }
    }
}

/// Fills `bytes`.
#[cfg(windows)]
fn fill(bytes: &mut [u8]) {
    use windows_sys::Win32::Security::Cryptography::{BCRYPT_USE_SYSTEM_PREFERRED_RNG, BCryptGenRandom};
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    // SAFETY: no algorithm is named, as the flag has it, and that many bytes are there to be written.
    let status =
        unsafe { BCryptGenRandom(std::ptr::null_mut(), bytes.as_mut_ptr(), length, BCRYPT_USE_SYSTEM_PREFERRED_RNG) };
    // Secrets are made of it: without it nothing may go on.
    assert!(status == 0, "the system has no random numbers");
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
