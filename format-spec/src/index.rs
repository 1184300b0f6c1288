//! The index: where every blob lies and what every frame must be (SPEC.md, "Index").

use std::collections::BTreeMap;
use std::ops::Range;

use crate::digest::Digest;
use crate::error::Error;
use crate::extent::{Encoding, Extent};
use crate::frame::{self, FrameCodec, FrameEntry, PrefixExtent};
use crate::limits::Limits;
use crate::manifest::Manifest;

/// First bytes of the decoded index.
pub const MAGIC: [u8; 8] = *b"SLINDEX1";
/// Frames that are kept decoded while a blob is made: those that were used last.
pub const FRAMES_KEPT: usize = 4;
const HEADER: usize = 24;
const PACK: usize = 4;
const FRAME: usize = 48;
const PREFIX: usize = 16;
const BLOB: usize = 64;

/// Where a blob lies, and how it is made from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobEntry {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// How the blob is made from its content.
    pub encoding: Encoding,
    /// Where the content, or the list of its extents, lies.
    pub place: Place,
    /// The pack, by its number in this bundle (0: the segment).
    pub pack: u32,
    /// First byte, counted in the pack's content.
    pub offset: u64,
    /// Number of bytes there.
    pub length: u64,
}

/// What lies where a [`BlobEntry`] points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The content itself.
    Direct,
    /// An extent list.
    List,
}

/// All blobs and all frames of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    packs: Vec<Range<usize>>,
    frames: Vec<FrameEntry>,
    // where each frame starts: in the content of its pack, and in the stored pack
    starts: Vec<(u64, u64)>,
    raw_sizes: Vec<u64>,
    blobs: Vec<BlobEntry>,
}

/// A piece of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FramePiece<'a> {
    /// The frame.
    pub frame: &'a FrameEntry,
    /// Where its stored bytes start in the pack.
    pub stored_offset: u64,
    /// Which bytes of its content are meant.
    pub range: Range<usize>,
}

impl Index {
    /// Puts an index together: the frames of each pack (the segment first), and the blobs in any order.
    #[must_use]
    pub fn new(packs: Vec<Vec<FrameEntry>>, mut blobs: Vec<BlobEntry>) -> Self {
        blobs.sort_by_key(|b| b.digest);
        let mut ranges = Vec::with_capacity(packs.len());
        let mut frames = Vec::new();
        for pack in packs {
            let start = frames.len();
            frames.extend(pack);
            ranges.push(start..frames.len());
        }
        let (starts, raw_sizes) = starts(&ranges, &frames);
        Self { packs: ranges, frames, starts, raw_sizes, blobs }
    }

    /// The decoded form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let prefixes: Vec<&PrefixExtent> = self.frames.iter().flat_map(|f| &f.prefix).collect();
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        for count in [self.packs.len(), self.frames.len(), prefixes.len(), self.blobs.len()] {
            out.extend_from_slice(&(count as u32).to_le_bytes());
        }
        for pack in &self.packs {
            out.extend_from_slice(&(pack.len() as u32).to_le_bytes());
        }
        for frame in &self.frames {
            out.extend_from_slice(frame.digest.as_bytes());
            out.extend_from_slice(&frame.stored.to_le_bytes());
            out.extend_from_slice(&frame.raw.to_le_bytes());
            out.extend_from_slice(&[frame.codec.code(), 0]);
            out.extend_from_slice(&(frame.prefix.len() as u16).to_le_bytes());
            out.extend_from_slice(&[0; 4]);
        }
        for prefix in prefixes {
            out.extend_from_slice(&prefix.pack.to_le_bytes());
            out.extend_from_slice(&prefix.length.to_le_bytes());
            out.extend_from_slice(&prefix.offset.to_le_bytes());
        }
        for blob in &self.blobs {
            out.extend_from_slice(blob.digest.as_bytes());
            out.extend_from_slice(&blob.size.to_le_bytes());
            out.extend_from_slice(&[blob.encoding.code(), u8::from(blob.place == Place::List), 0, 0]);
            out.extend_from_slice(&blob.pack.to_le_bytes());
            out.extend_from_slice(&blob.offset.to_le_bytes());
            out.extend_from_slice(&blob.length.to_le_bytes());
        }
        out
    }

    /// The stored form of a decoded index.
    #[must_use]
    pub fn compress(raw: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::bulk::Compressor::new(9).expect("9 is a level");
        encoder.window_log(23).expect("23 is a valid window");
        encoder.compress(raw).expect("the bound of the output is known")
    }

    /// Decodes and checks the stored index, whose digest has been compared already.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] for anything that does not fit itself or the manifest;
    /// [`Error::Unsupported`] for a frame codec or an encoding that is not known.
    pub fn read(stored: &[u8], manifest: &Manifest, limits: &Limits) -> Result<Self, Error> {
        let bad = |reason: String| Error::malformed("index", reason);
        let raw = frame::unpack(stored, manifest.index.raw_size as usize, limits.index_raw)?;
        let bytes = raw.as_slice();
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let digest = |at: usize| Digest::from_bytes(bytes[at..at + 32].try_into().expect("32 bytes"));
        if bytes.len() < HEADER || bytes[..8] != MAGIC {
            return Err(bad("it does not start with \"SLINDEX1\"".into()));
        }
        let (n_packs, n_frames, n_prefixes, n_blobs) = (word(8), word(12), word(16), word(20));
        let frames_at = HEADER + n_packs * PACK;
        let prefixes_at = frames_at + n_frames * FRAME;
        let blobs_at = prefixes_at + n_prefixes * PREFIX;
        if blobs_at + n_blobs * BLOB != bytes.len() {
            return Err(bad("its tables do not fill it".into()));
        }
        let parts: Vec<_> = std::iter::once(&manifest.segment).chain(&manifest.packs).collect();
        if n_packs != parts.len() {
            return Err(bad(format!("it has {n_packs} packs, the manifest {}", parts.len())));
        }
        let mut packs = Vec::with_capacity(n_packs);
        let mut next = 0usize;
        for n in 0..n_packs {
            let end = next + word(HEADER + n * PACK);
            packs.push(next..end);
            next = end;
        }
        if next != n_frames || packs.iter().any(Range::is_empty) {
            return Err(bad("its frames do not fill its packs".into()));
        }
        let mut frames = Vec::with_capacity(n_frames);
        let mut prefix = prefixes_at;
        for n in 0..n_frames {
            let at = frames_at + n * FRAME;
            let codec = FrameCodec::from_code(bytes[at + 40])?;
            let refs = usize::from(u16::from_le_bytes([bytes[at + 42], bytes[at + 43]]));
            let entry = FrameEntry {
                digest: digest(at),
                stored: word(at + 32) as u32,
                raw: word(at + 36) as u32,
                codec,
                prefix: (0..refs)
                    .map(|r| prefix + r * PREFIX)
                    .take_while(|at| *at < blobs_at)
                    .map(|at| PrefixExtent { pack: word(at) as u32, length: word(at + 4) as u32, offset: long(at + 8) })
                    .collect(),
            };
            if bytes[at + 41] != 0 || bytes[at + 44..at + 48] != [0; 4] {
                return Err(bad(format!("a reserved byte of frame {n} is not zero")));
            }
            if entry.prefix.len() != refs || (refs > 0) != (codec == FrameCodec::Reference) {
                return Err(bad(format!("the prefix of frame {n} does not fit its codec")));
            }
            if entry.raw == 0 || entry.raw > limits.frame || entry.stored == 0 || entry.stored > entry.raw {
                return Err(bad(format!("frame {n} stores {} bytes in {}", entry.raw, entry.stored)));
            }
            if codec == FrameCodec::Stored && entry.stored != entry.raw {
                return Err(bad(format!("frame {n} is stored as it is and has two sizes")));
            }
            prefix += refs * PREFIX;
            frames.push(entry);
        }
        if prefix != blobs_at {
            return Err(bad("prefixes belong to no frame".into()));
        }
        for (pack, part) in packs.iter().zip(&parts) {
            let sum: u64 = frames[pack.clone()].iter().map(|f| u64::from(f.stored)).sum();
            if sum != part.size {
                return Err(bad(format!(
                    "the frames of pack {} have {sum} bytes, the pack {}",
                    part.digest, part.size
                )));
            }
        }
        let (starts, raw_sizes) = starts(&packs, &frames);
        let mut index = Self { packs, frames, starts, raw_sizes, blobs: Vec::with_capacity(n_blobs) };
        for n in 0..n_blobs {
            let at = blobs_at + n * BLOB;
            let blob = BlobEntry {
                digest: digest(at),
                size: long(at + 32),
                encoding: Encoding::from_code(bytes[at + 40])?,
                place: match bytes[at + 41] {
                    0 => Place::Direct,
                    1 => Place::List,
                    other => return Err(Error::Unsupported(format!("blob place {other}"))),
                },
                pack: word(at + 44) as u32,
                offset: long(at + 48),
                length: long(at + 56),
            };
            if bytes[at + 42..at + 44] != [0; 2] {
                return Err(bad(format!("a reserved byte of blob {} is not zero", blob.digest)));
            }
            index.check_blob(&blob, limits)?;
            index.blobs.push(blob);
        }
        index.check_required(manifest)?;
        index.check_prefixes(limits)?;
        Ok(index)
    }

    // What an older reader lacks must be named where it looks first.
    fn check_required(&self, manifest: &Manifest) -> Result<(), Error> {
        let encodings = self.blobs.iter().map(|b| b.encoding).filter(|e| *e != Encoding::Plain);
        let mut features: Vec<String> = encodings.map(|e| format!("encoding:{}", e.name())).collect();
        if self.frames.iter().any(|f| f.codec == FrameCodec::Reference) {
            features.push("frame:reference".into());
        }
        match features.iter().find(|f| !manifest.requires.contains(f)) {
            Some(feature) => {
                Err(Error::malformed("index", format!("it uses {feature:?}, which the manifest does not require")))
            }
            None => Ok(()),
        }
    }

    fn check_blob(&self, blob: &BlobEntry, limits: &Limits) -> Result<(), Error> {
        let bad = |reason: &str| Err(Error::malformed("index", format!("blob {}: {reason}", blob.digest)));
        if self.blobs.last().is_some_and(|last| last.digest >= blob.digest) {
            return bad("it is out of order or comes twice");
        }
        if blob.size >= 1 << 48 {
            return bad("its size is out of range");
        }
        let fits = blob.offset.checked_add(blob.length).is_some_and(|end| end <= self.raw_size(blob.pack));
        if !fits || blob.pack as usize >= self.packs.len() {
            return bad("it lies outside its pack");
        }
        let frames = self.frames_of(blob.pack, blob.offset, blob.length).map_or(0, |frames| frames.len());
        check_decodes(frames as u64, blob.length, limits)?;
        match (blob.place, blob.encoding) {
            (Place::Direct, Encoding::Plain) if blob.length != blob.size => bad("it has two sizes"),
            (Place::Direct, Encoding::Plain) => Ok(()),
            (Place::Direct, _) => bad("an encoding needs a list"),
            (Place::List, _) if blob.length == 0 || blob.length > limits.extent_list => {
                bad("the length of its list is out of range")
            }
            (Place::List, _) => Ok(()),
        }
    }

    /// Checks the extents of a blob before anything is read from them, and gives the number of frames to keep.
    ///
    /// A reader that keeps so many decoded frames, those that it used last, decodes no more of them than a
    /// blob of this size may need. The number is at most [`FRAMES_KEPT`], and 1 for extents in the order of the packs.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] unless every extent lies in a pack of the bundle and they are as long as the blob;
    /// [`Error::Limit`] if too many frames would have to be decoded (SPEC.md, "Extent lists").
    pub fn check_extents(
        &self,
        manifest: &Manifest,
        blob: &BlobEntry,
        extents: &[Extent],
        limits: &Limits,
    ) -> Result<usize, Error> {
        let parts = std::iter::once(&manifest.segment).chain(&manifest.packs);
        let numbers: BTreeMap<Digest, u32> = parts.zip(0..).map(|(part, number)| (part.digest, number)).collect();
        let mut left = blob.size;
        let mut kept: Vec<usize> = Vec::with_capacity(FRAMES_KEPT + 1);
        let mut decodes = [0; FRAMES_KEPT];
        for extent in extents {
            let bad = |reason: String| Error::malformed("extent list", reason);
            let frames = numbers.get(&extent.pack).and_then(|n| self.frames_of(*n, extent.offset, extent.length));
            let frames = frames.ok_or_else(|| bad(format!("an extent lies outside pack {}", extent.pack)))?;
            left = left
                .checked_sub(extent.length)
                .ok_or_else(|| bad(format!("it is longer than the blob {}", blob.digest)))?;
            for frame in frames {
                let place = kept.iter().position(|k| *k == frame);
                decodes.iter_mut().take(place.unwrap_or(FRAMES_KEPT)).for_each(|count| *count += 1);
                check_decodes(decodes[FRAMES_KEPT - 1], blob.size, limits)?;
                match place {
                    Some(place) => kept[..=place].rotate_right(1),
                    None => {
                        kept.insert(0, frame);
                        kept.truncate(FRAMES_KEPT);
                    }
                }
            }
        }
        if left > 0 {
            return Err(Error::malformed("extent list", format!("it is shorter than the blob {}", blob.digest)));
        }
        let enough = decodes.iter().position(|count| check_decodes(*count, blob.size, limits).is_ok());
        Ok(enough.expect("the last one was checked") + 1)
    }

    // The frames that a stretch of a pack's content touches; `None` if it lies outside.
    fn frames_of(&self, pack: u32, offset: u64, length: u64) -> Option<Range<usize>> {
        let range = self.packs.get(pack as usize)?;
        let end = offset.checked_add(length).filter(|end| *end <= self.raw_size(pack))?;
        let starts = &self.starts[range.clone()];
        let last = starts.partition_point(|(raw, _)| *raw < end);
        let first = starts.partition_point(|(raw, _)| *raw <= offset).saturating_sub(1).min(last);
        Some(range.start + first..range.start + last)
    }

    fn check_prefixes(&self, limits: &Limits) -> Result<(), Error> {
        for (n, frame) in self.frames.iter().enumerate().filter(|(_, f)| f.codec == FrameCodec::Reference) {
            let bad = |reason: &str| Err(Error::malformed("index", format!("reference frame {n}: {reason}")));
            let total: u64 = frame.prefix.iter().map(|p| u64::from(p.length)).sum();
            if total > limits.prefix {
                return bad("its prefix is too long");
            }
            for extent in &frame.prefix {
                let Some(pieces) = self.pieces(extent.pack, extent.offset, extent.length.into()) else {
                    return bad("its prefix lies outside a pack");
                };
                if extent.length == 0 || pieces.iter().any(|p| p.frame.codec == FrameCodec::Reference) {
                    return bad("its prefix is empty or names a reference frame");
                }
            }
        }
        Ok(())
    }

    /// The blobs, ascending by digest.
    #[must_use]
    pub fn blobs(&self) -> &[BlobEntry] {
        &self.blobs
    }

    /// The entry of a blob.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> Option<&BlobEntry> {
        self.blobs.binary_search_by(|b| b.digest.cmp(digest)).ok().map(|n| &self.blobs[n])
    }

    /// The frames of a pack, by its number (0: the segment).
    #[must_use]
    pub fn frames(&self, pack: u32) -> &[FrameEntry] {
        self.packs.get(pack as usize).map_or(&[], |range| &self.frames[range.clone()])
    }

    /// Bytes of content in a pack; 0 for a pack that is not there.
    #[must_use]
    pub fn raw_size(&self, pack: u32) -> u64 {
        self.raw_sizes.get(pack as usize).copied().unwrap_or(0)
    }

    /// The pieces of frames that make up a stretch of a pack's content; `None` if it lies outside.
    #[must_use]
    pub fn pieces(&self, pack: u32, offset: u64, length: u64) -> Option<Vec<FramePiece<'_>>> {
        let range = self.packs.get(pack as usize)?.clone();
        let end = offset.checked_add(length)?;
        let starts = &self.starts[range.clone()];
        let mut n = starts.partition_point(|(raw, _)| *raw <= offset).checked_sub(1)?;
        let mut at = offset;
        let mut pieces = Vec::new();
        while at < end {
            let frame = self.frames[range.clone()].get(n)?;
            let (raw_start, stored_offset) = starts[n];
            let from = (at - raw_start) as usize;
            let to = (end - raw_start).min(frame.raw.into()) as usize;
            if from >= to {
                return None;
            }
            pieces.push(FramePiece { frame, stored_offset, range: from..to });
            at = raw_start + to as u64;
            n += 1;
        }
        Some(pieces)
    }

    /// The number of a pack in this bundle, from its digest.
    #[must_use]
    pub fn pack_number(manifest: &Manifest, digest: &Digest) -> Option<u32> {
        if manifest.segment.digest == *digest {
            return Some(0);
        }
        manifest.packs.iter().position(|p| p.digest == *digest).map(|n| n as u32 + 1)
    }

    /// Where a directly placed blob, or a blob's extent list, lies.
    #[must_use]
    pub fn extent(manifest: &Manifest, blob: &BlobEntry) -> Option<Extent> {
        let pack = match blob.pack {
            0 => manifest.segment.digest,
            n => manifest.packs.get(n as usize - 1)?.digest,
        };
        Some(Extent { pack, offset: blob.offset, length: blob.length })
    }
}

fn check_decodes(decodes: u64, size: u64, limits: &Limits) -> Result<(), Error> {
    Error::limit("number of frames to decode for one blob", decodes, limits.decodes + size / limits.decode_share)
}

// Where each frame starts in the content and in the stored bytes of its pack, and the content of each pack.
fn starts(packs: &[Range<usize>], frames: &[FrameEntry]) -> (Vec<(u64, u64)>, Vec<u64>) {
    let mut starts = Vec::with_capacity(frames.len());
    let mut sizes = Vec::with_capacity(packs.len());
    for pack in packs {
        let (mut raw, mut stored) = (0, 0);
        for frame in &frames[pack.clone()] {
            starts.push((raw, stored));
            raw += u64::from(frame.raw);
            stored += u64::from(frame.stored);
        }
        sizes.push(raw);
    }
    (starts, sizes)
}
