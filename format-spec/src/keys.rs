//! Ed25519 keys, and signatures over DSSE's pre-authentication encoding.

use std::fmt;

use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::digest::{from_hex, hex};
use crate::error::Error;

/// Names a public key: SHA-256 over `sealift-key-v1` and the 32 bytes of the key.
///
/// A hint for finding the key, never a proof of anything (SPEC.md, "Keys").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 32]);

impl KeyId {
    /// The first 16 hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        hex(&self.0[..8])
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// An Ed25519 public key that is fit to be trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Takes a key into use.
    ///
    /// # Errors
    ///
    /// [`Error::WeakKey`] unless the encoding is canonical and the point lies in the prime-order
    /// subgroup and is not its identity.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, Error> {
        let weak = |reason| Error::WeakKey { key: key_id(bytes), reason };
        let point = CompressedEdwardsY(*bytes).decompress().ok_or_else(|| weak("it is no point of the curve"))?;
        if point.compress().as_bytes() != bytes {
            return Err(weak("its encoding is not canonical"));
        }
        if point.is_small_order() || !point.is_torsion_free() {
            return Err(weak("it is not of prime order"));
        }
        VerifyingKey::from_bytes(bytes).map(Self).map_err(|_| weak("it is no Ed25519 key"))
    }

    /// Takes a key written as 64 lower-case hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] for other text, and as [`Self::from_bytes`].
    pub fn from_hex(text: &str) -> Result<Self, Error> {
        let bytes: [u8; 32] = from_hex(text)
            .and_then(|b| b.try_into().ok())
            .ok_or_else(|| Error::malformed("public key", "64 lower-case hexadecimal digits are expected"))?;
        Self::from_bytes(&bytes)
    }

    /// The 32 bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        key_id(self.0.as_bytes())
    }

    /// Whether this is the key's signature over these bytes of this type.
    ///
    /// Strict verification: RFC 8032 with canonical `S`, no small-order points.
    #[must_use]
    pub fn verifies(&self, payload_type: &str, payload: &[u8], signature: &[u8; 64]) -> bool {
        self.signed(&pae(payload_type, payload), signature)
    }

    fn signed(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(bytes, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(self.as_bytes()))
    }
}

fn key_id(key: &[u8; 32]) -> KeyId {
    let mut hash = Sha256::new();
    hash.update(b"sealift-key-v1");
    hash.update(key);
    KeyId(hash.finalize().into())
}

/// A private key. Its bytes are wiped when it is dropped, and it never prints them.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key with this 32-byte seed. The public half is always derived, never given.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs these bytes as being of this type.
    #[must_use]
    pub fn sign(&self, payload_type: &str, payload: &[u8]) -> SignatureRecord {
        SignatureRecord { key: self.public().id(), signature: self.0.sign(&pae(payload_type, payload)).to_bytes() }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public().id())
    }
}

/// A signature and the id of the key that is said to have made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignatureRecord {
    /// Id of the key.
    pub key: KeyId,
    /// The 64 bytes of the signature.
    pub signature: [u8; 64],
}

/// DSSE's pre-authentication encoding, version 1: the bytes that are signed.
///
/// `DSSEv1`, the length of the type, the type, the length of the payload, the payload, with single
/// spaces between and lengths in decimal (DSSE v1.0.2, "PAE").
#[must_use]
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests;
