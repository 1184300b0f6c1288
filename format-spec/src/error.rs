//! Everything that can be wrong with a bundle, a signed document or a key.

use crate::digest::Digest;
use crate::keys::KeyId;
use crate::trust::Role;

/// Why bytes are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The first bytes are not a seal in a tar.
    #[error("this is not a Sealift bundle: {0}")]
    NotABundle(&'static str),
    /// A structure has a version that this reader does not know.
    #[error("{what} has version {found}; this reader knows version {known}")]
    Version {
        /// The structure.
        what: &'static str,
        /// Its version.
        found: u64,
        /// The one version that is known.
        known: u64,
    },
    /// A number lies above its bound.
    #[error("{what} is {value}; at most {limit} is allowed")]
    Limit {
        /// What was counted or measured.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The bound.
        limit: u64,
    },
    /// A structure breaks a rule of SPEC.md.
    #[error("{what}: {reason}")]
    Malformed {
        /// The structure.
        what: &'static str,
        /// The rule, and the value that breaks it.
        reason: String,
    },
    /// A constant or predicted byte is another one.
    #[error("{what}: byte {offset} of the file is not the one that the signed manifest predicts")]
    Unpredicted {
        /// The part of the file.
        what: String,
        /// Position of the first wrong byte, from the start of the file.
        offset: u64,
    },
    /// Content has another digest.
    #[error("{what}: expected {expected}, read {actual}")]
    DigestMismatch {
        /// The content.
        what: String,
        /// The digest it must have.
        expected: Digest,
        /// The digest it has.
        actual: Digest,
    },
    /// A feature that this reader lacks and must not skip.
    #[error("this needs {0:?}, which this version cannot read")]
    Unsupported(String),
    /// The file ends too early.
    #[error("the file ends at byte {offset}, inside {what}")]
    Truncated {
        /// The part that is cut.
        what: String,
        /// Where it ends.
        offset: u64,
    },
    /// Bytes follow the end.
    #[error("the file goes on after the end of the bundle at byte {offset}")]
    Trailing {
        /// Where it should have ended.
        offset: u64,
    },
    /// No trusted vendor has this first root.
    #[error("no trusted vendor has the root {fingerprint}")]
    UnknownVendor {
        /// Fingerprint of the root that the seal names.
        fingerprint: String,
    },
    /// A signature by a key that no root of the vendor names.
    #[error("{document} carries a signature by the unknown key {key}")]
    UnknownSigner {
        /// Kind of document.
        document: &'static str,
        /// The key's id, as claimed.
        key: KeyId,
    },
    /// A signature does not verify.
    #[error("{document}: the signature by key {key} does not verify")]
    BadSignature {
        /// Kind of document.
        document: &'static str,
        /// The key's id.
        key: KeyId,
    },
    /// Too few good signatures by distinct keys of the role.
    #[error("{document}: {valid} of {needed} signatures of the role \"{role}\"")]
    Threshold {
        /// Kind of document.
        document: &'static str,
        /// The role.
        role: Role,
        /// Signatures by distinct keys that count.
        valid: usize,
        /// Signatures that are needed.
        needed: usize,
    },
    /// An epoch that only a root document could have begun.
    #[error("{document}: epoch {epoch}, and the vendor's root allows {allowed} at most")]
    Epoch {
        /// Kind of document.
        document: &'static str,
        /// Its epoch.
        epoch: u64,
        /// The root's epoch.
        allowed: u64,
    },
    /// A public key that must not be trusted.
    #[error("key {key}: {reason}")]
    WeakKey {
        /// The key's id.
        key: KeyId,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A root document does not follow the one before it.
    #[error("root {version}: {reason}")]
    RootChain {
        /// Version of the offending root.
        version: u64,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// The fingerprint that was given is not that of the root.
    #[error("{0}")]
    Fingerprint(#[from] crate::fingerprint::FingerprintError),
}

/// What kind of refusal an [`Error`] is; a command line gives each its own exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The bytes are damaged or were never a bundle.
    Damaged,
    /// The bytes are whole and not by somebody who is trusted.
    Untrusted,
    /// The bytes need a newer reader.
    Unsupported,
}

impl Error {
    /// The kind of refusal.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::UnknownVendor { .. }
            | Self::UnknownSigner { .. }
            | Self::BadSignature { .. }
            | Self::Threshold { .. }
            | Self::Epoch { .. }
            | Self::WeakKey { .. }
            | Self::RootChain { .. }
            | Self::Fingerprint(_) => Verdict::Untrusted,
            Self::Version { .. } | Self::Unsupported(_) => Verdict::Unsupported,
            _ => Verdict::Damaged,
        }
    }

    pub(crate) fn malformed(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Malformed { what, reason: reason.into() }
    }

    pub(crate) fn limit(what: &'static str, value: u64, limit: u64) -> Result<(), Self> {
        if value > limit { Err(Self::Limit { what, value, limit }) } else { Ok(()) }
    }
}
