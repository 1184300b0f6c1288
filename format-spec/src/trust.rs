//! Roles, root documents, and the one way to a [`Verified`] value (SPEC.md, "Trust").

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, hex};
use crate::envelope::{DocumentKind, Envelope};
use crate::error::Error;
use crate::fingerprint::Fingerprint;
use crate::json::{self, MAX_INTEGER, Name};
use crate::keys::{KeyId, PublicKey};
use crate::limits::Limits;

/// What a vendor's key may sign. A key has exactly one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Root documents.
    Root,
    /// Manifests and permits.
    Release,
    /// Licences.
    Licence,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Release => "release",
            Self::Licence => "licence",
        })
    }
}

/// The keys of a role and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleKeys {
    /// Distinct keys that must sign: 1 to the number of keys.
    pub threshold: u16,
    /// Ids of the keys, 64 hexadecimal digits each, strictly ascending; at most 16.
    pub keys: Vec<String>,
}

/// The roles of a vendor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    /// Signs root documents.
    pub root: RoleKeys,
    /// Signs manifests and permits.
    pub release: RoleKeys,
    /// Signs licences; absent if the vendor issues none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<RoleKeys>,
}

impl Roles {
    fn get(&self, role: Role) -> Option<&RoleKeys> {
        match role {
            Role::Root => Some(&self.root),
            Role::Release => Some(&self.release),
            Role::Licence => self.licence.as_ref(),
        }
    }
}

/// A public key in a root document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// The key's id, 64 hexadecimal digits; recomputed by every reader.
    pub id: String,
    /// The public key, 64 hexadecimal digits.
    pub public_key: String,
    /// The manifests that the key may sign; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_seq: Option<ValidSeq>,
    /// Whether nothing that the key signed counts any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
}

/// The sequence numbers at which a key may sign manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidSeq {
    /// The one epoch.
    pub epoch: u64,
    /// First sequence number in it.
    pub from: u64,
    /// Last sequence number in it.
    pub to: u64,
}

/// A vendor's trust document: who may sign what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootDocument {
    /// Version of this structure: 1.
    pub schema: u16,
    /// The vendor; the same in every root of a chain.
    pub vendor: Name,
    /// 1 for the first root, one more for each that follows.
    pub version: u64,
    /// Raised to restart sequence numbers after the theft of a key; never lowered.
    pub epoch: u64,
    /// When it was made, in seconds since 1970.
    pub created_at: u64,
    /// All keys, strictly ascending by id.
    pub keys: Vec<KeyRecord>,
    /// Who signs what.
    pub roles: Roles,
}

impl RootDocument {
    /// The document as the bytes that are signed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        json::emit(self)
    }

    fn parse(bytes: &[u8]) -> Result<(Self, Keys), Error> {
        let bad = |reason: String| Error::malformed("root document", reason);
        let root: Self = json::parse("root document", bytes)?;
        if root.version == 0 || [root.version, root.epoch, root.created_at].iter().any(|n| *n > MAX_INTEGER) {
            return Err(bad("a number is out of range".into()));
        }
        if !json::strictly_ascending(&root.keys, |k| &k.id) {
            return Err(bad("its keys are not in strictly ascending order of id".into()));
        }
        let mut known = BTreeMap::new();
        for record in &root.keys {
            let key = PublicKey::from_hex(&record.public_key)?;
            if hex(&key.id().0) != record.id {
                return Err(bad(format!("the id of key {} is not that of its public key", key.id())));
            }
            if record.valid_seq.is_some_and(|v| v.from > v.to || v.to.max(v.epoch) > MAX_INTEGER) {
                return Err(bad(format!("valid_seq of key {} is no range", key.id())));
            }
            known.insert(key.id(), (key, record.clone(), BTreeSet::new()));
        }
        for role in [Role::Root, Role::Release, Role::Licence] {
            let Some(listed) = root.roles.get(role) else { continue };
            if listed.keys.is_empty() || listed.keys.len() > 16 || !json::strictly_ascending(&listed.keys, |k| k) {
                return Err(bad(format!("the role \"{role}\" must list 1 to 16 keys in strictly ascending order")));
            }
            if listed.threshold == 0 || usize::from(listed.threshold) > listed.keys.len() {
                return Err(bad(format!(
                    "threshold {} of the role \"{role}\" is not 1 to {}",
                    listed.threshold,
                    listed.keys.len()
                )));
            }
            for id in &listed.keys {
                let Some((.., roles)) = known.values_mut().find(|(_, record, _)| record.id == *id) else {
                    return Err(bad(format!("the role \"{role}\" lists a key that is not there")));
                };
                roles.insert(role);
            }
        }
        let mut keys = BTreeMap::new();
        for (id, (key, record, roles)) in known {
            let mut roles = roles.into_iter();
            match (roles.next(), roles.next()) {
                (Some(role), None) => {
                    keys.insert(id, Key { key, role, valid_seq: record.valid_seq, revoked: record.revoked });
                }
                (None, _) => return Err(bad(format!("key {id} has no role"))),
                _ => return Err(bad(format!("key {id} has two roles"))),
            }
        }
        Ok((root, Keys(keys)))
    }
}

#[derive(Debug, Clone)]
struct Key {
    key: PublicKey,
    role: Role,
    valid_seq: Option<ValidSeq>,
    revoked: bool,
}

#[derive(Debug, Clone, Default)]
struct Keys(BTreeMap<KeyId, Key>);

/// A value whose bytes were signed by enough keys of the right role. Nothing else makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    value: T,
    digest: Digest,
    signers: Vec<KeyId>,
}

impl<T> Verified<T> {
    /// The value.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// Digest of the exact bytes that were signed.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The keys whose signatures counted, ascending.
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }
}

/// A document that a role signs.
pub trait SignedDocument: Sized {
    /// Which kind it is.
    const KIND: DocumentKind;
    /// Which role signs it.
    const ROLE: Role;
    /// Reads it from bytes that are signed.
    ///
    /// # Errors
    ///
    /// [`Error`] naming the rule the document breaks.
    fn parse(bytes: &[u8]) -> Result<Self, Error>;
    /// The epoch and sequence number at which the signing keys must be valid; `None` if that does not apply.
    fn epoch_and_seq(&self) -> Option<(u64, u64)>;
    /// The vendor it is by.
    fn vendor(&self) -> &Name;
}

/// A vendor whose roots are trusted, from the first on.
#[derive(Debug, Clone)]
pub struct Vendor {
    envelopes: Vec<Envelope>,
    current: RootDocument,
    keys: Keys,
    // every key of every root: a signature by a key that was retired is told from garbage, a key keeps its
    // role for good, and a revocation is never taken back
    history: BTreeMap<KeyId, Key>,
}

impl Vendor {
    /// Trusts a first root whose fingerprint somebody typed in or preset.
    ///
    /// # Errors
    ///
    /// [`Error::Fingerprint`] if it is another root; otherwise whatever is wrong with the document
    /// or the signatures of its own root role.
    pub fn first(envelope: &Envelope, fingerprint: &Fingerprint) -> Result<Self, Error> {
        fingerprint.check(&Digest::of(&envelope.body))?;
        let (root, keys) = RootDocument::parse(&envelope.body)?;
        if root.version != 1 {
            return Err(Error::RootChain { version: root.version, reason: "the first root must have version 1" });
        }
        let history = keys.0.clone();
        let vendor = Self { envelopes: vec![envelope.clone()], current: root, keys, history };
        vendor.count(envelope, Role::Root, None)?;
        Ok(vendor)
    }

    /// Follows the chain by one root, signed by the old and by the new threshold.
    ///
    /// # Errors
    ///
    /// [`Error::RootChain`], [`Error::Threshold`] and the like; the vendor is unchanged then.
    pub fn advance(&mut self, envelope: &Envelope) -> Result<(), Error> {
        let expected = self.current.version + 1;
        let chain = |reason| Error::RootChain { version: expected, reason };
        if envelope.kind != DocumentKind::Root {
            return Err(chain("it is no root document"));
        }
        let payload_type = DocumentKind::Root.payload_type();
        let old: BTreeSet<[u8; 32]> = envelope
            .signatures
            .iter()
            .filter_map(|s| self.keys.0.get(&s.key).filter(|k| k.role == Role::Root && !k.revoked).map(|k| (k, s)))
            .filter(|(k, s)| k.key.verifies(payload_type, &envelope.body, &s.signature))
            .map(|(k, _)| *k.key.as_bytes())
            .collect();
        let needed = usize::from(self.current.roles.root.threshold);
        if old.len() < needed {
            return Err(Error::Threshold { document: "root document", role: Role::Root, valid: old.len(), needed });
        }
        let (root, keys) = RootDocument::parse(&envelope.body)?;
        if root.version != expected {
            return Err(chain("it does not have the version that follows"));
        }
        if root.vendor != self.current.vendor {
            return Err(chain("it is by another vendor"));
        }
        if root.epoch < self.current.epoch {
            return Err(chain("it lowers the epoch"));
        }
        for (id, key) in &keys.0 {
            match self.history.get(id) {
                Some(known) if known.revoked && !key.revoked => return Err(chain("it takes back a revocation")),
                Some(known) if known.role != key.role => return Err(chain("it gives a key another role")),
                _ => {}
            }
        }
        let mut next = self.clone();
        next.history.extend(keys.0.iter().map(|(id, key)| (*id, key.clone())));
        next.envelopes.push(envelope.clone());
        next.current = root;
        next.keys = keys;
        next.count(envelope, Role::Root, None)?;
        *self = next;
        Ok(())
    }

    /// The newest root.
    #[must_use]
    pub fn root(&self) -> &RootDocument {
        &self.current
    }

    /// The chain from root 1 on, as it is kept and carried.
    #[must_use]
    pub fn envelopes(&self) -> &[Envelope] {
        &self.envelopes
    }

    /// Digest of the first root document.
    #[must_use]
    pub fn anchor(&self) -> Digest {
        Digest::of(&self.envelopes[0].body)
    }

    /// Verifies a document of this vendor and, only then, parses it.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSigner`], [`Error::BadSignature`] or [`Error::Threshold`] before the document is
    /// parsed; what its own rules say afterwards.
    pub fn verify<T: SignedDocument>(&self, envelope: &Envelope) -> Result<Verified<T>, Error> {
        if envelope.kind != T::KIND {
            return Err(Error::malformed("envelope", format!("a {} is expected", T::KIND.word())));
        }
        self.count(envelope, T::ROLE, None)?;
        let value = T::parse(&envelope.body)?;
        if *value.vendor() != self.current.vendor {
            return Err(Error::malformed(
                "vendor",
                format!("the {} is not by {}", T::KIND.word(), self.current.vendor),
            ));
        }
        if let Some((epoch, _)) = value.epoch_and_seq().filter(|(epoch, _)| *epoch > self.current.epoch) {
            return Err(Error::Epoch { document: T::KIND.word(), epoch, allowed: self.current.epoch });
        }
        let signers = self.count(envelope, T::ROLE, value.epoch_and_seq())?;
        Ok(Verified { value, digest: Digest::of(&envelope.body), signers })
    }

    // Every signature must be by a key that some root names, and must verify; those count that are by
    // distinct keys of the role in the newest root, not revoked, and valid at this sequence number.
    fn count(&self, envelope: &Envelope, role: Role, at: Option<(u64, u64)>) -> Result<Vec<KeyId>, Error> {
        let document = envelope.kind.word();
        let mut valid = BTreeMap::new();
        for record in &envelope.signatures {
            let Some(key) = self.history.get(&record.key) else {
                return Err(Error::UnknownSigner { document, key: record.key });
            };
            if !key.key.verifies(envelope.kind.payload_type(), &envelope.body, &record.signature) {
                return Err(Error::BadSignature { document, key: record.key });
            }
            let counts = self.keys.0.get(&record.key).is_some_and(|k| {
                let in_range = match (k.valid_seq, at) {
                    (Some(valid), Some((epoch, seq))) => valid.epoch == epoch && (valid.from..=valid.to).contains(&seq),
                    _ => true,
                };
                k.role == role && !k.revoked && in_range
            });
            if counts {
                valid.insert(*key.key.as_bytes(), record.key);
            }
        }
        let needed = self.current.roles.get(role).map_or(1, |r| usize::from(r.threshold));
        if valid.len() < needed {
            return Err(Error::Threshold { document, role, valid: valid.len(), needed });
        }
        let mut signers: Vec<KeyId> = valid.into_values().collect();
        signers.sort();
        Ok(signers)
    }
}

/// The vendors that a site trusts, by the digest of their first root.
#[derive(Debug, Clone, Default)]
pub struct TrustStore {
    vendors: BTreeMap<Digest, Vendor>,
}

impl TrustStore {
    /// Adds a vendor, or replaces what was known of it.
    pub fn add(&mut self, vendor: Vendor) {
        self.vendors.insert(vendor.anchor(), vendor);
    }

    /// The vendor with this first root.
    #[must_use]
    pub fn get(&self, anchor: &Digest) -> Option<&Vendor> {
        self.vendors.get(anchor)
    }

    /// All vendors.
    pub fn vendors(&self) -> impl Iterator<Item = &Vendor> {
        self.vendors.values()
    }

    /// The vendor of a document that carries this chain, moved on to the chain's last root.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownVendor`]; [`Error::RootChain`] if the chain forks from what is known.
    pub fn follow(&self, anchor: &Digest, chain: &[Envelope]) -> Result<Vendor, Error> {
        let mut vendor = self
            .get(anchor)
            .ok_or_else(|| Error::UnknownVendor { fingerprint: Fingerprint::of(anchor).to_string() })?
            .clone();
        let known = vendor.envelopes.len();
        for (n, (old, new)) in vendor.envelopes.iter().zip(chain).enumerate() {
            if old.body != new.body {
                return Err(Error::RootChain {
                    version: n as u64 + 1,
                    reason: "it differs from the root that is trusted",
                });
            }
        }
        for envelope in chain.iter().skip(known) {
            vendor.advance(envelope)?;
        }
        Ok(vendor)
    }
}

/// Reads the file form of a root chain: its envelopes, from root 1 on, and nothing else.
///
/// # Errors
///
/// As [`Envelope::take`]; [`Error::Limit`] for more than 256 roots.
pub fn read_root_file(bytes: &[u8]) -> Result<Vec<Envelope>, Error> {
    let limits = Limits::default();
    Error::limit("length of the root chain in bytes", bytes.len() as u64, limits.root_chain.into())?;
    let mut rest = bytes;
    let mut chain = Vec::new();
    while chain.is_empty() || !rest.is_empty() {
        chain.push(Envelope::take(DocumentKind::Root, &mut rest, &limits)?);
        Error::limit("number of roots", chain.len() as u64, limits.roots.into())?;
    }
    Ok(chain)
}
