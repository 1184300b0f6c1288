//! Puts blobs into packs: equal blobs once, content in order of first use, frames compressed side by side.
//!
//! What comes out depends on the blobs and their order only. Six frames and one pack at most are in memory
//! at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use rayon::prelude::*;
use sealift_format::digest::{Digest, Hasher};
use sealift_format::extent::{self, Encoding, Extent};
use sealift_format::frame::{self, EncodedFrame, FrameCodec, FrameEntry};
use sealift_format::index::{BlobEntry, Index, Place};
use sealift_format::manifest::Blob;
use sealift_format::pack::{Pack, PackWriter, Placement};

const FRAME: usize = 8 << 20;
const PACK: u64 = 64 << 20;
/// Frames that are compressed side by side: bounds the memory, whatever the number of CPUs.
const SIDE_BY_SIDE: usize = 4;

/// Why blobs could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A blob cannot be read.
    #[error("cannot read {name}")]
    Read {
        /// What it is, for people.
        name: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// A blob is not what it was when it was looked at first.
    #[error("{name} is not what it should be: expected {expected}, read {actual}")]
    Changed {
        /// What it is, for people.
        name: String,
        /// Its digest.
        expected: Digest,
        /// The digest of what was read.
        actual: Digest,
    },
    /// A finished pack cannot be kept.
    #[error("cannot write a pack")]
    Write(#[source] io::Error),
    /// Small things take more than a segment holds.
    #[error("charts, documents and files below 1 MiB take {0} bytes together; a segment holds 64 MiB")]
    Segment(usize),
}

/// A finished set of packs.
#[derive(Debug)]
pub struct Packed {
    /// The segment.
    pub segment: Pack,
    /// The packs, in order.
    pub packs: Vec<Blob>,
    /// Where every blob lies.
    pub index: Index,
}

/// Where a blob goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// The segment: small things that are wanted early.
    Segment,
    /// The packs.
    Packs,
}

#[derive(Debug)]
struct Piece {
    frame: usize,
    offset: usize,
    length: usize,
}

#[derive(Debug, Default)]
struct OpenFrame {
    id: Option<usize>,
    content: Vec<u8>,
}

#[derive(Debug)]
struct Closed {
    id: usize,
    stored: bool,
    content: Vec<u8>,
}

/// Packs blobs in the order in which they are added.
pub struct Packer<'a> {
    level: i32,
    keep: &'a mut dyn FnMut(&Pack) -> io::Result<()>,
    packs: PackWriter,
    done: Vec<(Blob, Vec<FrameEntry>)>,
    segment: Vec<u8>,
    small: Vec<(Digest, u64, u64)>,
    large: BTreeMap<Digest, (u64, Vec<Piece>)>,
    seen: BTreeSet<Digest>,
    stored: OpenFrame,
    compressed: OpenFrame,
    frames: usize,
    closed: Vec<Closed>,
    placements: BTreeMap<usize, Placement>,
    placed: BTreeMap<Digest, Placement>,
}

impl<'a> Packer<'a> {
    /// A packer that compresses at this zstd level (1 to 19) and hands every finished pack to `keep`.
    pub fn new(level: i32, keep: &'a mut dyn FnMut(&Pack) -> io::Result<()>) -> Self {
        Self {
            level,
            keep,
            packs: PackWriter::new(PACK),
            done: Vec::new(),
            segment: Vec::new(),
            small: Vec::new(),
            large: BTreeMap::new(),
            seen: BTreeSet::new(),
            stored: OpenFrame::default(),
            compressed: OpenFrame::default(),
            frames: 0,
            closed: Vec::new(),
            placements: BTreeMap::new(),
            placed: BTreeMap::new(),
        }
    }

    /// Adds a blob, unless an equal one is there. It is hashed as it is read.
    ///
    /// # Errors
    ///
    /// [`PackError`] naming the blob.
    pub fn add(&mut self, name: &str, blob: Blob, room: Room, mut content: impl Read) -> Result<(), PackError> {
        if !self.seen.insert(blob.digest) {
            return Ok(());
        }
        let unreadable = |source| PackError::Read { name: name.to_string(), source };
        let changed = |actual| PackError::Changed { name: name.to_string(), expected: blob.digest, actual };
        if room == Room::Segment {
            let mut bytes = Vec::new();
            content.take(blob.size + 1).read_to_end(&mut bytes).map_err(unreadable)?;
            let actual = Digest::of(&bytes);
            if actual != blob.digest || bytes.len() as u64 != blob.size {
                return Err(changed(actual));
            }
            let offset = self.segment_add(&bytes)?;
            self.small.push((blob.digest, offset, blob.size));
            return Ok(());
        }
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        let mut pieces = Vec::new();
        let mut stored = None;
        loop {
            let n = fill(&mut content, &mut buffer).map_err(unreadable)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            let stored = *stored.get_or_insert_with(|| is_compressed(&buffer[..n]));
            self.append(stored, &buffer[..n], &mut pieces)?;
        }
        if hasher.length() != blob.size {
            return Err(changed(hasher.finish()));
        }
        let actual = hasher.finish();
        if actual != blob.digest {
            return Err(changed(actual));
        }
        self.large.insert(blob.digest, (blob.size, pieces));
        Ok(())
    }

    /// Closes the last packs and the segment.
    ///
    /// # Errors
    ///
    /// [`PackError`].
    pub fn finish(mut self) -> Result<Packed, PackError> {
        self.close(true);
        self.close(false);
        self.flush()?;
        if let Some(pack) = self.packs.finish() {
            self.keep(pack)?;
        }
        let mut blobs = Vec::new();
        for (digest, (size, pieces)) in std::mem::take(&mut self.large) {
            let mut extents = Vec::new();
            for piece in &pieces {
                let placement = self.placements[&piece.frame];
                let (pack, offset) = (self.done[placement.pack].0.digest, placement.offset + piece.offset as u64);
                extent::push(&mut extents, Extent { pack, offset, length: piece.length as u64 });
            }
            let direct = |pack: u32, offset, length| BlobEntry {
                digest,
                size,
                encoding: Encoding::Plain,
                place: Place::Direct,
                pack,
                offset,
                length,
            };
            blobs.push(match extents.as_slice() {
                [] => direct(0, 0, 0),
                [one] => {
                    let pack =
                        self.done.iter().position(|(p, _)| p.digest == one.pack).expect("the pack is one of ours");
                    direct(pack as u32 + 1, one.offset, one.length)
                }
                many => {
                    let list = extent::write_list(many);
                    let offset = self.segment_add(&list)?;
                    BlobEntry { place: Place::List, ..direct(0, offset, list.len() as u64) }
                }
            });
        }
        if self.segment.is_empty() {
            self.segment_add(b"\n")?;
        }
        for (digest, offset, size) in &self.small {
            blobs.push(BlobEntry {
                digest: *digest,
                size: *size,
                encoding: Encoding::Plain,
                place: Place::Direct,
                pack: 0,
                offset: *offset,
                length: *size,
            });
        }
        let mut segment = PackWriter::new(PACK);
        for content in self.segment.chunks(FRAME) {
            segment.push(&frame::encode(content, self.level));
        }
        let segment = segment.finish().expect("the segment is not empty");
        let (packs, frames): (Vec<Blob>, Vec<Vec<FrameEntry>>) = self.done.into_iter().unzip();
        let index = Index::new(std::iter::once(segment.frames.clone()).chain(frames).collect(), blobs);
        Ok(Packed { segment, packs, index })
    }

    fn append(&mut self, stored: bool, mut bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(), PackError> {
        while !bytes.is_empty() {
            let open = if stored { &mut self.stored } else { &mut self.compressed };
            let id = *open.id.get_or_insert_with(|| {
                self.frames += 1;
                self.frames
            });
            let n = bytes.len().min(FRAME - open.content.len());
            match pieces.last_mut() {
                Some(last) if last.frame == id && last.offset + last.length == open.content.len() => last.length += n,
                _ => pieces.push(Piece { frame: id, offset: open.content.len(), length: n }),
            }
            open.content.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if open.content.len() == FRAME {
                self.close(stored);
                if self.closed.len() >= SIDE_BY_SIDE {
                    self.flush()?;
                }
            }
        }
        Ok(())
    }

    fn close(&mut self, stored: bool) {
        let open = std::mem::take(if stored { &mut self.stored } else { &mut self.compressed });
        if let Some(id) = open.id {
            self.closed.push(Closed { id, stored, content: open.content });
        }
    }

    fn flush(&mut self) -> Result<(), PackError> {
        let level = self.level;
        let encoded: Vec<(usize, EncodedFrame)> = std::mem::take(&mut self.closed)
            .into_par_iter()
            .map(|closed| {
                let frame = if closed.stored {
                    EncodedFrame { codec: FrameCodec::Stored, raw: closed.content.len() as u32, bytes: closed.content }
                } else {
                    frame::encode(&closed.content, level)
                };
                (closed.id, frame)
            })
            .collect();
        for (id, frame) in encoded {
            // an equal frame is stored once, which also keeps any two packs different
            let digest = Digest::of(&frame.bytes);
            if let Some(placement) = self.placed.get(&digest) {
                self.placements.insert(id, *placement);
                continue;
            }
            let (placement, full) = self.packs.push(&frame);
            self.placed.insert(digest, placement);
            self.placements.insert(id, placement);
            if let Some(pack) = full {
                self.keep(pack)?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, pack: Pack) -> Result<(), PackError> {
        (self.keep)(&pack).map_err(PackError::Write)?;
        self.done.push((Blob { digest: pack.digest, size: pack.bytes.len() as u64 }, pack.frames));
        Ok(())
    }

    // Small things lie behind one another in the segment's content, whatever its frames are.
    fn segment_add(&mut self, bytes: &[u8]) -> Result<u64, PackError> {
        let offset = self.segment.len();
        self.segment.extend_from_slice(bytes);
        if self.segment.len() > PACK as usize {
            return Err(PackError::Segment(self.segment.len()));
        }
        Ok(offset as u64)
    }
}

// Content that is compressed already only costs time to compress again.
fn is_compressed(start: &[u8]) -> bool {
    const MAGICS: [&[u8]; 5] =
        [&[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd], &[0xfd, b'7', b'z', b'X', b'Z'], b"BZh", b"PK\x03\x04"];
    MAGICS.iter().any(|magic| start.starts_with(magic))
}

fn fill(content: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match content.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
