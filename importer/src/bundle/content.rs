//! Blobs of a bundle, rebuilt from packs: every frame checked before it is decoded, every blob at its end.
//!
//! A pack of the store whose bytes turn out to be damaged is removed, so that the next run can bring it anew.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use sealift_console::stop;
use sealift_format::extent::{self, Encoding, Extent};
use sealift_format::frame;
use sealift_format::index::{BlobEntry, Index, Place};
use sealift_format::limits::Limits;
use sealift_format::manifest::Manifest;
use sealift_format::oci;
use sealift_format::{Digest, Error, Hasher};

use crate::image::Content;
use crate::store::StoreError;

/// Where the stored bytes of a pack lie.
#[derive(Debug, Clone)]
pub enum PackPlace {
    /// A file of its own in the store. It is removed if its bytes are not those that were kept.
    Store(PathBuf),
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
    // documents and extent lists lie side by side in few frames
    last: Mutex<Option<Decoded>>,
    removed: OnceLock<PathBuf>,
}

impl BundleContent {
    /// The blobs of this bundle, whose packs lie at these places. Packs may be absent: then blobs that
    /// need them cannot be opened.
    #[must_use]
    pub fn new(manifest: Manifest, index: Index, places: BTreeMap<Digest, PackPlace>) -> Self {
        Self(Arc::new(Inner { manifest, index, places, last: Mutex::new(None), removed: OnceLock::new() }))
    }

    /// The damaged pack that was removed from the store, if there was one.
    #[must_use]
    pub fn removed(&self) -> Option<&Path> {
        self.0.removed.get().map(PathBuf::as_path)
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
        let (extents, keep) = match blob.place {
            Place::Direct if blob.size == 0 => (Vec::new(), 1),
            Place::Direct => (vec![first], 1),
            Place::List => self.list(&blob, first)?,
        };
        Ok(Box::new(BlobReader {
            bundle: self.clone(),
            blob,
            extents: extents.into_iter(),
            pieces: Vec::new().into_iter(),
            packs: Packs { keep, ..Packs::default() },
            piece: None,
            hasher: Hasher::new(),
            ended: false,
        }))
    }
}

impl BundleContent {
    // The extents, and how many frames to keep decoded while they are read.
    fn list(&self, blob: &BlobEntry, place: Extent) -> io::Result<(Vec<Extent>, usize)> {
        let mut bytes = Vec::with_capacity(place.length as usize);
        let mut packs = Packs::default();
        for piece in self.pieces(&place)? {
            let frame = self.frame(&piece, &mut packs, true)?;
            bytes.extend_from_slice(&frame[piece.from..piece.to]);
        }
        let extents = extent::read_list(&bytes).map_err(invalid)?;
        let checked = self.0.index.check_extents(&self.0.manifest, blob, &extents, &Limits::default());
        Ok((extents, checked.map_err(invalid)?))
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

    // A reader of a large blob leaves the shared frame alone: others would lose theirs.
    fn frame(&self, piece: &Stored, packs: &mut Packs, small: bool) -> io::Result<Arc<Vec<u8>>> {
        stop::check()?;
        let same = |d: &Decoded| d.pack == piece.pack && d.offset == piece.offset;
        if let Some(n) = packs.last.iter().position(same) {
            packs.last[..=n].rotate_right(1);
            return Ok(Arc::clone(&packs.last[0].content));
        }
        packs.last.truncate(packs.keep.saturating_sub(1));
        let content = if small {
            let mut shared = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
            match shared.as_ref().filter(|d| same(d)) {
                Some(last) => Arc::clone(&last.content),
                None => {
                    *shared = None;
                    let content = Arc::new(self.decode(piece, packs)?);
                    *shared = Some(Decoded { pack: piece.pack, offset: piece.offset, content: Arc::clone(&content) });
                    content
                }
            }
        } else {
            Arc::new(self.decode(piece, packs)?)
        };
        packs.last.insert(0, Decoded { pack: piece.pack, offset: piece.offset, content: Arc::clone(&content) });
        Ok(content)
    }

    fn decode(&self, piece: &Stored, packs: &mut Packs) -> io::Result<Vec<u8>> {
        let place = self
            .0
            .places
            .get(&piece.pack)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("pack {} is not there", piece.pack)))?;
        if packs.open.as_ref().is_none_or(|(open, ..)| *open != piece.pack) {
            packs.open = Some(match place {
                PackPlace::Store(path) => (piece.pack, Arc::new(File::open(path)?), 0),
                PackPlace::Within { file, offset } => (piece.pack, Arc::clone(file), *offset),
            });
        }
        let (_, file, base) = packs.open.as_ref().expect("it was opened just now");
        let mut stored = vec![0; piece.frame.stored as usize];
        match (file.read_exact_at(&mut stored, base + piece.offset), place) {
            (Err(e), PackPlace::Store(path)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.remove(path));
            }
            (read, _) => read?,
        }
        frame::decode(&piece.frame, stored).map_err(|error| match (&error, place) {
            (Error::DigestMismatch { .. }, PackPlace::Store(path)) => self.remove(path),
            _ => invalid(error),
        })
    }

    // The pack was whole when it got its name, so its bytes have changed since.
    fn remove(&self, path: &Path) -> io::Error {
        let error = match std::fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                StoreError::Io { doing: "remove the damaged pack", path: path.to_path_buf(), source }
            }
            _ => {
                let _ = self.0.removed.set(path.to_path_buf());
                StoreError::Removed(path.to_path_buf())
            }
        };
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

#[derive(Debug)]
struct Decoded {
    pack: Digest,
    offset: u64,
    content: Arc<Vec<u8>>,
}

// What a reader had open last: the pack, and the frames of which extents that follow may need more, the last one first.
#[derive(Debug, Default)]
struct Packs {
    open: Option<(Digest, Arc<File>, u64)>,
    last: Vec<Decoded>,
    keep: usize,
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
    packs: Packs,
    piece: Option<(Arc<Vec<u8>>, Range<usize>)>,
    hasher: Hasher,
    ended: bool,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some((frame, rest)) = self.piece.as_mut().filter(|(_, rest)| !rest.is_empty()) {
                let n = buffer.len().min(rest.len());
                buffer[..n].copy_from_slice(&frame[rest.start..rest.start + n]);
                rest.start += n;
                return Ok(n);
            }
            self.piece = None;
            if let Some(piece) = self.pieces.next() {
                let small = self.blob.size <= oci::MAX_DOCUMENT as u64;
                let frame = self.bundle.frame(&piece, &mut self.packs, small)?;
                self.hasher.update(&frame[piece.from..piece.to]);
                self.piece = Some((frame, piece.from..piece.to));
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
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
