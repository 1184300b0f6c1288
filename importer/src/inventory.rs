//! What lies in the store and which bundle needs it: for the space that is used, and for what may go. Removes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};

use sealift_format::manifest::{Blob, Manifest};
use sealift_format::trust::TrustStore;
use sealift_format::{Digest, Hasher};

use crate::bundle::intake::{self, IntakeError};
use crate::store::{Store, StoreError};

/// What lies in a store.
#[derive(Debug, Default)]
pub struct Inventory {
    /// The bundles whose seals are there, by the digests of their manifests; an error if a seal does not hold today.
    pub bundles: BTreeMap<Digest, Result<Manifest, sealift_format::Error>>,
    /// The packs, segments and indexes that are there, with their sizes in bytes.
    pub packs: BTreeMap<Digest, u64>,
}

/// What of a store may go.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Surplus {
    /// The bundles.
    pub bundles: BTreeSet<Digest>,
    /// The packs, segments and indexes.
    pub packs: BTreeSet<Digest>,
    /// Bundles of which nobody can say which packs they need: one that is needed and has no seal, or one whose seal does
    /// not hold today. While there is one, nothing goes.
    pub unproven: BTreeSet<Digest>,
}

/// What is wrong with a pack in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackFault {
    /// It is not there.
    Missing,
    /// It has another digest or size.
    Damaged,
}

impl Inventory {
    /// Looks at everything in a store.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn read(store: &Store, trust: &TrustStore) -> Result<Self, StoreError> {
        let mut bundles = BTreeMap::new();
        for digest in intake::stored(store)? {
            let manifest = match intake::sealed(store, trust, &digest) {
                Ok((verified, _, _)) => Ok(verified.get().clone()),
                Err(IntakeError::Refused(error)) => Err(error),
                Err(IntakeError::Store(error)) => return Err(error),
                Err(_) => unreachable!("a seal alone is read"),
            };
            bundles.insert(digest, manifest);
        }
        Ok(Self { bundles, packs: store.packs()? })
    }

    /// Bytes of all packs.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.packs.values().sum()
    }

    /// Bytes of the packs that any of these bundles needs and that are there.
    #[must_use]
    pub fn bytes_of(&self, bundles: &BTreeSet<Digest>) -> u64 {
        let sound = bundles.iter().filter_map(|digest| self.bundles.get(digest)?.as_ref().ok());
        let packs: BTreeSet<Digest> = sound.flat_map(parts).map(|part| part.digest).collect();
        packs.iter().filter_map(|pack| self.packs.get(pack)).sum()
    }

    /// What may go: of the bundles that are `known`, those that are not `needed`, with the packs that no other bundle
    /// has; with `unused`, everything that is not needed. Nothing, if it cannot be told which packs are needed.
    #[must_use]
    pub fn surplus(&self, needed: &BTreeSet<Digest>, known: &BTreeSet<Digest>, unused: bool) -> Surplus {
        let goes = |digest: &Digest| !needed.contains(digest) && (unused || known.contains(digest));
        let (mut stay, mut surplus) = (BTreeSet::new(), Surplus::default());
        surplus.unproven.extend(needed.iter().filter(|digest| !self.bundles.contains_key(digest)));
        for (digest, manifest) in &self.bundles {
            match manifest {
                Err(_) if !(unused && goes(digest)) => {
                    surplus.unproven.insert(*digest);
                }
                Ok(manifest) if goes(digest) => surplus.packs.extend(parts(manifest).map(|part| part.digest)),
                Ok(manifest) => stay.extend(parts(manifest).map(|part| part.digest)),
                Err(_) => {}
            }
            if goes(digest) {
                surplus.bundles.insert(*digest);
            }
        }
        if !surplus.unproven.is_empty() {
            return Surplus { unproven: surplus.unproven, ..Surplus::default() };
        }
        if unused {
            surplus.packs.extend(self.packs.keys());
        }
        surplus.packs.retain(|pack| self.packs.contains_key(pack) && !stay.contains(pack));
        surplus
    }
}

/// Everything of a bundle that lies among the packs.
pub fn parts(manifest: &Manifest) -> impl Iterator<Item = Blob> {
    let index = Blob { digest: manifest.index.digest, size: manifest.index.size };
    std::iter::once(manifest.segment).chain([index]).chain(manifest.packs.iter().copied())
}

/// Reads a pack of the store and compares its digest; `None` if it is whole.
///
/// # Errors
///
/// [`StoreError::Io`] if it cannot be read.
pub fn check_pack(store: &Store, pack: &Blob) -> Result<Option<PackFault>, StoreError> {
    let path = store.pack_path(&pack.digest);
    let failed = |source| StoreError::Io { doing: "read", path: path.clone(), source };
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(PackFault::Missing)),
        Err(source) => return Err(failed(source)),
    };
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let is_whole = hasher.length() == pack.size && hasher.finish() == pack.digest;
    Ok((!is_whole).then_some(PackFault::Damaged))
}
