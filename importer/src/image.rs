//! What the importer knows of an image before it loads it, and where its bytes come from.

use std::io::{self, Read};

use sealift_format::Digest;
use sealift_format::oci::{Descriptor, ImageConfig, ImageManifest};

/// Gives the bytes of blobs by digest.
///
/// Every byte handed out belongs to a frame whose digest was checked. The reader also ends with an
/// error instead of end-of-file if the whole blob does not have its digest.
pub trait Content: Send + Sync {
    /// Size of the blob in bytes; `None` if it is not there.
    fn size(&self, digest: &Digest) -> Option<u64>;
    /// Opens the blob for one forward read.
    ///
    /// # Errors
    ///
    /// Whatever the store says; [`io::ErrorKind::NotFound`] if the blob is not there.
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>>;
}

/// Hears how far a load has come. Called from several threads.
pub trait Progress: Send + Sync {
    /// So many more bytes have been dealt with (sent, or found to be there already).
    fn advance(&self, bytes: u64);
    /// A step worth a line of its own; `text` is already escaped for a terminal.
    fn step(&self, text: &str);
}

/// An image of a verified bundle.
#[derive(Debug, Clone)]
pub struct Image {
    /// Full repository name, for example `docker.io/library/app` or `ghcr.io/acme/shop/web`.
    pub repository: String,
    /// The tag; `None` for an image that is known by digest only.
    pub tag: Option<String>,
    /// What the name stands for: an index, or a manifest.
    pub top: Descriptor,
    /// The manifests that are carried; exactly one, equal to `top`, if `top` is a manifest.
    pub manifests: Vec<PlatformImage>,
    /// Manifests that `top` lists and the bundle leaves out.
    pub omitted: Vec<Digest>,
}

/// One platform of an image.
#[derive(Debug, Clone)]
pub struct PlatformImage {
    /// Descriptor of the manifest.
    pub descriptor: Descriptor,
    /// The manifest, checked.
    pub manifest: ImageManifest,
    /// The config, checked against the manifest.
    pub config: ImageConfig,
}

impl Image {
    /// `repository:tag`, or `repository@digest` without a tag.
    #[must_use]
    pub fn reference(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}", self.repository),
            None => self.by_digest(),
        }
    }

    /// `repository@sha256:…`.
    #[must_use]
    pub fn by_digest(&self) -> String {
        format!("{}@{}", self.repository, self.top.digest)
    }
}
