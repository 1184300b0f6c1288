//! Writes the bundle file: head, segment, index, then packs in the manifest's order (SPEC.md, "File").
//!
//! Works on any writer; never opens a file.

use std::io::{self, Read, Write};

use crate::manifest::{Blob, Manifest};
use crate::tar::{self, BLOCK};
use crate::view;

/// Writes one bundle file from front to back.
#[derive(Debug)]
pub struct BundleWriter<'m, W> {
    out: W,
    manifest: &'m Manifest,
    written: u64,
}

impl<'m, W: Write> BundleWriter<'m, W> {
    /// Starts a file with this seal, whose manifest is `manifest`.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn new(mut out: W, seal: &[u8], manifest: &'m Manifest) -> io::Result<Self> {
        let head = view::head(seal, manifest);
        out.write_all(&head)?;
        Ok(Self { out, manifest, written: head.len() as u64 })
    }

    /// Writes the segment and the index, whose digests the manifest states.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn segment_and_index(&mut self, segment: &[u8], index: &[u8]) -> io::Result<()> {
        debug_assert!(
            segment.len() as u64 == self.manifest.segment.size && index.len() as u64 == self.manifest.index.size
        );
        self.put(segment)?;
        self.pad(segment.len() as u64)?;
        self.header(Blob { digest: self.manifest.index.digest, size: self.manifest.index.size })?;
        self.put(index)?;
        self.pad(index.len() as u64)
    }

    /// Writes one pack. Packs must come in the manifest's order; one that is left out makes a thin file.
    ///
    /// # Errors
    ///
    /// The reader's or the writer's; [`io::ErrorKind::InvalidData`] if the pack has another size.
    pub fn pack(&mut self, pack: Blob, content: &mut impl Read) -> io::Result<()> {
        self.header(pack)?;
        let copied = io::copy(&mut content.take(pack.size + 1), &mut self.out)?;
        self.written += copied;
        if copied != pack.size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("pack {} does not have {} bytes", pack.digest, pack.size),
            ));
        }
        self.pad(pack.size)
    }

    /// Ends the file and gives the writer back, and the number of bytes written.
    ///
    /// # Errors
    ///
    /// The writer's.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.put(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok((self.out, self.written))
    }

    fn header(&mut self, blob: Blob) -> io::Result<()> {
        self.put(&tar::header(&tar::blob_name(&blob.digest), blob.size))
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.put(&[0; BLOCK][..tar::padding(size)])
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}
