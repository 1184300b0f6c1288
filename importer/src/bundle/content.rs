//! Blobs of a bundle, rebuilt from packs: every frame checked before it is decoded, every blob at its end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use sealift_format::extent::{self, Encoding, Extent};
use sealift_format::frame;
use sealift_format::index::{BlobEntry, Index, Place};
use sealift_format::manifest::Manifest;
use sealift_format::{Digest, Error, Hasher};

use crate::image::Content;

/// Where the stored bytes of a pack lie.
#[derive(Debug, Clone)]
pub enum PackPlace {
    /// A file of its own.
    File(PathBuf),
    /// A part of an open file.
    Within {
        /// The file.
        file: Arc<File>,
        /// Where the pack starts in it.
        offset: u64,
    },
}

/// The blobs of one bundle.
#[derive(Debug, Clone)]
pub struct BundleContent(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    manifest: Manifest,
    index: Index,
    places: BTreeMap<Digest, PackPlace>,
}

impl BundleContent {
    /// The blobs of this bundle, whose packs lie at these places. Packs may be absent: then blobs that
    /// need them cannot be opened.
    #[must_use]
    pub fn new(manifest: Manifest, index: Index, places: BTreeMap<Digest, PackPlace>) -> Self {
        Self(Arc::new(Inner { manifest, index, places }))
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.0.index
    }

    /// A whole blob of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// As [`Content::open`] and its reader; [`io::ErrorKind::FileTooLarge`] above the limit.
    pub fn read(&self, digest: &Digest, limit: u64) -> io::Result<Vec<u8>> {
        let size = self.size(digest).ok_or(io::ErrorKind::NotFound)?;
        if size > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = Vec::with_capacity(size as usize);
        self.open(digest)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Content for BundleContent {
    fn size(&self, digest: &Digest) -> Option<u64> {
        self.0.index.blob(digest).map(|b| b.size)
    }

    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        let blob = *self
            .0
            .index
            .blob(digest)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("the bundle has no blob {digest}")))?;
        if blob.encoding != Encoding::Plain {
            return Err(invalid(Error::Unsupported(format!("encoding:{}", blob.encoding.name()))));
        }
        let first = Index::extent(&self.0.manifest, &blob)
            .ok_or_else(|| invalid(Error::Unsupported("a pack that is not there".into())))?;
        let extents = match blob.place {
            Place::Direct if blob.size == 0 => Vec::new(),
            Place::Direct => vec![first],
            Place::List => self.list(&blob, first)?,
        };
        Ok(Box::new(BlobReader {
            bundle: self.clone(),
            blob,
            extents: extents.into_iter(),
            pieces: Vec::new().into_iter(),
            file: None,
            piece: Vec::new(),
            used: 0,
            hasher: Hasher::new(),
            ended: false,
        }))
    }
}

impl BundleContent {
    fn list(&self, blob: &BlobEntry, place: Extent) -> io::Result<Vec<Extent>> {
        let mut bytes = Vec::with_capacity(place.length as usize);
        let mut file = None;
        for piece in self.pieces(&place)? {
            bytes.extend_from_slice(&self.piece(&piece, &mut file)?);
        }
        let extents = extent::read_list(&bytes).map_err(invalid)?;
        let total = extents.iter().try_fold(0u64, |sum, e| sum.checked_add(e.length));
        if total != Some(blob.size) {
            return Err(invalid(Error::Malformed {
                what: "extent list",
                reason: format!("it is not as long as the blob {}", blob.digest),
            }));
        }
        Ok(extents)
    }

    fn pieces(&self, extent: &Extent) -> io::Result<Vec<Stored>> {
        let outside = || {
            invalid(Error::Malformed {
                what: "extent list",
                reason: format!("an extent lies outside pack {}", extent.pack),
            })
        };
        let number = Index::pack_number(&self.0.manifest, &extent.pack).ok_or_else(outside)?;
        let pieces = self.0.index.pieces(number, extent.offset, extent.length).ok_or_else(outside)?;
        Ok(pieces
            .into_iter()
            .map(|p| Stored {
                pack: extent.pack,
                offset: p.stored_offset,
                frame: p.frame.clone(),
                from: p.range.start,
                to: p.range.end,
            })
            .collect())
    }

    // `file` remembers the pack that was open last.
    fn piece(&self, piece: &Stored, file: &mut Option<(Digest, Arc<File>, u64)>) -> io::Result<Vec<u8>> {
        if file.as_ref().is_none_or(|(open, ..)| *open != piece.pack) {
            *file = Some(match self.0.places.get(&piece.pack) {
                Some(PackPlace::File(path)) => (piece.pack, Arc::new(File::open(path)?), 0),
                Some(PackPlace::Within { file, offset }) => (piece.pack, Arc::clone(file), *offset),
                None => {
                    return Err(io::Error::new(io::ErrorKind::NotFound, format!("pack {} is not there", piece.pack)));
                }
            });
        }
        let (_, file, base) = file.as_ref().expect("it was opened just now");
        let mut stored = vec![0; piece.frame.stored as usize];
        file.read_exact_at(&mut stored, base + piece.offset)?;
        let mut raw = frame::decode(&piece.frame, stored).map_err(invalid)?;
        raw.truncate(piece.to);
        raw.drain(..piece.from);
        Ok(raw)
    }
}

#[derive(Debug)]
struct Stored {
    pack: Digest,
    offset: u64,
    frame: frame::FrameEntry,
    from: usize,
    to: usize,
}

struct BlobReader {
    bundle: BundleContent,
    blob: BlobEntry,
    extents: std::vec::IntoIter<Extent>,
    pieces: std::vec::IntoIter<Stored>,
    file: Option<(Digest, Arc<File>, u64)>,
    piece: Vec<u8>,
    used: usize,
    hasher: Hasher,
    ended: bool,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.used == self.piece.len() {
            if let Some(piece) = self.pieces.next() {
                self.piece = self.bundle.piece(&piece, &mut self.file)?;
                self.used = 0;
                self.hasher.update(&self.piece);
            } else if let Some(extent) = self.extents.next() {
                self.pieces = self.bundle.pieces(&extent)?.into_iter();
            } else {
                if !self.ended {
                    self.ended = true;
                    let actual = std::mem::take(&mut self.hasher).finish();
                    if actual != self.blob.digest {
                        return Err(invalid(Error::DigestMismatch {
                            what: "blob".into(),
                            expected: self.blob.digest,
                            actual,
                        }));
                    }
                }
                return Ok(0);
            }
        }
        let n = buffer.len().min(self.piece.len() - self.used);
        buffer[..n].copy_from_slice(&self.piece[self.used..self.used + n]);
        self.used += n;
        Ok(n)
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
