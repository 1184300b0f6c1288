//! Why the images of a recipe cannot be collected, and where in the recipe they stand.

use sealift_format::Digest;
use sealift_format::oci::OciError;

use crate::source::SourceError;

/// Why the images of a recipe cannot be collected. `at` is file, line and column in the recipe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// The image cannot be taken from its place.
    #[error("{at}: cannot take image {image} from {from}")]
    Source {
        /// Place in the recipe.
        at: String,
        /// The image.
        image: String,
        /// Where it should come from.
        from: String,
        /// What failed.
        source: Box<SourceError>,
    },
    /// One of the image's documents breaks a rule.
    #[error("{at}: image {image}: {document} is refused")]
    Document {
        /// Place in the recipe.
        at: String,
        /// The image.
        image: String,
        /// Kind and digest of the document.
        document: String,
        /// The rule.
        source: OciError,
    },
    /// The image lacks a platform that is to be carried.
    #[error("{at}: image {image} has no platform {wanted}; it has {present}")]
    NoPlatform {
        /// Place in the recipe.
        at: String,
        /// The image.
        image: String,
        /// The platform.
        wanted: String,
        /// The platforms that it has.
        present: String,
    },
    /// A manifest is for another platform than the index says.
    #[error("{at}: image {image}: manifest {manifest} is listed for {listed}, its config says {found}")]
    OtherPlatform {
        /// Place in the recipe.
        at: String,
        /// The image.
        image: String,
        /// Digest of the manifest.
        manifest: String,
        /// Platform by the index.
        listed: String,
        /// Platform by the config.
        found: String,
    },
    /// The name is pinned to a digest and the place has another one.
    #[error("{at}: image {image} is pinned to {pinned}, its source has {found}")]
    PinnedDigest {
        /// Place in the recipe.
        at: String,
        /// The image.
        image: String,
        /// The digest in the name.
        pinned: Digest,
        /// The digest found.
        found: Digest,
    },
    /// The document is an artifact of another kind.
    #[error("{at}: {image} is not a container image: its config has media type {media_type:?}")]
    NotAnImage {
        /// Place in the recipe.
        at: String,
        /// The image.
        image: String,
        /// Media type of the config.
        media_type: String,
    },
    /// Two documents give one blob different sizes.
    #[error("blob {digest} is said to have {one} bytes and {other} bytes")]
    TwoSizes {
        /// The blob.
        digest: Digest,
        /// One size.
        one: u64,
        /// The other size.
        other: u64,
    },
}
