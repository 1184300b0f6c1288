//! What a registry is found to have, what was put into it, and why not.

use std::io;

use sealift_format::Digest;
use sealift_registry::RegistryError;

/// Why images cannot be put into a registry.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The registry, or a connection to it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A tag that no registry takes.
    #[error("{tag:?} of {repository} is not a tag that a registry takes")]
    Tag {
        /// The image's repository.
        repository: String,
        /// The tag.
        tag: String,
    },
    /// Only the digest of an index names the image, and the bundle has not all of its platforms.
    #[error(
        "{image} is known by the digest of an index of which {omitted} platforms are not in the bundle, and registries take whole indexes only: \
         build the bundle with all of its platforms, or with the digest of one platform's manifest, or load it into containerd"
    )]
    PartialIndex {
        /// The image.
        image: String,
        /// How many platforms are left out.
        omitted: usize,
    },
    /// An index is not whole, and no single manifest can take its tag.
    #[error("the bundle has {} of {image}, not the whole index, and none or several are for {platform}", carried.join(", "))]
    Platform {
        /// The image.
        image: String,
        /// The platform of the nodes.
        platform: String,
        /// The platforms that the bundle has.
        carried: Vec<String>,
    },
    /// An index or manifest cannot be had from the bundle's content.
    #[error("cannot read the image document {digest}")]
    Document {
        /// The document.
        digest: Digest,
        /// The store's error.
        source: io::Error,
    },
    /// The registry lacks a blob that the bundle does not have as it was, only its content.
    #[error("{registry} lacks the blob {digest}, {size} bytes, of which the bundle has no exact copy")]
    NotCarried {
        /// The registry.
        registry: String,
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// The registry took something and does not have it.
    #[error("{registry} does not have {digest} in {repository} after taking it")]
    NotKept {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// What is missing.
        digest: Digest,
    },
    /// A tag stands for something else after it was written.
    #[error("{target} is not {digest} after that was written to it")]
    TagMoved {
        /// Registry, repository and tag.
        target: String,
        /// What was written.
        digest: Digest,
        /// What is there.
        found: Option<Digest>,
    },
}

/// What a registry has of some images.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The images, in the order given.
    pub images: Vec<ImageSurvey>,
    /// Blobs that no wanted repository has: what a push would send.
    pub missing_blobs: usize,
    /// Their size in bytes.
    pub missing_bytes: u64,
}

/// What a registry has of an image.
#[derive(Debug, Clone)]
pub struct ImageSurvey {
    /// The image, as in the bundle.
    pub reference: String,
    /// What it is called there, with the registry's host.
    pub target: String,
    /// What the tag stands for, or is to stand for, there; the image's digest without a tag.
    pub digest: Digest,
    /// Whether the manifest or index is there already.
    pub present: bool,
    /// What the tag stands for now; `None` if there is no such tag, or the image has none.
    pub tag_now: Option<Digest>,
    /// Blobs that this repository lacks.
    pub missing_blobs: usize,
}

/// What a push did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushReport {
    /// Blobs that were sent.
    pub blobs_sent: usize,
    /// Their size in bytes.
    pub bytes_sent: u64,
    /// Blobs that a repository got from another one of the registry.
    pub blobs_mounted: usize,
    /// Blobs that a repository had already.
    pub blobs_present: usize,
    /// The images, in the order given; each was read back.
    pub images: Vec<PushedImage>,
}

/// An image that a registry has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedImage {
    /// The image, as in the bundle.
    pub reference: String,
    /// What it is called there, with the registry's host.
    pub target: String,
    /// The digest it has there; a manifest's where the bundle has not all platforms of an index.
    pub digest: Digest,
}
