//! Proves layers: each blob is read once, and its digest, its size and its diff id are recomputed.
//!
//! Nothing is written and nothing is unpacked to disk; memory is a few buffers a thread, and at
//! most one layer at a time may ask for a large zstd window.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::sync::{Mutex, PoisonError};

use flate2::bufread::MultiGzDecoder;
use rayon::prelude::*;
use sealift_format::oci::Descriptor;
use sealift_format::{Digest, Hasher};

use crate::collect::Collected;
use crate::source::SourceBlob;

const BUFFER: usize = 256 << 10;
/// Largest zstd window, as a power of two, that layers may use side by side.
const COMMON_WINDOW: u32 = 24;
/// Largest zstd window, as a power of two, that is read at all: what `zstd --ultra -22` writes.
const LARGEST_WINDOW: u32 = 27;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// One or more gzip members.
    Gzip,
    /// One or more zstd frames.
    Zstd,
}

/// A layer whose digests were recomputed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenLayer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Digest of the uncompressed content.
    pub diff_id: Digest,
    /// Size of the uncompressed content in bytes.
    pub unpacked_size: u64,
    /// How the blob is compressed.
    pub compression: Compression,
}

/// Why a layer is not what its image says. Layers count from 0, bottom first.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProveError {
    /// The blob cannot be read.
    #[error("image {image}: cannot read layer {layer} ({digest})")]
    Read {
        /// The image.
        image: String,
        /// The layer.
        layer: usize,
        /// The blob.
        digest: Digest,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The blob is shorter or longer than the manifest says.
    #[error("image {image}: layer {layer} ({digest}) has {actual} bytes, the manifest says {expected}")]
    Size {
        /// The image.
        image: String,
        /// The layer.
        layer: usize,
        /// The blob.
        digest: Digest,
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes read.
        actual: u64,
    },
    /// The blob has another digest than the manifest says.
    #[error("image {image}: layer {layer} should be {expected}, read {actual}")]
    Digest {
        /// The image.
        image: String,
        /// The layer.
        layer: usize,
        /// Digest by the manifest.
        expected: Digest,
        /// Digest of the bytes.
        actual: Digest,
    },
    /// The uncompressed content has another digest than the config says.
    #[error("image {image}: layer {layer} unpacks to {actual}, the config's diff id says {expected}")]
    DiffId {
        /// The image.
        image: String,
        /// The layer.
        layer: usize,
        /// Digest by the config.
        expected: Digest,
        /// Digest of the content.
        actual: Digest,
    },
    /// The blob is compressed in another way than its media type says.
    #[error("image {image}: layer {layer} ({digest}) is {found:?}, its media type {media_type:?} says otherwise")]
    Compression {
        /// The image.
        image: String,
        /// The layer.
        layer: usize,
        /// The blob.
        digest: Digest,
        /// The media type.
        media_type: String,
        /// What its first bytes show.
        found: Compression,
    },
    /// The media type is none of a layer.
    #[error(
        "image {image}: layer {layer} ({digest}) has media type {media_type:?}, which no container runtime unpacks"
    )]
    MediaType {
        /// The image.
        image: String,
        /// The layer.
        layer: usize,
        /// The blob.
        digest: Digest,
        /// The media type.
        media_type: String,
    },
    /// The compressed stream is broken.
    #[error("image {image}: cannot unpack layer {layer} ({digest})")]
    Unpack {
        /// The image.
        image: String,
        /// The layer.
        layer: usize,
        /// The blob.
        digest: Digest,
        /// The decoder's reason.
        source: io::Error,
    },
}

/// Proves every layer of every image, each distinct blob once, several side by side.
///
/// `progress` is told how many bytes of blobs have been read since it was last called, from
/// several threads. The result is in the order of first use.
///
/// # Errors
///
/// [`ProveError`] for the first layer, in the order of the images, that is not what its image says.
pub fn prove(collected: &Collected, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<ProvenLayer>, ProveError> {
    let uses = uses(collected);
    let mut order: Vec<&SourceBlob> = Vec::new();
    let mut number = BTreeMap::new();
    for one in &uses {
        number.entry(one.descriptor.digest).or_insert_with(|| {
            order.push(one.blob);
            order.len() - 1
        });
    }
    let large = Mutex::new(());
    let read: Vec<Outcome> = order.par_iter().map(|blob| read_layer(blob, &large, progress)).collect();
    for one in &uses {
        one.check(&read[number[&one.descriptor.digest]])?;
    }
    let proven = order.iter().zip(read).filter_map(|(blob, outcome)| outcome.proven(blob));
    Ok(proven.collect())
}

/// One layer of one image.
struct Use<'a> {
    image: String,
    layer: usize,
    descriptor: &'a Descriptor,
    diff_id: &'a Digest,
    blob: &'a SourceBlob,
}

fn uses(collected: &Collected) -> Vec<Use<'_>> {
    let mut uses = Vec::new();
    for image in &collected.images {
        for platform in &image.platforms {
            let name = match image.platforms.len() {
                1 => image.reference.to_string(),
                _ => format!("{} ({})", image.reference, platform.platform),
            };
            for (layer, descriptor) in platform.manifest.layers.iter().enumerate() {
                uses.push(Use {
                    image: name.clone(),
                    layer,
                    descriptor,
                    diff_id: &platform.config.diff_ids[layer],
                    blob: collected.blobs.get(&descriptor.digest).expect("every layer was collected"),
                });
            }
        }
    }
    uses
}

impl Use<'_> {
    fn check(&self, outcome: &Outcome) -> Result<(), ProveError> {
        let (image, layer, digest) = (self.image.clone(), self.layer, self.descriptor.digest);
        let media_type = self.descriptor.media_type.clone();
        let Some(allowed) = compression_of(&media_type) else {
            return Err(ProveError::MediaType { image, layer, digest, media_type });
        };
        let expected = self.descriptor.size;
        match outcome {
            Outcome::Unreadable(error) => Err(ProveError::Read { image, layer, digest, source: same_error(error) }),
            Outcome::Read { size, .. } if *size != expected => {
                Err(ProveError::Size { image, layer, digest, expected, actual: *size })
            }
            Outcome::Read { digest: actual, .. } if *actual != digest => {
                Err(ProveError::Digest { image, layer, expected: digest, actual: *actual })
            }
            Outcome::Read { compression, .. } if allowed != *compression => {
                Err(ProveError::Compression { image, layer, digest, media_type, found: *compression })
            }
            Outcome::Read { content: Err(error), .. } => {
                Err(ProveError::Unpack { image, layer, digest, source: same_error(error) })
            }
            Outcome::Read { content: Ok((actual, _)), .. } if actual != self.diff_id => {
                Err(ProveError::DiffId { image, layer, expected: *self.diff_id, actual: *actual })
            }
            Outcome::Read { .. } => Ok(()),
        }
    }
}

/// What reading a blob once has shown.
enum Outcome {
    Unreadable(io::Error),
    Read { size: u64, digest: Digest, compression: Compression, content: Result<(Digest, u64), io::Error> },
}

impl Outcome {
    fn proven(self, blob: &SourceBlob) -> Option<ProvenLayer> {
        match self {
            Self::Read { compression, content: Ok((diff_id, unpacked_size)), .. } => {
                Some(ProvenLayer { digest: blob.digest, size: blob.size, diff_id, unpacked_size, compression })
            }
            Self::Read { .. } | Self::Unreadable(_) => None,
        }
    }
}

/// What a layer with this media type must look like; `None` if it is no layer.
fn compression_of(media_type: &str) -> Option<Compression> {
    match media_type {
        "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
            Some(Compression::Plain)
        }
        "application/vnd.oci.image.layer.v1.tar+gzip" | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            Some(Compression::Gzip)
        }
        "application/vnd.oci.image.layer.v1.tar+zstd" | "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
            Some(Compression::Zstd)
        }
        _ => None,
    }
}

fn read_layer(blob: &SourceBlob, large: &Mutex<()>, progress: &(dyn Fn(u64) + Sync)) -> Outcome {
    let outcome = match read_once(blob, COMMON_WINDOW, progress) {
        Ok(Outcome::Read { compression: Compression::Zstd, content: Err(_), .. }) => {
            let _one_at_a_time = large.lock().unwrap_or_else(PoisonError::into_inner);
            read_once(blob, LARGEST_WINDOW, &|_| {})
        }
        other => other,
    };
    outcome.unwrap_or_else(Outcome::Unreadable)
}

fn read_once(blob: &SourceBlob, window: u32, progress: &(dyn Fn(u64) + Sync)) -> io::Result<Outcome> {
    let mut raw = Raw { inner: blob.open()?, hasher: Hasher::new(), failed: None, progress };
    let mut start = Vec::new();
    Read::by_ref(&mut raw).take(4).read_to_end(&mut start)?;
    let compression = match start.as_slice() {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        _ => Compression::Plain,
    };
    let stream = BufReader::with_capacity(BUFFER, start.as_slice().chain(&mut raw));
    let content = match compression {
        Compression::Plain => hash(stream),
        Compression::Gzip => hash(MultiGzDecoder::new(stream)),
        Compression::Zstd => zstd::stream::read::Decoder::with_buffer(stream).and_then(|mut decoder| {
            decoder.window_log_max(window)?;
            hash(decoder)
        }),
    };
    // a stream that ends early or breaks must not hide that the blob itself is another one
    let rest = io::copy(&mut raw, &mut io::sink());
    match (raw.failed.take(), rest) {
        (Some(error), _) | (None, Err(error)) => Err(error),
        (None, Ok(_)) => {
            Ok(Outcome::Read { size: raw.hasher.length(), digest: raw.hasher.finish(), compression, content })
        }
    }
}

fn hash(mut stream: impl Read) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = hasher.length();
    Ok((hasher.finish(), length))
}

/// The blob's own bytes, hashed as they pass; remembers whether the medium failed, which a decoder
/// would report as a broken stream.
struct Raw<'a> {
    inner: Box<dyn Read + Send>,
    hasher: Hasher,
    failed: Option<io::Error>,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(count) => {
                self.hasher.update(&buffer[..count]);
                (self.progress)(count as u64);
                Ok(count)
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    self.failed = Some(same_error(&error));
                }
                Err(error)
            }
        }
    }
}

fn same_error(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
