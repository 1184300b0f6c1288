//! Takes a bundle in: verified as it is read, kept in the store pack by pack.
//!
//! Newer roots are kept as soon as the seal holds, whatever becomes of the bundle. Nothing else of it lies under its
//! name in the store before the index and the image documents have been checked, and whoever asked has agreed.
//! After that every pack that is whole stays, so a second run need not read it again.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use sealift_console::Bar;
use sealift_format::drive::{self, DriveError, Sink};
use sealift_format::index::Index;
use sealift_format::manifest::{Blob, Manifest};
use sealift_format::reader::{BundleReader, Part};
use sealift_format::trust::{TrustStore, Vendor, Verified};
use sealift_format::{Digest, Limits};
use tempfile::NamedTempFile;

use super::content::{BundleContent, PackPlace};
use super::images::{self, ContentError};
use super::medium::Medium;
use crate::image::Image;
use crate::store::{Store, StoreError};
use crate::trust_dir;

/// A bundle whose seal holds and whose documents have been checked.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The manifest.
    pub manifest: Verified<Manifest>,
    /// The vendor, as the bundle's root chain leaves it.
    pub vendor: Vendor,
    /// The seal's exact bytes.
    pub seal: Vec<u8>,
    /// Its blobs. Those in packs that have not been read yet cannot be opened.
    pub content: BundleContent,
    /// Its images.
    pub images: Vec<Image>,
}

/// Why a bundle was not taken in.
#[derive(Debug)]
pub enum IntakeError<E> {
    /// The bundle is refused.
    Refused(sealift_format::Error),
    /// The seal holds, and what the vendor signed is refused all the same.
    Content(ContentError),
    /// The medium failed.
    Read {
        /// Byte of the file at which it failed.
        offset: u64,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The store failed.
    Store(StoreError),
    /// Whoever was asked did not agree.
    Declined(E),
    /// Packs are neither in the file nor in the store.
    Missing(Vec<Blob>),
}

/// Reads a bundle once and keeps what it holds.
///
/// `decide` is called once, when the seal, the index and the documents are known and nothing but newer roots has been
/// kept; what it returns is given back with the bundle. The bar is advanced by the bytes of packs.
///
/// # Errors
///
/// [`IntakeError`]. Newer roots, and packs that were whole before it, stay in the store.
pub fn take<T, E>(
    medium: &mut Medium,
    store: &Store,
    trust: &TrustStore,
    bar: &dyn Fn(u64) -> Bar,
    decide: &mut dyn FnMut(&Opened) -> Result<T, E>,
) -> Result<(Opened, T), IntakeError<E>> {
    let mut reader = BundleReader::new(trust, Limits::default());
    let mut taker = Taker {
        store,
        decide,
        bar,
        head: None,
        early: Vec::new(),
        index: Vec::new(),
        file: None,
        opened: None,
        progress: None,
    };
    drive::drive(&mut reader, medium, &mut taker).map_err(|e| match e {
        DriveError::Refused(error) => IntakeError::Refused(error),
        DriveError::Read { offset, source } => IntakeError::Read { offset, source },
        DriveError::Sink(error) => error,
    })?;
    let missing: Vec<Blob> = reader.missing().into_iter().filter(|p| !store.has_pack(p)).collect();
    if !missing.is_empty() {
        return Err(IntakeError::Missing(missing));
    }
    let (mut opened, decision) = taker.opened.expect("the index comes before the end");
    let manifest = opened.manifest.get().clone();
    let places = places(store, &manifest);
    opened.content = BundleContent::new(manifest, opened.content.index().clone(), places);
    let path = seal_path(store, &opened.manifest.digest());
    store.write(&path, &opened.seal).map_err(IntakeError::Store)?;
    Ok((opened, decision))
}

/// Where the seal of a bundle that was taken in lies.
#[must_use]
pub fn seal_path(store: &Store, manifest: &Digest) -> PathBuf {
    store.root().join("bundles").join(manifest.hex()).join("seal")
}

/// The bundles whose seals lie in the store, by the digests of their manifests, ascending.
///
/// # Errors
///
/// [`StoreError`].
pub fn stored(store: &Store) -> Result<Vec<Digest>, StoreError> {
    let path = store.root().join("bundles");
    let failed = |source| StoreError::Io { doing: "read", path: path.clone(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        found.extend(name.to_str().and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()));
    }
    // a run that was killed may leave a directory without its file
    found.retain(|digest| seal_path(store, digest).is_file());
    found.sort();
    Ok(found)
}

fn places(store: &Store, manifest: &Manifest) -> BTreeMap<Digest, PackPlace> {
    std::iter::once(&manifest.segment)
        .chain(&manifest.packs)
        .map(|p| (p.digest, PackPlace::Store(store.pack_path(&p.digest))))
        .collect()
}

struct Taker<'a, T, E> {
    store: &'a Store,
    decide: &'a mut dyn FnMut(&Opened) -> Result<T, E>,
    bar: &'a dyn Fn(u64) -> Bar,
    head: Option<(Verified<Manifest>, Vendor, Vec<u8>)>,
    // segment and index, which get their names only after the decision
    early: Vec<(NamedTempFile, Digest)>,
    index: Vec<u8>,
    file: Option<NamedTempFile>,
    opened: Option<(Opened, T)>,
    progress: Option<Bar>,
}

impl<T, E> Taker<'_, T, E> {
    fn manifest(&self) -> &Manifest {
        self.head.as_ref().expect("the seal comes first").0.get()
    }

    // The documents are checked against the segment where it lies now; packs may be in the store already.
    fn open(&mut self) -> Result<(), IntakeError<E>> {
        let manifest = self.manifest().clone();
        let index = Index::read(&self.index, &manifest, &Limits::default()).map_err(IntakeError::Refused)?;
        self.index = Vec::new();
        let mut places = places(self.store, &manifest);
        let segment = &self.early[0].0;
        let file = segment.as_file().try_clone().map_err(|source| {
            IntakeError::Store(StoreError::Io { doing: "open", path: segment.path().to_path_buf(), source })
        })?;
        places.insert(manifest.segment.digest, PackPlace::Within { file: Arc::new(file), offset: 0 });
        let content = BundleContent::new(manifest.clone(), index, places);
        let images = images::check(&manifest, &content).map_err(IntakeError::Content)?;
        let (verified, vendor, seal) = self.head.clone().expect("the seal comes first");
        let opened = Opened { manifest: verified, vendor, seal, content, images };
        let decision = (self.decide)(&opened).map_err(IntakeError::Declined)?;
        for (file, digest) in self.early.drain(..) {
            self.store.keep_pack(file, &digest).map_err(IntakeError::Store)?;
        }
        self.progress = Some((self.bar)(manifest.packs.iter().map(|p| p.size).sum()));
        self.opened = Some((opened, decision));
        Ok(())
    }
}

impl<T, E> Sink for Taker<'_, T, E> {
    type Error = IntakeError<E>;

    fn verified(&mut self, reader: &BundleReader<'_>) -> Result<(), Self::Error> {
        let vendor = reader.vendor().expect("the seal was verified").clone();
        trust_dir::save(self.store, &vendor).map_err(IntakeError::Store)?;
        self.head = Some((
            reader.manifest().expect("the seal was verified").clone(),
            vendor,
            reader.seal().expect("the seal was verified").to_vec(),
        ));
        Ok(())
    }

    fn has(&mut self, pack: Blob) -> Result<bool, Self::Error> {
        let has = self.store.has_pack(&pack);
        if has && let Some(bar) = &self.progress {
            bar.advance(pack.size);
        }
        Ok(has)
    }

    fn piece(&mut self, part: Part, bytes: &[u8]) -> Result<(), Self::Error> {
        if part == Part::Index {
            self.index.extend_from_slice(bytes);
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.store.temporary().map_err(IntakeError::Store)?),
        };
        file.write_all(bytes).map_err(|source| {
            IntakeError::Store(StoreError::Io { doing: "write to", path: self.store.root().to_path_buf(), source })
        })?;
        if let (Part::Pack(_), Some(bar)) = (part, &self.progress) {
            bar.advance(bytes.len() as u64);
        }
        Ok(())
    }

    fn complete(&mut self, part: Part) -> Result<(), Self::Error> {
        let file = self.file.take().expect("a part is not empty");
        match part {
            Part::Segment => {
                let digest = self.manifest().segment.digest;
                self.early.push((file, digest));
                Ok(())
            }
            Part::Index => {
                let digest = self.manifest().index.digest;
                self.early.push((file, digest));
                self.open()
            }
            Part::Pack(n) => {
                let digest = self.manifest().packs[n].digest;
                self.store.keep_pack(file, &digest).map_err(IntakeError::Store)
            }
        }
    }
}

/// The seal of a bundle that was taken in earlier, verified again with the trust of today; its packs may be gone.
///
/// # Errors
///
/// [`IntakeError::Store`] or [`IntakeError::Refused`].
pub fn sealed(
    store: &Store,
    trust: &TrustStore,
    digest: &Digest,
) -> Result<(Verified<Manifest>, Vendor, Vec<u8>), IntakeError<std::convert::Infallible>> {
    let seal = read(seal_path(store, digest)).map_err(IntakeError::Store)?;
    let (verified, vendor) = sealift_format::seal::Seal::from_bytes(&seal, &Limits::default())
        .and_then(|s| s.verify(trust))
        .map_err(IntakeError::Refused)?;
    Ok((verified, vendor, seal))
}

fn read(path: PathBuf) -> Result<Vec<u8>, StoreError> {
    std::fs::read(&path).map_err(|source| StoreError::Io { doing: "read", path, source })
}

/// Opens a bundle that was taken in earlier. Its seal is verified again, with the trust of today.
///
/// # Errors
///
/// [`IntakeError::Store`] if the seal or the index is gone or damaged, [`IntakeError::Missing`] if packs
/// are, and whatever verification finds.
pub fn reopen(
    store: &Store,
    trust: &TrustStore,
    digest: &Digest,
) -> Result<Opened, IntakeError<std::convert::Infallible>> {
    let (verified, vendor, seal) = sealed(store, trust, digest)?;
    let limits = Limits::default();
    let manifest = verified.get().clone();
    let parts = std::iter::once(&manifest.segment).chain(&manifest.packs).copied();
    let index = Blob { digest: manifest.index.digest, size: manifest.index.size };
    let missing: Vec<Blob> = parts.chain([index]).filter(|p| !store.has_pack(p)).collect();
    if !missing.is_empty() {
        return Err(IntakeError::Missing(missing));
    }
    let path = store.pack_path(&index.digest);
    let stored = read(path.clone()).map_err(IntakeError::Store)?;
    if Digest::of(&stored) != index.digest {
        return Err(IntakeError::Store(match std::fs::remove_file(&path) {
            Ok(()) => StoreError::Removed(path),
            Err(source) => StoreError::Io { doing: "remove the damaged index", path, source },
        }));
    }
    let index = Index::read(&stored, &manifest, &limits).map_err(IntakeError::Refused)?;
    let content = BundleContent::new(manifest.clone(), index, places(store, &manifest));
    let images = images::check(&manifest, &content).map_err(|error| match content.removed() {
        Some(path) => IntakeError::Store(StoreError::Removed(path.to_path_buf())),
        None => IntakeError::Content(error),
    })?;
    Ok(Opened { manifest: verified, vendor, seal, content, images })
}
