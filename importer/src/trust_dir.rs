//! Trusted vendors on disk: `trust/<vendor>/roots`, the whole root chain of each (SPEC.md, "Trust").

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sealift_console::Exit;
use sealift_format::envelope::Envelope;
use sealift_format::fingerprint::Fingerprint;
use sealift_format::trust::{TrustStore, Vendor, read_root_file};
use sealift_format::{Digest, Name};

use crate::audit::{Entry, Event, What, Who};
use crate::store::{Store, StoreError, check_private, check_root};

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
    /// No vendor of this name is trusted.
    #[error("no vendor {0} is trusted here")]
    Unknown(Name),
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
    load_but(root, None)
}

fn load_but(root: &Path, skip: Option<&Name>) -> Result<TrustStore, TrustError> {
    let dir = root.join("trust");
    for checked in [check_root(root), check_private(&dir)] {
        match checked {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(TrustStore::default());
            }
            other => other?,
        }
    }
    let failed = |source| StoreError::Io { doing: "read", path: dir.clone(), source };
    let mut trust = TrustStore::default();
    for entry in fs::read_dir(&dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if skip.is_some_and(|name| path.file_name() == Some(name.as_str().as_ref())) {
            continue;
        }
        if let Some(vendor) = read(&path.join("roots"))? {
            trust.add(vendor);
        }
    }
    Ok(trust)
}

// None: a run that was killed left the vendor's directory and no chain in it
fn read(path: &Path) -> Result<Option<Vendor>, TrustError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Io { doing: "read", path: path.to_path_buf(), source }.into()),
    };
    let damaged = |source| TrustError::Damaged { path: path.to_path_buf(), source };
    let chain = read_root_file(&bytes).map_err(damaged)?;
    // what lies in the store was trusted by a fingerprint when it was added
    follow(&chain, &Fingerprint::of(&Digest::of(&chain[0].body))).map(Some).map_err(damaged)
}

/// Trusts a vendor by its root file and the fingerprint that somebody was given by another way.
///
/// A damaged chain of this very vendor is replaced.
///
/// # Errors
///
/// [`TrustError::Refused`] if the fingerprint is another's or the chain does not verify;
/// [`TrustError::Taken`] if the name stands for another root; [`TrustError::Damaged`] if another vendor's
/// chain does not verify.
pub fn add(store: &Store, file: &[u8], fingerprint: &Fingerprint) -> Result<Vendor, TrustError> {
    let chain = read_root_file(file).map_err(TrustError::Refused)?;
    let vendor = follow(&chain, fingerprint).map_err(TrustError::Refused)?;
    let name = &vendor.root().vendor;
    load_but(store.root(), Some(name))?;
    match read(&path(store, name)) {
        Ok(Some(known)) if known.anchor() != vendor.anchor() => {
            return Err(TrustError::Taken { vendor: name.to_string(), fingerprint: Fingerprint::of(&known.anchor()) });
        }
        Ok(Some(known)) if known.root().version >= vendor.root().version => return Ok(known),
        Ok(_) | Err(TrustError::Damaged { .. }) => {}
        Err(error) => return Err(error),
    }
    store.write(&path(store, name), &bytes(&vendor))?;
    Ok(vendor)
}

/// Trusts a vendor no more, whether its chain is sound or damaged. Marks and packs stay.
///
/// # Errors
///
/// [`TrustError::Unknown`] if it was not trusted; [`StoreError::Io`].
pub fn remove(store: &Store, vendor: &Name) -> Result<(), TrustError> {
    let path = path(store, vendor);
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(TrustError::Unknown(vendor.clone())),
        Err(source) => return Err(StoreError::Io { doing: "remove", path, source }.into()),
    }
    // an empty directory is no vendor
    if let Some(dir) = path.parent() {
        let _ = fs::remove_dir(dir);
    }
    Ok(())
}

/// Keeps the roots that a verified bundle brought, if they follow those that are kept.
///
/// A vendor that is not trusted here any more, or by another root now, stays as it is. What is kept leaves a line in the
/// audit log.
///
/// # Errors
///
/// [`StoreError`].
pub fn save(store: &Store, vendor: &Vendor) -> Result<(), StoreError> {
    let root = vendor.root();
    let path = path(store, &root.vendor);
    let kept = match fs::read(&path) {
        Ok(bytes) => read_root_file(&bytes).unwrap_or_default(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(StoreError::Io { doing: "read", path, source }),
    };
    let new = vendor.envelopes();
    let is_begun = !kept.is_empty() && kept.iter().zip(new).all(|(old, new)| old.body == new.body);
    if !is_begun || kept.len() >= new.len() {
        return Ok(());
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let detail = format!("root {} of {}", root.version, root.vendor);
    let what = What { command: "roots kept".into(), detail: Some(detail), ..What::default() };
    // on a full disk the log may lack it; whether the roots fit is another matter
    let entry = match Entry::begin(store.root(), Who::of_process(), what, now) {
        Err(error) if error.is_full() => None,
        begun => Some(begun?),
    };
    let written = store.write(&path, &bytes(vendor));
    let Some(entry) = entry else { return written };
    let noted = match &written {
        Ok(()) => entry.done(None, now),
        Err(error) => entry.failed(Event::Failed, Exit::Storage as u8, &error.to_string(), now),
    };
    written.and(noted.or_else(|error| if error.is_full() { Ok(()) } else { Err(error) }))
}

fn path(store: &Store, vendor: &Name) -> PathBuf {
    store.root().join("trust").join(vendor.as_str()).join("roots")
}

fn bytes(vendor: &Vendor) -> Vec<u8> {
    vendor.envelopes().iter().flat_map(Envelope::to_bytes).collect()
}

fn follow(chain: &[Envelope], fingerprint: &Fingerprint) -> Result<Vendor, sealift_format::Error> {
    let (first, later) = chain.split_first().expect("a root file holds at least one root");
    let mut vendor = Vendor::first(first, fingerprint)?;
    later.iter().try_for_each(|envelope| vendor.advance(envelope))?;
    Ok(vendor)
}
