//! Frames: the unit of compression and of every read from a store (SPEC.md, "Frames").
//!
//! zstd is never trusted as a check. A frame's digest is compared before it is decoded, and decoding
//! is bounded by the exact size that the signed index states.

use crate::digest::Digest;
use crate::error::Error;

/// How a frame's content is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameCodec {
    /// As it is: for content that does not compress.
    Stored,
    /// One zstd frame with a window of at most 8 MiB.
    Zstd,
    /// One zstd frame of at most 4 MiB that needs content of other packs as its prefix.
    Reference,
}

impl FrameCodec {
    /// The code in the index.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Stored => 0,
            Self::Zstd => 1,
            Self::Reference => 2,
        }
    }

    /// The codec with this code.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] naming a code that is not known.
    pub fn from_code(code: u8) -> Result<Self, Error> {
        match code {
            0 => Ok(Self::Stored),
            1 => Ok(Self::Zstd),
            2 => Ok(Self::Reference),
            other => Err(Error::Unsupported(format!("frame codec {other}"))),
        }
    }
}

/// A frame as it is stored, and what is needed to check and decode it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameEntry {
    /// Digest of the stored bytes.
    pub digest: Digest,
    /// Number of stored bytes.
    pub stored: u32,
    /// Number of bytes of content.
    pub raw: u32,
    /// How it is stored.
    pub codec: FrameCodec,
    /// Content that a reference frame names as its prefix; empty for the others.
    pub prefix: Vec<PrefixExtent>,
}

/// A stretch of content that a reference frame needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixExtent {
    /// The pack, by its number in this bundle (0: the segment).
    pub pack: u32,
    /// Number of bytes.
    pub length: u32,
    /// First byte, counted in the pack's content.
    pub offset: u64,
}

/// A frame that has been encoded and not yet placed in a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedFrame {
    /// How it is stored.
    pub codec: FrameCodec,
    /// Number of bytes of content.
    pub raw: u32,
    /// The bytes as stored.
    pub bytes: Vec<u8>,
}

/// Encodes content as one frame: zstd at this level, or stored if that is not smaller.
///
/// The result depends on the content, the level and the version of libzstd only.
///
/// # Panics
///
/// If `content` is empty or longer than 8 MiB, which no writer hands over.
#[must_use]
pub fn encode(content: &[u8], level: i32) -> EncodedFrame {
    assert!(!content.is_empty() && content.len() <= 8 << 20);
    let raw = content.len() as u32;
    let mut encoder = zstd::bulk::Compressor::new(level).expect("levels are checked by the caller");
    encoder.window_log(23).expect("23 is a valid window");
    let bytes = encoder.compress(content).expect("the bound of the output is known");
    if bytes.len() < content.len() { EncodedFrame { codec: FrameCodec::Zstd, raw, bytes } } else { store(content) }
}

/// Takes content as one frame without compressing it.
#[must_use]
pub fn store(content: &[u8]) -> EncodedFrame {
    EncodedFrame { codec: FrameCodec::Stored, raw: content.len() as u32, bytes: content.to_vec() }
}

/// Checks a frame's digest and gives its content.
///
/// # Errors
///
/// [`Error::DigestMismatch`] before anything is decoded; [`Error::Malformed`] unless the bytes are
/// exactly one zstd frame with the stated size, a window of at most 8 MiB and no dictionary;
/// [`Error::Unsupported`] for a reference frame.
pub fn decode(entry: &FrameEntry, stored: Vec<u8>) -> Result<Vec<u8>, Error> {
    let actual = Digest::of(&stored);
    if actual != entry.digest || stored.len() != entry.stored as usize {
        return Err(Error::DigestMismatch { what: "frame".into(), expected: entry.digest, actual });
    }
    match entry.codec {
        FrameCodec::Stored => Ok(stored),
        FrameCodec::Zstd => unpack(&stored, entry.raw as usize, 8 << 20),
        FrameCodec::Reference => Err(Error::Unsupported("frame/reference".into())),
    }
}

/// Decodes exactly one zstd frame whose content has exactly this many bytes.
pub(crate) fn unpack(stored: &[u8], raw: usize, window: u64) -> Result<Vec<u8>, Error> {
    let bad = |reason: &str| Error::malformed("zstd frame", reason);
    let header = ZstdHeader::read(stored).ok_or_else(|| bad("it does not start with the header of a zstd frame"))?;
    if header.dictionary {
        return Err(bad("it names a dictionary"));
    }
    if header.content_size != Some(raw as u64) {
        return Err(bad("its header does not state the size that the index states"));
    }
    if header.window > window {
        return Err(bad("its window is too large"));
    }
    match zstd::zstd_safe::find_frame_compressed_size(stored) {
        Ok(length) if length == stored.len() => {}
        Ok(_) => return Err(bad("bytes follow the frame")),
        Err(_) => return Err(bad("it is cut short or damaged")),
    }
    let content = zstd::bulk::decompress(stored, raw).map_err(|e| bad(&e.to_string()))?;
    if content.len() != raw {
        return Err(bad("it decodes to another size"));
    }
    Ok(content)
}

struct ZstdHeader {
    window: u64,
    content_size: Option<u64>,
    dictionary: bool,
}

impl ZstdHeader {
    // RFC 8878, 3.1.1.1: magic, descriptor, window, dictionary id, content size
    fn read(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
        let (&descriptor, mut rest) = rest.split_first()?;
        let single = descriptor & 0x20 != 0;
        if descriptor & 0x08 != 0 {
            return None;
        }
        let mut window = 0;
        if !single {
            let (&byte, tail) = rest.split_first()?;
            let base = 1u64 << (10 + (byte >> 3));
            window = base + base / 8 * u64::from(byte & 7);
            rest = tail;
        }
        let dictionary = descriptor & 3 != 0;
        rest = rest.get([0, 1, 2, 4][usize::from(descriptor & 3)]..)?;
        let width = match descriptor >> 6 {
            0 if single => 1,
            0 => 0,
            1 => 2,
            2 => 4,
            _ => 8,
        };
        let field = rest.get(..width)?;
        let mut value = [0u8; 8];
        value[..width].copy_from_slice(field);
        let value = u64::from_le_bytes(value) + if width == 2 { 256 } else { 0 };
        let content_size = (width > 0).then_some(value);
        if single {
            window = value;
        }
        Some(Self { window, content_size, dictionary })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(stored: &[u8], raw: u32, codec: FrameCodec) -> FrameEntry {
        FrameEntry { digest: Digest::of(stored), stored: stored.len() as u32, raw, codec, prefix: Vec::new() }
    }

    fn refusal(stored: &[u8], raw: u32) -> String {
        decode(&entry(stored, raw, FrameCodec::Zstd), stored.to_vec()).expect_err("must be refused").to_string()
    }

    #[test]
    fn gives_back_what_was_encoded() {
        for content in [vec![7u8; 100_000], b"x".to_vec(), (0..=255).collect::<Vec<u8>>()] {
            let frame = encode(&content, 9);
            let entry = entry(&frame.bytes, frame.raw, frame.codec);
            assert_eq!(decode(&entry, frame.bytes), Ok(content));
        }
    }

    #[test]
    fn refuses_everything_but_exactly_one_frame_of_the_stated_size() {
        let zeros = vec![0u8; 100_000];
        let good = zstd::bulk::compress(&zeros, 3).expect("compresses");
        assert!(refusal(&good, 99_999).contains("size that the index states"));
        assert!(refusal(&good, 100_001).contains("size that the index states"));
        let twice = [good.clone(), good.clone()].concat();
        assert!(refusal(&twice, 100_000).contains("bytes follow"));
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4][..], &good].concat();
        assert!(refusal(&skippable, 100_000).contains("does not start"));
        let trailing = [&good[..], &[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]].concat();
        assert!(refusal(&trailing, 100_000).contains("bytes follow"));
        assert!(refusal(&good[..good.len() - 1], 100_000).contains("cut short"));
        assert!(refusal(b"plain bytes", 11).contains("does not start"));
        let mut named = good;
        named[4] |= 1;
        assert!(refusal(&named, 100_000).contains("dictionary"));
    }

    #[test]
    fn refuses_a_window_above_eight_mebibytes() {
        // descriptor: content size in 4 bytes, no single segment; window byte: 16 MiB
        let wide = [0x28, 0xb5, 0x2f, 0xfd, 0x80, 14 << 3, 1, 0, 0, 0, 0x03, 0, 0];
        assert!(refusal(&wide, 1).contains("window"));
    }

    #[test]
    fn checks_the_digest_before_it_decodes() {
        let frame = encode(&[1; 1000], 9);
        let mut entry = entry(&frame.bytes, frame.raw, frame.codec);
        entry.digest = Digest::of(b"other");
        assert!(matches!(decode(&entry, frame.bytes), Err(Error::DigestMismatch { .. })));
    }
}
