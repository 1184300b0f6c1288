//! Verifies a bundle without keeping anything: one pass, at most 64 MiB of memory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use sealift_format::drive::{self, DriveError, Sink};
use sealift_format::index::Index;
use sealift_format::manifest::{Blob, Manifest};
use sealift_format::reader::{BundleReader, Part};
use sealift_format::trust::{TrustStore, Vendor, Verified};
use sealift_format::{Digest, Limits};

use super::content::{BundleContent, PackPlace};
use super::images::{self, ContentError};
use super::intake::IntakeError;
use super::medium::Medium;
use crate::image::Content as _;

/// What a bundle turned out to be.
#[derive(Debug)]
pub struct Checked {
    /// The manifest.
    pub manifest: Verified<Manifest>,
    /// The vendor, as the bundle's root chain leaves it.
    pub vendor: Vendor,
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
/// # Errors
///
/// [`IntakeError::Refused`], [`IntakeError::Content`] or [`IntakeError::Read`].
pub fn check(
    medium: &mut Medium,
    trust: &TrustStore,
    deep: bool,
    advance: &dyn Fn(u64),
) -> Result<Checked, IntakeError<Infallible>> {
    let mut reader = BundleReader::new(trust, Limits::default());
    let pipe = medium.file().is_none();
    let mut looker =
        Looker { advance, manifest: None, index: Vec::new(), segment: Vec::new(), pipe, places: Vec::new(), at: 0 };
    drive::drive(&mut reader, medium, &mut looker).map_err(|e| match e {
        DriveError::Refused(error) => IntakeError::Refused(error),
        DriveError::Read { offset, source } => IntakeError::Read { offset, source },
        DriveError::Sink(never) => match never {},
    })?;
    let manifest = reader.manifest().expect("a bundle that was read has a manifest").clone();
    let index = Index::read(&looker.index, manifest.get(), &Limits::default()).map_err(IntakeError::Refused)?;
    let missing = reader.missing();
    let unreadable = |source| IntakeError::Read { offset: 0, source };
    let mut places = BTreeMap::new();
    if let Some(file) = medium.file() {
        let file = Arc::new(file.try_clone().map_err(unreadable)?);
        let within = |offset| PackPlace::Within { file: Arc::clone(&file), offset };
        places.extend(looker.places.iter().map(|(digest, offset)| (*digest, within(*offset))));
    } else {
        // a pipe cannot be read again, and the segment is all that the documents need
        let file = Arc::new(keep(&looker.segment).map_err(unreadable)?);
        places.insert(manifest.get().segment.digest, PackPlace::Within { file, offset: 0 });
    }
    let content = BundleContent::new(manifest.get().clone(), index, places);
    images::check(manifest.get(), &content).map_err(IntakeError::Content)?;
    let deep = deep && missing.is_empty() && medium.file().is_some();
    let rebuilt = if deep { Some(rebuild(&content).map_err(IntakeError::Content)?) } else { None };
    let vendor = reader.vendor().expect("a bundle that was read has a vendor").clone();
    Ok(Checked { manifest, vendor, bytes: reader.offset(), missing, rebuilt })
}

fn keep(bytes: &[u8]) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    Ok(file)
}

fn rebuild(content: &BundleContent) -> Result<usize, ContentError> {
    let blobs = content.index().blobs();
    for blob in blobs {
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
    advance: &'a dyn Fn(u64),
    manifest: Option<Manifest>,
    index: Vec<u8>,
    // kept only if the medium is a pipe
    segment: Vec<u8>,
    pipe: bool,
    places: Vec<(Digest, u64)>,
    at: u64,
}

impl Sink for Looker<'_> {
    type Error = Infallible;

    fn verified(&mut self, reader: &BundleReader<'_>) -> Result<(), Infallible> {
        let manifest = reader.manifest().expect("the seal was verified").get().clone();
        let seal = reader.seal().expect("the seal was verified");
        self.at = sealift_format::view::head(seal, &manifest).len() as u64;
        self.manifest = Some(manifest);
        Ok(())
    }

    fn has(&mut self, _: Blob) -> Result<bool, Infallible> {
        Ok(false)
    }

    fn piece(&mut self, part: Part, bytes: &[u8]) -> Result<(), Infallible> {
        match part {
            Part::Index => self.index.extend_from_slice(bytes),
            Part::Segment if self.pipe => self.segment.extend_from_slice(bytes),
            _ => {}
        }
        (self.advance)(bytes.len() as u64);
        Ok(())
    }

    fn complete(&mut self, part: Part) -> Result<(), Infallible> {
        // every part is followed by its padding and by the header of the next one
        let manifest = self.manifest.as_ref().expect("the seal comes first");
        let (digest, size) = match part {
            Part::Segment => (manifest.segment.digest, manifest.segment.size),
            Part::Index => (manifest.index.digest, manifest.index.size),
            Part::Pack(n) => (manifest.packs[n].digest, manifest.packs[n].size),
        };
        self.places.push((digest, self.at));
        self.at += size + sealift_format::tar::padding(size) as u64 + sealift_format::tar::BLOCK as u64;
        Ok(())
    }
}
