//! Extents: where in the packs the content of a blob lies (SPEC.md, "Extent lists").
//!
//! A list names packs by digest, so its bytes do not depend on the bundle it travels in: an
//! unchanged layer has an unchanged list.

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::error::Error;

/// Most packs that a list may name: those of a bundle, and its segment.
pub const MAX_PACKS: u64 = 4097;

/// A stretch of the content of a pack. May run over the edges of frames, not over the pack's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The pack.
    pub pack: Digest,
    /// First byte, counted in the pack's content.
    pub offset: u64,
    /// Number of bytes, not 0.
    pub length: u64,
}

/// How a blob is made from its extents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The extents are the blob.
    Plain,
    /// The extents are the uncompressed stream; a Go `compress/flate` encoder gives back the blob.
    GzipGoflate,
    /// The same, with the encoder of klauspost/compress.
    GzipKpflate,
    /// The same, with stock zlib.
    GzipZlib,
    /// The same, with the generic token coder.
    GzipTokens,
}

impl Encoding {
    const ALL: [Self; 5] = [Self::Plain, Self::GzipGoflate, Self::GzipKpflate, Self::GzipZlib, Self::GzipTokens];

    /// The code in the index.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::GzipGoflate => 1,
            Self::GzipKpflate => 2,
            Self::GzipZlib => 3,
            Self::GzipTokens => 4,
        }
    }

    /// The name, as it stands in a manifest's `requires` after `encoding:`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::GzipGoflate => "gzip/goflate",
            Self::GzipKpflate => "gzip/kpflate",
            Self::GzipZlib => "gzip/zlib",
            Self::GzipTokens => "gzip/tokens",
        }
    }

    /// The encoding with this code.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] naming a code that is not known.
    pub fn from_code(code: u8) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|e| e.code() == code).ok_or_else(|| Error::Unsupported(format!("encoding {code}")))
    }
}

/// Writes an extent list. Neighbours must have been merged by [`push`].
#[must_use]
pub fn write_list(extents: &[Extent]) -> Vec<u8> {
    let mut packs: Vec<Digest> = Vec::new();
    let mut body = Vec::new();
    let mut ends: Vec<u64> = Vec::new();
    put_varint(&mut body, extents.len() as u64);
    for extent in extents {
        let ordinal = packs.iter().position(|p| *p == extent.pack).unwrap_or_else(|| {
            packs.push(extent.pack);
            ends.push(0);
            packs.len() - 1
        });
        put_varint(&mut body, ordinal as u64);
        let delta = extent.offset.wrapping_sub(ends[ordinal]).cast_signed();
        put_varint(&mut body, ((delta << 1) ^ (delta >> 63)).cast_unsigned());
        put_varint(&mut body, extent.length);
        ends[ordinal] = extent.offset + extent.length;
    }
    let mut out = Vec::new();
    put_varint(&mut out, packs.len() as u64);
    for pack in &packs {
        out.extend_from_slice(pack.as_bytes());
    }
    out.extend_from_slice(&body);
    out
}

/// Reads an extent list, all of its bytes.
///
/// # Errors
///
/// [`Error::Malformed`] for anything that [`write_list`] would not have written.
pub fn read_list(bytes: &[u8]) -> Result<Vec<Extent>, Error> {
    let bad = |reason: &str| Error::malformed("extent list", reason);
    let mut rest = bytes;
    let count = take_varint(&mut rest)?;
    if count > rest.len() as u64 / 32 {
        return Err(bad("it is cut short"));
    }
    if count > MAX_PACKS {
        return Err(bad("it names more packs than a bundle has"));
    }
    let (table, tail) = rest.split_at(count as usize * 32);
    let packs: Vec<Digest> =
        table.chunks_exact(32).map(|d| Digest::from_bytes(d.try_into().expect("32 bytes"))).collect();
    rest = tail;
    let mut ends: Vec<u64> = Vec::new();
    let count = take_varint(&mut rest)?;
    if count == 0 || count > rest.len() as u64 / 3 {
        return Err(bad("the number of extents does not fit its length"));
    }
    let mut extents: Vec<Extent> = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let ordinal = take_varint(&mut rest)? as usize;
        if ordinal == ends.len() && ordinal < packs.len() {
            ends.push(0);
        }
        let end = ends.get_mut(ordinal).ok_or_else(|| bad("packs are not in order of first use"))?;
        let zigzag = take_varint(&mut rest)?;
        let delta = (zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed());
        let offset = end.checked_add_signed(delta).ok_or_else(|| bad("an offset is out of range"))?;
        let length = take_varint(&mut rest)?;
        *end =
            offset.checked_add(length).filter(|end| *end < 1 << 48).ok_or_else(|| bad("an extent is out of range"))?;
        let extent = Extent { pack: packs[ordinal], offset, length };
        if length == 0 {
            return Err(bad("an extent is empty"));
        }
        if extents.last().is_some_and(|last| last.pack == extent.pack && last.offset + last.length == offset) {
            return Err(bad("neighbours are not merged"));
        }
        extents.push(extent);
    }
    if ends.len() != packs.len() || packs.iter().collect::<BTreeSet<_>>().len() != packs.len() {
        return Err(bad("a pack is listed twice or not used"));
    }
    if !rest.is_empty() {
        return Err(bad("bytes follow it"));
    }
    Ok(extents)
}

/// Adds an extent, merged with the last one if it goes on where that ends.
pub fn push(extents: &mut Vec<Extent>, extent: Extent) {
    match extents.last_mut() {
        Some(last) if last.pack == extent.pack && last.offset + last.length == extent.offset => {
            last.length += extent.length;
        }
        _ => extents.push(extent),
    }
}

// LEB128, shortest form only
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, Error> {
    let bad = |reason: &str| Error::malformed("extent list", reason);
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or_else(|| bad("it is cut short"))?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            break;
        }
        value |= part << shift;
        if byte < 0x80 {
            return if byte == 0 && shift > 0 { Err(bad("a number is not in its shortest form")) } else { Ok(value) };
        }
    }
    Err(bad("a number does not fit 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Extent> {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        vec![
            Extent { pack: a, offset: 1 << 40, length: 5 },
            Extent { pack: b, offset: 0, length: 1 },
            Extent { pack: a, offset: 3, length: 70_000 },
        ]
    }

    #[test]
    fn reads_what_it_wrote_and_nothing_else() {
        let bytes = write_list(&sample());
        assert_eq!(read_list(&bytes), Ok(sample()));
        for cut in 0..bytes.len() {
            assert!(read_list(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(read_list(&[&bytes[..], &[0]].concat()).is_err());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                if let Ok(list) = read_list(&flipped) {
                    assert_eq!(write_list(&list), flipped, "byte {at}: one list, two spellings");
                }
            }
        }
    }

    #[test]
    fn merges_neighbours() {
        let pack = Digest::of(b"a");
        let mut list = Vec::new();
        push(&mut list, Extent { pack, offset: 0, length: 5 });
        push(&mut list, Extent { pack, offset: 5, length: 2 });
        assert_eq!(list, [Extent { pack, offset: 0, length: 7 }]);
    }
}
