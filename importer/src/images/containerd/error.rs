//! Why something could not be done with containerd.

use std::io;
use std::path::PathBuf;

use containerd_client::tonic::{Code, Status};
use sealift_format::Digest;
use sealift_format::oci::Platform;

/// What containerd said instead of yes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("containerd says {message:?} ({code:?})")]
pub struct Answer {
    /// The kind of failure.
    pub code: Code,
    /// Its words.
    pub message: String,
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Self { code: status.code(), message: status.message().to_string() }
    }
}

/// What reading back did not find as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A name does not exist.
    #[error("the name {name} does not exist")]
    NoName {
        /// The name.
        name: String,
    },
    /// A name stands for something else.
    #[error("the name {name} stands for {found}, not for {expected}")]
    Name {
        /// The name.
        name: String,
        /// What it should stand for.
        expected: Digest,
        /// What it stands for.
        found: String,
    },
    /// A name lacks the pin or the owner.
    #[error("the name {name} lacks its labels")]
    Labels {
        /// The name.
        name: String,
    },
    /// A blob is not there.
    #[error("the blob {blob} is absent")]
    NoBlob {
        /// The blob.
        blob: Digest,
    },
    /// A blob is there with another size.
    #[error("the blob {blob} has {found} bytes, not {expected}")]
    Size {
        /// The blob.
        blob: Digest,
        /// Size that the bundle states, in bytes.
        expected: u64,
        /// Size that containerd states, in bytes.
        found: u64,
    },
    /// A document lacks a label that keeps what it refers to.
    #[error("the blob {blob} lacks the labels that keep its content")]
    Unheld {
        /// The document.
        blob: Digest,
    },
    /// The image is not unpacked.
    #[error("the snapshot {chain} is absent")]
    NoSnapshot {
        /// Chain id of the image.
        chain: Digest,
    },
}

/// Why something could not be done with containerd.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// There is no socket.
    #[error("there is no containerd socket at {}", path.display())]
    NoSocket {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Nobody listens at the socket, or it may not be used.
    #[error("cannot connect to containerd at {}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No answer came in time.
    #[error("containerd did not answer in {seconds} s ({during})")]
    NoAnswer {
        /// What was asked.
        during: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A text that cannot be the name of a namespace.
    #[error("{name:?} is not a containerd namespace")]
    Namespace {
        /// The text.
        name: String,
    },
    /// A text that cannot be an owner.
    #[error("{owner:?} cannot be an owner: 1 to 200 printable ASCII characters without comma are expected")]
    Owner {
        /// The text.
        owner: String,
    },
    /// Tags stand for images that are not the owner's alone, and were not to be taken.
    #[error("tags stand for images that are not {owner}'s alone: {tags}")]
    ForeignTag {
        /// The owner.
        owner: String,
        /// The tags.
        tags: String,
    },
    /// containerd stopped or closed the connection; what it had is kept.
    #[error("containerd stopped during: {during}")]
    Stopped {
        /// What was under way.
        during: String,
        /// What was heard last.
        source: Answer,
    },
    /// containerd's disk is full.
    #[error("containerd's disk is full ({during})")]
    DiskFull {
        /// What was under way.
        during: String,
        /// What it said.
        source: Answer,
    },
    /// containerd found another digest than the blob's.
    #[error("image {image}: what was sent as {blob} is something else")]
    BlobMismatch {
        /// The image.
        image: String,
        /// The blob.
        blob: Digest,
        /// What containerd found.
        source: Answer,
    },
    /// A blob's source has another length than its descriptor states.
    #[error("image {image}: expected {expected} bytes of {blob}, read {actual} or more")]
    BlobLength {
        /// The image.
        image: String,
        /// The blob.
        blob: Digest,
        /// Stated size in bytes.
        expected: u64,
        /// Bytes read before it was noticed.
        actual: u64,
    },
    /// A blob's source cannot be read.
    #[error("image {image}: cannot read {blob}")]
    Read {
        /// The image.
        image: String,
        /// The blob.
        blob: Digest,
        /// What failed.
        source: io::Error,
    },
    /// An unpacked layer is not what the image's config says.
    #[error("image {image}: layer {layer} unpacks to {actual}, its config says {expected}")]
    LayerMismatch {
        /// The image.
        image: String,
        /// The layer's blob.
        layer: Digest,
        /// Diff id in the config.
        expected: Digest,
        /// Diff id that containerd found.
        actual: String,
    },
    /// A layer of a kind that cannot be unpacked.
    #[error("image {image}: layer {layer} has media type {media_type:?}, which cannot be unpacked")]
    LayerType {
        /// The image.
        image: String,
        /// The layer's blob.
        layer: Digest,
        /// Its media type.
        media_type: String,
    },
    /// An image that does not run on this machine.
    #[error("image {image} is carried for {carried}, not for {platform}")]
    NoPlatform {
        /// The image.
        image: String,
        /// The machine's platform.
        platform: Platform,
        /// What the bundle has, separated by commas.
        carried: String,
    },
    /// A snapshotter that containerd does not have.
    #[error("containerd has no snapshotter {name:?}")]
    Snapshotter {
        /// The snapshotter asked for.
        name: String,
        /// What containerd said.
        source: Answer,
    },
    /// An image was loaded and is not there as it should be when read back.
    #[error("image {image} was loaded, yet is not complete")]
    Unproven {
        /// The image.
        image: String,
        /// What is wrong.
        source: Fault,
    },
    /// Any other refusal.
    #[error("cannot {during}")]
    Call {
        /// What was asked.
        during: String,
        /// What containerd said.
        source: Answer,
    },
}

impl ContainerdError {
    /// Sorts a failed call.
    pub(super) fn call(during: impl Into<String>, status: Status) -> Self {
        let during = during.into();
        if status.code() == Code::DeadlineExceeded {
            return Self::NoAnswer { during, seconds: super::ANSWER_SECONDS };
        }
        let stopped = has_stopped(&status);
        let source = Answer::from(status);
        if source.message.to_ascii_lowercase().contains("no space left") {
            Self::DiskFull { during, source }
        } else if stopped {
            Self::Stopped { during, source }
        } else {
            Self::Call { during, source }
        }
    }
}

/// Whether the connection is gone. An error with a source was made on this side of it.
pub(super) fn has_stopped(status: &Status) -> bool {
    let gone = matches!(status.code(), Code::Unavailable | Code::Cancelled);
    (gone && !is_locked(status)) || std::error::Error::source(status).is_some()
}

/// Whether somebody else writes the same blob under the same reference.
pub(super) fn is_locked(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message().contains("locked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_reference_is_not_a_stopped_containerd() {
        let locked = Status::unavailable("ref sealift-sha256:00 locked for 1s: unavailable");
        assert!(is_locked(&locked) && !has_stopped(&locked));
        assert!(has_stopped(&Status::unavailable("transport is closing")));
    }

    #[test]
    fn a_full_disk_is_recognised_in_any_answer() {
        let status = Status::unknown("failed to copy: write /x/data: no space left on device");
        let error = ContainerdError::call("send a blob", status);
        assert!(matches!(error, ContainerdError::DiskFull { .. }), "{error}");
    }
}
