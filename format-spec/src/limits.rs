//! Upper bounds that are checked before anything is allocated or read (SPEC.md, "Limits").

/// Bounds on what a reader accepts. [`Limits::default`] is what SPEC.md states; a reader may be
/// stricter, never laxer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Whole seal, in bytes. The only bytes that are read before trust.
    pub seal: u32,
    /// All root envelopes of a seal together, in bytes.
    pub root_chain: u32,
    /// One root document, in bytes.
    pub root: u32,
    /// Root documents in a chain.
    pub roots: u16,
    /// Signatures in one envelope.
    pub signatures: u16,
    /// Manifest, in bytes.
    pub manifest: u32,
    /// Images in a bundle.
    pub images: u32,
    /// Packs in a bundle, the segment not counted.
    pub packs: u32,
    /// Segment or pack as stored, in bytes.
    pub pack: u64,
    /// Content of one frame, in bytes.
    pub frame: u32,
    /// Index as stored, in bytes.
    pub index: u64,
    /// Index decoded, in bytes.
    pub index_raw: u64,
    /// One extent list, in bytes.
    pub extent_list: u64,
    /// Frames that may be decoded for any blob, however small.
    pub decodes: u64,
    /// Bytes of a blob for each of which one more frame may be decoded.
    pub decode_share: u64,
    /// Content that one reference frame may name as its prefix, in bytes.
    pub prefix: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            seal: 4 << 20,
            root_chain: 1 << 20,
            root: 16 << 10,
            roots: 256,
            signatures: 16,
            manifest: 2 << 20,
            images: 1024,
            packs: 4096,
            pack: 64 << 20,
            frame: 8 << 20,
            index: 8 << 20,
            index_raw: 16 << 20,
            extent_list: 2 << 20,
            decodes: 8,
            decode_share: 1 << 20,
            prefix: 8 << 20,
        }
    }
}

/// Bytes to which the seal is padded, so that a later signature moves nothing behind it.
pub const SEAL_ALIGN: u32 = 64 << 10;
