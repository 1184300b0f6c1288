//! Why an image cannot be taken from where it is said to be.

use std::io;
use std::path::PathBuf;

use sealift_format::Digest;
use sealift_format::oci::OciError;

/// Why an image cannot be taken from a place.
///
/// `place` is the place as a person would write it, for example `oci:images` or a registry's name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The operating system refused to read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The place is sound and lacks the image.
    #[error("{place} has no image {wanted}; it has {}", list(present))]
    NoImage {
        /// The place.
        place: String,
        /// The name or digest that was looked for.
        wanted: String,
        /// Names that are there.
        present: Vec<String>,
    },
    /// More than one image fits.
    #[error("{place} has more than one image for {wanted}; it has {}", list(present))]
    Ambiguous {
        /// The place.
        place: String,
        /// The name that was looked for.
        wanted: String,
        /// Names that are there.
        present: Vec<String>,
    },
    /// A document names a blob that is not there.
    #[error("{place} lacks the blob {digest}")]
    MissingBlob {
        /// The place.
        place: String,
        /// The blob.
        digest: Digest,
    },
    /// A blob has another length than its descriptor says.
    #[error("{place}: {digest} has {actual} bytes, its descriptor says {expected}")]
    SizeMismatch {
        /// The place.
        place: String,
        /// The blob.
        digest: Digest,
        /// Bytes by the descriptor.
        expected: u64,
        /// Bytes that are there.
        actual: u64,
    },
    /// A blob has other content than its name says.
    #[error("{place}: expected {expected}, read {actual}")]
    DigestMismatch {
        /// The place.
        place: String,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what was read.
        actual: Digest,
    },
    /// A document is larger than anything that is read into memory.
    #[error("{place}: {what} has {size} bytes; at most {limit} are read")]
    TooLarge {
        /// The place.
        place: String,
        /// The document.
        what: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A document breaks the rules for OCI documents.
    #[error("{place}: {document} is refused")]
    Oci {
        /// The place.
        place: String,
        /// The document.
        document: String,
        /// The rule.
        source: OciError,
    },
    /// A JSON document of the place cannot be understood.
    #[error("{place}: cannot understand {document}")]
    Json {
        /// The place.
        place: String,
        /// The document.
        document: String,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// The place is not what the recipe says it is.
    #[error("{place} is not {expected}: {reason}")]
    WrongKind {
        /// The place.
        place: String,
        /// What it should be.
        expected: &'static str,
        /// What tells that it is not.
        reason: String,
    },
    /// The archive is compressed, so nothing in it can be read where it lies.
    #[error("{place} is compressed with {method}; archives are read in place, so decompress it first ({command})")]
    Compressed {
        /// The place.
        place: String,
        /// The compression.
        method: &'static str,
        /// A command that undoes it.
        command: &'static str,
    },
    /// The archive's structure is broken.
    #[error("{place} is not a sound tar archive")]
    Tar {
        /// The place.
        place: String,
        /// The reader's reason.
        source: io::Error,
    },
    /// An entry of the archive is refused.
    #[error("{place}: entry {entry:?} {reason}")]
    Entry {
        /// The place.
        place: String,
        /// The entry's name.
        entry: String,
        /// Why it is refused.
        reason: String,
    },
    /// `index.json` and `manifest.json` of one archive tell of different images.
    #[error("{place}: index.json and manifest.json differ: {difference}")]
    ViewsDiffer {
        /// The place.
        place: String,
        /// Where they differ.
        difference: String,
    },
    /// A registry.
    #[error(transparent)]
    Registry(#[from] super::registry::PullError),
    /// A registry or the way to it failed.
    #[error("cannot get {place}")]
    Remote {
        /// The reference or address.
        place: String,
        /// The client's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn list(names: &[String]) -> String {
    const SHOWN: usize = 10;
    if names.is_empty() {
        return "none".to_string();
    }
    let mut text = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}
