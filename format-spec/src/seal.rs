//! The seal: the head of every bundle and the only bytes that are read before trust (SPEC.md, "Seal").

use crate::digest::Digest;
use crate::envelope::{DocumentKind, Envelope};
use crate::error::Error;
use crate::limits::{Limits, SEAL_ALIGN};
use crate::manifest::Manifest;
use crate::trust::{TrustStore, Vendor, Verified};

/// First bytes of every seal.
pub const MAGIC: [u8; 8] = *b"SEALIFT1";
/// Length of the seal's fixed prefix in bytes.
pub const PREFIX: usize = 64;
const VERSION: u16 = 1;

/// The seal's fixed prefix, checked against the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealPrefix {
    /// Length of the whole seal in bytes, a multiple of 64 KiB.
    pub length: u32,
    roots: u16,
    chain: u32,
    manifest: u32,
    anchor: Digest,
}

impl SealPrefix {
    /// Reads the prefix.
    ///
    /// # Errors
    ///
    /// [`Error::NotABundle`], [`Error::Version`], [`Error::Limit`] or [`Error::Malformed`].
    pub fn read(bytes: &[u8; PREFIX], limits: &Limits) -> Result<Self, Error> {
        if bytes[..8] != MAGIC {
            return Err(Error::NotABundle("there is no seal where one must be"));
        }
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if half(8) != VERSION {
            return Err(Error::Version { what: "seal", found: half(8).into(), known: VERSION.into() });
        }
        let prefix = Self {
            roots: half(10),
            length: word(12),
            chain: word(16),
            manifest: word(20),
            anchor: Digest::from_bytes(bytes[32..].try_into().expect("32 of 64 bytes")),
        };
        Error::limit("length of the seal in bytes", prefix.length.into(), limits.seal.into())?;
        Error::limit("length of the root chain in bytes", prefix.chain.into(), limits.root_chain.into())?;
        Error::limit("number of roots", prefix.roots.into(), limits.roots.into())?;
        let used = PREFIX as u64 + u64::from(prefix.chain) + u64::from(prefix.manifest);
        if u64::from(prefix.length) != used.next_multiple_of(SEAL_ALIGN.into()) {
            return Err(Error::malformed("seal", "its length is not that of its parts, padded to 64 KiB"));
        }
        if bytes[24..32] != [0; 8] {
            return Err(Error::malformed("seal", "a reserved byte is not zero"));
        }
        if prefix.roots == 0 {
            return Err(Error::malformed("seal", "it carries no root"));
        }
        Ok(prefix)
    }
}

/// A seal, split into its parts; nothing of it is trusted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// The vendor's root chain, from root 1 on.
    pub chain: Vec<Envelope>,
    /// The manifest and its signatures.
    pub manifest: Envelope,
}

impl Seal {
    /// Splits a whole seal.
    ///
    /// # Errors
    ///
    /// As [`SealPrefix::read`] and [`Envelope::take`]; [`Error::Malformed`] if a padding byte is not
    /// zero, or if the first root is not the one that the prefix names.
    pub fn from_bytes(bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        let bad = |reason: &str| Error::malformed("seal", reason);
        let prefix: &[u8; PREFIX] = bytes.first_chunk().ok_or_else(|| bad("it is cut short"))?;
        let prefix = SealPrefix::read(prefix, limits)?;
        if bytes.len() != prefix.length as usize {
            return Err(bad("it does not have the length that its prefix states"));
        }
        let chain_end = PREFIX + prefix.chain as usize;
        let manifest_end = chain_end + prefix.manifest as usize;
        let mut rest = &bytes[PREFIX..chain_end];
        let chain = (0..prefix.roots)
            .map(|_| Envelope::take(DocumentKind::Root, &mut rest, limits))
            .collect::<Result<Vec<_>, _>>()?;
        if !rest.is_empty() {
            return Err(bad("bytes follow the last root"));
        }
        if Digest::of(&chain[0].body) != prefix.anchor {
            return Err(bad("its first root is not the one that its prefix names"));
        }
        let manifest = Envelope::from_bytes(DocumentKind::Manifest, &bytes[chain_end..manifest_end], limits)?;
        if bytes[manifest_end..].iter().any(|b| *b != 0) {
            return Err(bad("a padding byte is not zero"));
        }
        Ok(Self { chain, manifest })
    }

    /// The seal as bytes, padded.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let chain: Vec<u8> = self.chain.iter().flat_map(Envelope::to_bytes).collect();
        let manifest = self.manifest.to_bytes();
        let length = (PREFIX + chain.len() + manifest.len()).next_multiple_of(SEAL_ALIGN as usize);
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(self.chain.len() as u16).to_le_bytes());
        out.extend_from_slice(&(length as u32).to_le_bytes());
        out.extend_from_slice(&(chain.len() as u32).to_le_bytes());
        out.extend_from_slice(&(manifest.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(Digest::of(&self.chain[0].body).as_bytes());
        out.extend_from_slice(&chain);
        out.extend_from_slice(&manifest);
        out.resize(length, 0);
        out
    }

    /// Digest of the vendor's first root document, by which the vendor is looked up.
    #[must_use]
    pub fn anchor(&self) -> Digest {
        Digest::of(&self.chain[0].body)
    }

    /// Verifies the root chain and then the manifest, and gives the vendor as the chain leaves it.
    ///
    /// # Errors
    ///
    /// As [`TrustStore::follow`] and [`Vendor::verify`].
    pub fn verify(&self, trust: &TrustStore) -> Result<(Verified<Manifest>, Vendor), Error> {
        let vendor = trust.follow(&self.anchor(), &self.chain)?;
        let manifest = vendor.verify(&self.manifest)?;
        Ok((manifest, vendor))
    }
}
