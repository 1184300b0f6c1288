//! Verifies a bundle without keeping any of it: one pass, at most 64 MiB of memory.
//!
//! The segment goes into a temporary file that has no name, so that the documents in it can be looked at
//! when the index is known, without reading the medium again.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use sealift_format::drive::{self, DriveError, Sink};
use sealift_format::index::Index;
use sealift_format::manifest::{Blob, Manifest};
use sealift_format::reader::{BundleReader, Part};
use sealift_format::trust::{TrustStore, Vendor, Verified};
use sealift_format::{Hasher, Limits};

use super::content::{BundleContent, PackPlace};
use super::images::{self, ContentError};
use super::intake::IntakeError;
use super::medium::Medium;
use crate::image::Content as _;
use crate::store::StoreError;

/// What a bundle turned out to be.
#[derive(Debug)]
pub struct Checked {
    /// The manifest.
    pub manifest: Verified<Manifest>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Packs that the file leaves out.
    pub missing: Vec<Blob>,
    /// Blobs that were rebuilt and had their digests; `None` if that was not asked for.
    pub rebuilt: Option<usize>,
}

/// Reads a bundle once and checks every byte; with `deep`, rebuilds every blob as well, which reads
/// the packs a second time, each frame checked again.
///
/// `sealed` is called once, as soon as the seal holds, with the vendor as the bundle's root chain leaves it: its newer
/// roots hold whatever the rest of the file is.
///
/// # Errors
///
/// [`IntakeError::Refused`], [`IntakeError::Content`], [`IntakeError::Read`], also if the medium gives other
/// bytes the second time, and [`IntakeError::Store`] if the temporary file fails.
pub fn check(
    medium: &mut Medium,
    trust: &TrustStore,
    deep: bool,
    sealed: &dyn Fn(&Vendor),
    advance: &dyn Fn(u64),
) -> Result<Checked, IntakeError<Infallible>> {
    let mut reader = BundleReader::new(trust, Limits::default());
    let segment = tempfile::tempfile().map_err(temporary)?;
    let mut looker = Looker { sealed, advance, manifest: None, index: Vec::new(), segment, places: Vec::new(), at: 0 };
    drive::drive(&mut reader, medium, &mut looker).map_err(|e| match e {
        DriveError::Refused(error) => IntakeError::Refused(error),
        DriveError::Read { offset, source } => IntakeError::Read { offset, source },
        DriveError::Sink(source) => temporary(source),
    })?;
    let manifest = reader.manifest().expect("a bundle that was read has a manifest").clone();
    let index = Index::read(&looker.index, manifest.get(), &Limits::default()).map_err(IntakeError::Refused)?;
    let missing = reader.missing();
    let segment = Arc::new(looker.segment);
    let mut places =
        BTreeMap::from([(manifest.get().segment.digest, PackPlace::Within { file: Arc::clone(&segment), offset: 0 })]);
    let deep = medium.file().filter(|_| deep && missing.is_empty());
    if let Some(file) = deep {
        let file = Arc::new(file.try_clone().map_err(|source| IntakeError::Read { offset: 0, source })?);
        let within = |offset| PackPlace::Within { file: Arc::clone(&file), offset };
        places.extend(looker.places.iter().map(|(pack, offset)| (pack.digest, within(*offset))));
    }
    let content = BundleContent::new(manifest.get().clone(), index, places);
    images::check(manifest.get(), &content).map_err(|error| {
        if !matches!(error, ContentError::Read { .. }) {
            return IntakeError::Content(error);
        }
        match is_same(&segment, manifest.get().segment, 0) {
            Ok(true) => IntakeError::Content(error),
            Ok(false) => {
                temporary(io::Error::new(io::ErrorKind::InvalidData, "it gives other bytes than it was given"))
            }
            Err(source) => temporary(source),
        }
    })?;
    let rebuilt = match deep {
        Some(file) => Some(rebuild(&content).map_err(|error| second_look(file, &looker.places, error))?),
        None => None,
    };
    Ok(Checked { manifest, bytes: reader.offset(), missing, rebuilt })
}

fn temporary(source: io::Error) -> IntakeError<Infallible> {
    IntakeError::Store(StoreError::Temporary { path: std::env::temp_dir(), source })
}

// Every pack had its digest at the first reading. Only if all have it still, the vendor signed what cannot be rebuilt.
fn second_look(file: &File, places: &[(Blob, u64)], error: ContentError) -> IntakeError<Infallible> {
    for (pack, offset) in places {
        match is_same(file, *pack, *offset) {
            Ok(true) => {}
            Ok(false) => {
                let source = io::Error::new(io::ErrorKind::InvalidData, "the second reading gave other bytes");
                return IntakeError::Read { offset: *offset, source };
            }
            Err(source) => return IntakeError::Read { offset: *offset, source },
        }
    }
    IntakeError::Content(error)
}

fn is_same(file: &File, pack: Blob, offset: u64) -> io::Result<bool> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while at < pack.size {
        let n = buffer.len().min((pack.size - at) as usize);
        match file.read_exact_at(&mut buffer[..n], offset + at) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        hasher.update(&buffer[..n]);
        at += n as u64;
    }
    Ok(hasher.finish() == pack.digest)
}

fn rebuild(content: &BundleContent) -> Result<usize, ContentError> {
    // in the order in which they lie there, so that small blobs of one frame decode it once
    let mut blobs = content.index().blobs().to_vec();
    blobs.sort_by_key(|blob| (blob.pack, blob.offset));
    for blob in &blobs {
        let failed = |source| ContentError::Read { image: "of the bundle".into(), digest: blob.digest, source };
        let mut stream = content.open(&blob.digest).map_err(failed)?;
        let mut buffer = [0; 64 << 10];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(e)),
            }
        }
    }
    Ok(blobs.len())
}

struct Looker<'a> {
    sealed: &'a dyn Fn(&Vendor),
    advance: &'a dyn Fn(u64),
    manifest: Option<Manifest>,
    index: Vec<u8>,
    segment: File,
    // packs, and where each lies in the file
    places: Vec<(Blob, u64)>,
    at: u64,
}

impl Sink for Looker<'_> {
    type Error = io::Error;

    fn verified(&mut self, reader: &BundleReader<'_>) -> Result<(), io::Error> {
        let manifest = reader.manifest().expect("the seal was verified").get().clone();
        let seal = reader.seal().expect("the seal was verified");
        self.at = sealift_format::view::head(seal, &manifest).len() as u64;
        self.manifest = Some(manifest);
        (self.sealed)(reader.vendor().expect("the seal was verified"));
        Ok(())
    }

    fn has(&mut self, _: Blob) -> Result<bool, io::Error> {
        Ok(false)
    }

    fn piece(&mut self, part: Part, bytes: &[u8]) -> Result<(), io::Error> {
        match part {
            Part::Index => self.index.extend_from_slice(bytes),
            Part::Segment => self.segment.write_all(bytes)?,
            Part::Pack(_) => {}
        }
        (self.advance)(bytes.len() as u64);
        Ok(())
    }

    fn complete(&mut self, part: Part) -> Result<(), io::Error> {
        // every part is followed by its padding and by the header of the next one
        let manifest = self.manifest.as_ref().expect("the seal comes first");
        let size = match part {
            Part::Segment => manifest.segment.size,
            Part::Index => manifest.index.size,
            Part::Pack(n) => {
                self.places.push((manifest.packs[n], self.at));
                manifest.packs[n].size
            }
        };
        self.at += size + sealift_format::tar::padding(size) as u64 + sealift_format::tar::BLOCK as u64;
        Ok(())
    }
}
