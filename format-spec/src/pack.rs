//! Fills packs with frames, in the order in which the frames come (SPEC.md, "Packs").

use crate::digest::Digest;
use crate::frame::{EncodedFrame, FrameEntry};

/// A finished pack: its bytes, their digest, and its frames.
#[derive(Debug, Clone)]
pub struct Pack {
    /// Digest of the bytes.
    pub digest: Digest,
    /// The stored bytes: the frames one after another.
    pub bytes: Vec<u8>,
    /// The frames, in order.
    pub frames: Vec<FrameEntry>,
}

/// Where a frame has been put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Number of the pack, counting from 0 in the order in which packs are finished.
    pub pack: usize,
    /// Where the frame's content starts in the content of the pack.
    pub offset: u64,
}

/// Collects frames into packs of at most 64 MiB.
#[derive(Debug)]
pub struct PackWriter {
    limit: usize,
    finished: usize,
    bytes: Vec<u8>,
    frames: Vec<FrameEntry>,
    raw: u64,
}

impl PackWriter {
    /// A writer of packs of at most `limit` bytes, which is at least the size of one frame.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit: limit as usize, finished: 0, bytes: Vec::new(), frames: Vec::new(), raw: 0 }
    }

    /// Adds a frame, and gives the pack that had no room for it.
    pub fn push(&mut self, frame: &EncodedFrame) -> (Placement, Option<Pack>) {
        let full = self.bytes.len() + frame.bytes.len() > self.limit;
        let pack = if full { self.finish() } else { None };
        let placement = Placement { pack: self.finished, offset: self.raw };
        self.frames.push(FrameEntry {
            digest: Digest::of(&frame.bytes),
            stored: frame.bytes.len() as u32,
            raw: frame.raw,
            codec: frame.codec,
            prefix: Vec::new(),
        });
        self.bytes.extend_from_slice(&frame.bytes);
        self.raw += u64::from(frame.raw);
        (placement, pack)
    }

    /// Gives the pack that is open, if it holds anything.
    pub fn finish(&mut self) -> Option<Pack> {
        if self.frames.is_empty() {
            return None;
        }
        self.finished += 1;
        self.raw = 0;
        let bytes = std::mem::take(&mut self.bytes);
        Some(Pack { digest: Digest::of(&bytes), bytes, frames: std::mem::take(&mut self.frames) })
    }
}
