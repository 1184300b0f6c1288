//! Where images come from: one trait, whatever the place, and blobs that are read where they lie.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::PathBuf;

use sealift_console::stop;
use sealift_format::Digest;
use sealift_format::oci::Descriptor;

pub mod archive;
pub mod docker_archive;
mod error;
pub mod oci_layout;
mod reference;
pub mod registry;

pub use error::SourceError;
pub use reference::{Reference, ReferenceError};

/// A blob and where its bytes lie. Opening it reads them again from there; nothing is believed
/// about them until they have been hashed.
#[derive(Debug, Clone)]
pub struct SourceBlob {
    /// What the bytes must hash to.
    pub digest: Digest,
    /// How many bytes there are.
    pub size: u64,
    /// Where they lie.
    pub place: Place,
}

/// Where the bytes of a blob lie.
#[derive(Debug, Clone)]
pub enum Place {
    /// A part of a file: a blob of an OCI layout, an entry of an archive, a download.
    File {
        /// The file.
        path: PathBuf,
        /// Byte at which the blob starts.
        offset: u64,
    },
    /// Small, and made or read already.
    Memory(Vec<u8>),
}

impl SourceBlob {
    /// Opens the blob for one forward read of exactly `size` bytes (fewer, if the file is shorter).
    ///
    /// # Errors
    ///
    /// The operating system's, if the file cannot be opened. Reading ends with [`stop::Stopped`] once a signal has come.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        match &self.place {
            Place::Memory(bytes) => Ok(Box::new(Cursor::new(bytes.clone()))),
            Place::File { path, offset } => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(*offset))?;
                Ok(Box::new(stop::Reader(file.take(self.size))))
            }
        }
    }
}

/// A place that has images: an OCI layout, an archive, a registry.
pub trait ImageSource {
    /// Whether manifests (and so the digests that a reference resolves to) are made here, because
    /// the place holds none.
    fn makes_manifests(&self) -> bool {
        false
    }

    /// The descriptor of what a tag or digest names here, and the bytes of that document.
    ///
    /// `name` is what an archive or layout calls the image, if the recipe says so; without it, the
    /// image with the reference's name is taken, or the only one. A registry has no use for it.
    ///
    /// # Errors
    ///
    /// If it is not there or cannot be read; the text names the place.
    fn resolve(&self, reference: &Reference, name: Option<&str>) -> Result<(Descriptor, Vec<u8>), SourceError>;

    /// The bytes of a small document (index, manifest, config), checked against the descriptor.
    ///
    /// # Errors
    ///
    /// As for `resolve`, and if the bytes have another digest or size.
    fn document(&self, reference: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError>;

    /// Makes these blobs readable, several at once where that helps; a registry downloads them, checked.
    ///
    /// # Errors
    ///
    /// As for `document`.
    fn blobs(&self, reference: &Reference, descriptors: &[Descriptor]) -> Result<Vec<SourceBlob>, SourceError>;
}
