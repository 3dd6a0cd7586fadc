//! The signature on what the broker makes in an engine: labels can be written by anybody, this one by nobody else. It is
//! how a broker that lost its store knows what is its own (design section 8).

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::extension::ResourceKind;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// What is signed begins with this, so that a later form cannot be taken for it.
const FORM: &str = "longshore-sig-1";

/// What signs; it lies beside the store and leaves the machine never.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; KEY_BYTES]);

/// What a signature vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark<'a> {
    /// What it is.
    pub kind: ResourceKind,
    /// To whom it belongs.
    pub extension: &'a str,
    /// The generation that it was made for; 0 for what outlives generations.
    pub generation: i64,
    /// Its name, so that a copy of the labels is worth nothing; empty where the engine or the extension chose it, and
    /// then the nonce is its own.
    pub name: &'a str,
    /// The intent under which it was made; empty for what outlives intents.
    pub nonce: &'a str,
}

impl Key {
    /// A key of these bytes, which nobody can guess.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Key(bytes)
    }

    /// The value of the label.
    pub fn sign(&self, mark: &Mark<'_>) -> String {
        hex::encode(self.mac(mark).finalize().into_bytes())
    }

    /// Whether a label's value is this key's signature.
    pub fn verifies(&self, mark: &Mark<'_>, signature: &str) -> bool {
        hex::decode(signature).is_ok_and(|bytes| self.mac(mark).verify_slice(&bytes).is_ok())
    }

    fn mac(&self, mark: &Mark<'_>) -> Hmac<Sha256> {
        // A key that is shorter than a block is filled up with zeros (RFC 2104).
        let mut block = [0; 64];
        block[..KEY_BYTES].copy_from_slice(&self.0);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        let generation = mark.generation.to_string();
        // Each with its length: no two marks come to the same bytes.
        for part in [FORM, mark.kind.as_str(), mark.extension, &generation, mark.name, mark.nonce] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }
}

// By hand: it is a secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark<'static> =
        Mark { kind: ResourceKind::Container, extension: "a/b", generation: 2, name: "c", nonce: "00" };

    #[test]
    fn a_signature_vouches_for_every_part_of_a_mark() {
        let key = Key::new([7; KEY_BYTES]);
        let signature = key.sign(&MARK);
        assert_eq!(signature.len(), 64);
        assert!(key.verifies(&MARK, &signature));
        for other in [
            Mark { kind: ResourceKind::Network, ..MARK },
            Mark { extension: "a/bc", ..MARK },
            Mark { generation: 1, ..MARK },
            Mark { name: "c0", nonce: "0", ..MARK },
            Mark { nonce: "01", ..MARK },
        ] {
            assert!(!key.verifies(&other, &signature), "{other:?}");
        }
        assert!(!Key::new([8; KEY_BYTES]).verifies(&MARK, &signature));
        for wrong in ["", "zz", "0", &signature[1..], &signature[..62], "+1", "é"] {
            assert!(!key.verifies(&MARK, wrong), "{wrong}");
        }
    }

    /// A signature that brokers of before made must be known.
    #[test]
    fn a_signature_stays_what_it_is() {
        assert_eq!(
            Key::new([7; KEY_BYTES]).sign(&MARK),
            "f780af0e998e517ea6e6b4891c5925a1a4ac53988f92281b927efc538480fa9d"
        );
    }
}
