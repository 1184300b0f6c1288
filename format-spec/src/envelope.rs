//! The signed envelope: a document's exact bytes and signatures over them (SPEC.md, "Envelope").
//!
//! This and the seal's prefix are the only structures that are parsed before a signature holds.

use crate::error::Error;
use crate::keys::{KeyId, SignatureRecord};
use crate::limits::Limits;

/// First bytes of every envelope.
pub const MAGIC: [u8; 8] = *b"SEALDSSE";
const VERSION: u16 = 1;
const PREFIX: usize = 20;
const SIGNATURE: usize = 96;

/// What a signed document is. Decides the payload type that is signed and so the role that may sign it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    /// A vendor's root document.
    Root,
    /// A bundle's manifest.
    Manifest,
    /// A licence.
    Licence,
    /// A permit to go back to an earlier release.
    Permit,
    /// A customer's approval of a manifest.
    Approval,
}

impl DocumentKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Root, Self::Manifest, Self::Licence, Self::Permit, Self::Approval];

    /// The payload type in the signed bytes.
    #[must_use]
    pub const fn payload_type(self) -> &'static str {
        match self {
            Self::Root => "application/vnd.sealift.trust.v1+json",
            Self::Manifest => "application/vnd.sealift.manifest.v1+json",
            Self::Licence => "application/vnd.sealift.licence.v1+json",
            Self::Permit => "application/vnd.sealift.permit.v1+json",
            Self::Approval => "application/vnd.sealift.approval.v1+json",
        }
    }

    /// The word for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Root => "root document",
            Self::Manifest => "manifest",
            Self::Licence => "licence",
            Self::Permit => "permit",
            Self::Approval => "approval",
        }
    }

    const fn code(self) -> u16 {
        match self {
            Self::Root => 1,
            Self::Manifest => 2,
            Self::Licence => 3,
            Self::Permit => 4,
            Self::Approval => 5,
        }
    }
}

/// A document's bytes and the signatures over them, nothing of it checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What the document says it is.
    pub kind: DocumentKind,
    /// The document's exact bytes.
    pub body: Vec<u8>,
    /// Signatures, ascending by key id, no key twice.
    pub signatures: Vec<SignatureRecord>,
}

impl Envelope {
    /// Puts a document and its signatures together, in canonical order.
    #[must_use]
    pub fn new(kind: DocumentKind, body: Vec<u8>, mut signatures: Vec<SignatureRecord>) -> Self {
        signatures.sort_by_key(|s| s.key);
        signatures.dedup_by_key(|s| s.key);
        Self { kind, body, signatures }
    }

    /// The envelope as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PREFIX + self.body.len() + self.signatures.len() * SIGNATURE);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.kind.code().to_le_bytes());
        out.extend_from_slice(&(self.body.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.signatures.len() as u16).to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.body);
        for record in &self.signatures {
            out.extend_from_slice(&record.key.0);
            out.extend_from_slice(&record.signature);
        }
        out
    }

    /// Reads the envelope that these bytes are, all of them.
    ///
    /// # Errors
    ///
    /// As [`Self::take`], and [`Error::Malformed`] if bytes are left over.
    pub fn from_bytes(kind: DocumentKind, bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        let mut rest = bytes;
        let envelope = Self::take(kind, &mut rest, limits)?;
        if !rest.is_empty() {
            return Err(Error::malformed("envelope", format!("{} bytes follow it", rest.len())));
        }
        Ok(envelope)
    }

    /// Takes one envelope of this kind off the front of `bytes`.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`], [`Error::Version`] or [`Error::Limit`], each naming what is wrong;
    /// nothing is allocated beyond what `bytes` holds.
    pub fn take(kind: DocumentKind, bytes: &mut &[u8], limits: &Limits) -> Result<Self, Error> {
        let bad = |reason: String| Error::malformed("envelope", reason);
        let prefix: [u8; PREFIX] =
            bytes.get(..PREFIX).and_then(|p| p.try_into().ok()).ok_or_else(|| bad("it is cut short".into()))?;
        if prefix[..8] != MAGIC {
            return Err(bad("it does not start with \"SEALDSSE\"".into()));
        }
        let half = |at: usize| u16::from_le_bytes([prefix[at], prefix[at + 1]]);
        if half(8) != VERSION {
            return Err(Error::Version { what: "envelope", found: half(8).into(), known: VERSION.into() });
        }
        if half(10) != kind.code() {
            let found = DocumentKind::ALL.into_iter().find(|k| k.code() == half(10));
            let found =
                found.map_or_else(|| format!("of the unknown kind {}", half(10)), |k| format!("a {}", k.word()));
            return Err(bad(format!("it is {found}, not a {}", kind.word())));
        }
        let body_len = u32::from_le_bytes([prefix[12], prefix[13], prefix[14], prefix[15]]);
        let limit = if kind == DocumentKind::Root { limits.root } else { limits.manifest };
        Error::limit("length of a signed document in bytes", body_len.into(), limit.into())?;
        let count = half(16);
        Error::limit("number of signatures", count.into(), limits.signatures.into())?;
        if half(18) != 0 {
            return Err(bad("a reserved byte is not zero".into()));
        }
        let body_end = PREFIX + body_len as usize;
        let end = body_end + usize::from(count) * SIGNATURE;
        let whole = bytes.get(..end).ok_or_else(|| bad("it is cut short".into()))?;
        let signatures: Vec<SignatureRecord> = whole[body_end..]
            .chunks_exact(SIGNATURE)
            .map(|record| {
                let (key, signature) = record.split_at(32);
                SignatureRecord {
                    key: KeyId(key.try_into().expect("32 of 96 bytes")),
                    signature: signature.try_into().expect("64 of 96 bytes"),
                }
            })
            .collect();
        if !signatures.windows(2).all(|pair| pair[0].key < pair[1].key) {
            return Err(bad("its signatures are not in strictly ascending order of key id".into()));
        }
        let body = whole[PREFIX..body_end].to_vec();
        *bytes = &bytes[end..];
        Ok(Self { kind, body, signatures })
    }
}
