//! Trusted vendors on disk: `trust/<vendor>/roots`, the whole root chain of each (SPEC.md, "Trust").

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sealift_format::Digest;
use sealift_format::envelope::Envelope;
use sealift_format::fingerprint::Fingerprint;
use sealift_format::trust::{TrustStore, Vendor, read_root_file};

use crate::store::{Store, StoreError, check_private};

/// Why a vendor cannot be trusted, or what is trusted cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The root file is refused.
    #[error("the root file is refused")]
    Refused(#[source] sealift_format::Error),
    /// Another root is trusted under the vendor's name.
    #[error("the vendor {vendor} is trusted already, with the root {fingerprint}")]
    Taken {
        /// The vendor.
        vendor: String,
        /// Fingerprint of the root that is trusted.
        fingerprint: Fingerprint,
    },
    /// A chain in the store does not verify any more.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: sealift_format::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads every vendor that is trusted in the store at `root`, which need not exist yet.
///
/// # Errors
///
/// [`TrustError::Damaged`] if a chain does not verify: none is passed over silently. [`StoreError::Open`]
/// if others could have put one there.
pub fn load(root: &Path) -> Result<TrustStore, TrustError> {
    let dir = root.join("trust");
    for path in [root, &dir] {
        match check_private(path) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(TrustStore::default());
            }
            other => other?,
        }
    }
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source| StoreError::Io { doing: "read", path, source }
    };
    let mut trust = TrustStore::default();
    for entry in fs::read_dir(&dir).map_err(failed(&dir))? {
        let path = entry.map_err(failed(&dir))?.path().join("roots");
        let bytes = fs::read(&path).map_err(failed(&path))?;
        let damaged = |source| TrustError::Damaged { path: path.clone(), source };
        let chain = read_root_file(&bytes).map_err(damaged)?;
        // what lies in the store was trusted by a fingerprint when it was added
        trust.add(follow(&chain, &Fingerprint::of(&Digest::of(&chain[0].body))).map_err(damaged)?);
    }
    Ok(trust)
}

/// Trusts a vendor by its root file and the fingerprint that somebody was given by another way.
///
/// # Errors
///
/// [`TrustError::Refused`] if the fingerprint is another's or the chain does not verify;
/// [`TrustError::Taken`] if the name stands for another root.
pub fn add(store: &Store, file: &[u8], fingerprint: &Fingerprint) -> Result<Vendor, TrustError> {
    let chain = read_root_file(file).map_err(TrustError::Refused)?;
    let vendor = follow(&chain, fingerprint).map_err(TrustError::Refused)?;
    let known = load(store.root())?;
    if let Some(other) = known.vendors().find(|v| v.root().vendor == vendor.root().vendor) {
        if other.anchor() != vendor.anchor() {
            return Err(TrustError::Taken {
                vendor: vendor.root().vendor.to_string(),
                fingerprint: Fingerprint::of(&other.anchor()),
            });
        }
        if other.root().version >= vendor.root().version {
            return Ok(other.clone());
        }
    }
    save(store, &vendor)?;
    Ok(vendor)
}

/// Keeps the roots that a verified bundle brought, if they are newer than those that are kept.
///
/// # Errors
///
/// [`StoreError`].
pub fn save(store: &Store, vendor: &Vendor) -> Result<(), StoreError> {
    let path = store.root().join("trust").join(vendor.root().vendor.as_str()).join("roots");
    let bytes: Vec<u8> = vendor.envelopes().iter().flat_map(Envelope::to_bytes).collect();
    if fs::read(&path).is_ok_and(|old| old.len() >= bytes.len()) {
        return Ok(());
    }
    store.write(&path, &bytes)
}

fn follow(chain: &[Envelope], fingerprint: &Fingerprint) -> Result<Vendor, sealift_format::Error> {
    let (first, later) = chain.split_first().expect("a root file holds at least one root");
    let mut vendor = Vendor::first(first, fingerprint)?;
    later.iter().try_for_each(|envelope| vendor.advance(envelope))?;
    Ok(vendor)
}
