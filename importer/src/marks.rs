//! High-water marks: the newest (epoch, seq) of each vendor, product and channel that was installed here.
//!
//! A bundle below its mark is refused, and so is another bundle with the same number (SPEC.md,
//! "Rollback"). A mark moves only after an installation has succeeded.

use std::fs;
use std::io;

use sealift_format::Digest;
use sealift_format::manifest::Manifest;
use sealift_format::trust::Verified;
use serde::{Deserialize, Serialize};

use crate::store::{Store, StoreError};

/// Why a bundle may not be installed after what was installed before.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// A newer release has been installed here.
    #[error(
        "{product} {version} is epoch {epoch} seq {seq}, older than epoch {mark_epoch} seq {mark_seq} ({mark_version}), which was installed here"
    )]
    Older {
        /// The product.
        product: String,
        /// Version of the bundle.
        version: String,
        /// Its epoch.
        epoch: u64,
        /// Its sequence number.
        seq: u64,
        /// Version that was installed.
        mark_version: String,
        /// Its epoch.
        mark_epoch: u64,
        /// Its sequence number.
        mark_seq: u64,
    },
    /// Two different bundles carry the same number: the vendor equivocates, or a key was stolen.
    #[error(
        "{product}: epoch {epoch} seq {seq} was installed here as {known}, and this bundle with the same number is {found}"
    )]
    Equivocation {
        /// The product.
        product: String,
        /// The epoch.
        epoch: u64,
        /// The sequence number.
        seq: u64,
        /// The manifest that was installed.
        known: Digest,
        /// The manifest of the bundle.
        found: Digest,
    },
    /// The marks cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    vendor: Digest,
    product: String,
    channel: String,
    epoch: u64,
    seq: u64,
    version: String,
    manifest: Digest,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marks {
    marks: Vec<Mark>,
}

/// Checks a bundle of the vendor with this first root against its mark.
///
/// # Errors
///
/// [`MarkError`].
pub fn check(store: &Store, vendor: Digest, bundle: &Verified<Manifest>) -> Result<(), MarkError> {
    let manifest = bundle.get();
    let marks = read(store)?;
    let Some(mark) = marks.marks.iter().find(|m| is_for(m, vendor, manifest)) else { return Ok(()) };
    if (manifest.epoch, manifest.seq) < (mark.epoch, mark.seq) {
        return Err(MarkError::Older {
            product: manifest.product.to_string(),
            version: manifest.version.clone(),
            epoch: manifest.epoch,
            seq: manifest.seq,
            mark_version: mark.version.clone(),
            mark_epoch: mark.epoch,
            mark_seq: mark.seq,
        });
    }
    if (manifest.epoch, manifest.seq) == (mark.epoch, mark.seq) && bundle.digest() != mark.manifest {
        return Err(MarkError::Equivocation {
            product: manifest.product.to_string(),
            epoch: mark.epoch,
            seq: mark.seq,
            known: mark.manifest,
            found: bundle.digest(),
        });
    }
    Ok(())
}

/// Moves the mark to a bundle that has been installed; never back.
///
/// # Errors
///
/// [`MarkError`], as [`check`].
pub fn advance(store: &Store, vendor: Digest, bundle: &Verified<Manifest>) -> Result<(), MarkError> {
    check(store, vendor, bundle)?;
    let manifest = bundle.get();
    let mut marks = read(store)?;
    marks.marks.retain(|m| !is_for(m, vendor, manifest));
    marks.marks.push(Mark {
        vendor,
        product: manifest.product.to_string(),
        channel: manifest.channel.to_string(),
        epoch: manifest.epoch,
        seq: manifest.seq,
        version: manifest.version.clone(),
        manifest: bundle.digest(),
    });
    marks.marks.sort_by(|a, b| (a.vendor, &a.product, &a.channel).cmp(&(b.vendor, &b.product, &b.channel)));
    let bytes = serde_json::to_vec_pretty(&marks).expect("own types have string keys");
    Ok(store.write(&store.root().join("marks.json"), &bytes)?)
}

fn is_for(mark: &Mark, vendor: Digest, manifest: &Manifest) -> bool {
    mark.vendor == vendor && mark.product == manifest.product.as_str() && mark.channel == manifest.channel.as_str()
}

fn read(store: &Store) -> Result<Marks, StoreError> {
    let path = store.root().join("marks.json");
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| StoreError::Damaged { path, reason: e.to_string() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Marks::default()),
        Err(source) => Err(StoreError::Io { doing: "read", path, source }),
    }
}
