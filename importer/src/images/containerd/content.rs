//! Sends blobs into containerd's content store, whole or not at all.
//!
//! A blob that is there is never sent again. What a broken load left half-written is continued if the
//! source can be read up to there; the digest decides, and what fails it is thrown away.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::{
    AbortRequest, Info, InfoRequest, UpdateRequest, WriteAction, WriteContentRequest,
};
use containerd_client::tonic::{Code, Status, transport::Channel};
use sealift_format::Digest;
use sealift_format::oci::Descriptor;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::error::{has_stopped, is_locked};
use super::lease::Lease;
use super::{Containerd, ContainerdError, answer};
use crate::image::{Content, Progress};

/// Bytes in one message; containerd takes at most 16 MiB.
const CHUNK: usize = 1 << 20;
/// Messages read ahead of containerd, for each blob that is being sent.
const AHEAD: usize = 4;
/// How often, and how long in between, a blob is tried that somebody else is writing.
const LOCKED_TRIES: u32 = 60;
const LOCKED_PAUSE: Duration = Duration::from_millis(500);

/// Labels of a blob or an image.
pub(super) type Labels = HashMap<String, String>;

/// A blob to send.
pub(super) struct Blob<'a> {
    /// The image it is sent for.
    pub(super) image: &'a str,
    /// Its digest and size.
    pub(super) descriptor: &'a Descriptor,
    /// Labels it gets.
    pub(super) labels: Labels,
}

/// Why a blob was not taken.
enum Refusal {
    /// It is there already.
    Present,
    /// Somebody else is writing it.
    Locked(Status),
    /// containerd found another digest or length; `resumed` if it had a part before.
    Different { resumed: bool, status: Status },
    /// containerd refused for another reason.
    Call(Status),
    /// The source failed.
    Source(io::Error),
    /// The source has another length.
    Length(u64),
}

impl Refusal {
    fn sort(status: Status, resumed: bool) -> Self {
        match status.code() {
            Code::AlreadyExists => Self::Present,
            _ if is_locked(&status) => Self::Locked(status),
            Code::FailedPrecondition => Self::Different { resumed, status },
            Code::OutOfRange if resumed => Self::Different { resumed, status },
            _ => Self::Call(status),
        }
    }

    fn into_error(self, blob: &Blob<'_>) -> ContainerdError {
        let image = blob.image.to_string();
        let Descriptor { digest, size, .. } = blob.descriptor;
        match self {
            Self::Different { status, .. } => {
                ContainerdError::BlobMismatch { image, blob: *digest, source: status.into() }
            }
            Self::Source(source) => ContainerdError::Read { image, blob: *digest, source },
            Self::Length(actual) => ContainerdError::BlobLength { image, blob: *digest, expected: *size, actual },
            Self::Present => unreachable!("a blob that is there is no failure"),
            Self::Locked(status) | Self::Call(status) => {
                ContainerdError::call(format!("send blob {digest} of {image}"), status)
            }
        }
    }
}

impl Containerd {
    /// What containerd knows of a blob; `None` if it does not have it.
    pub(super) async fn blob(&self, digest: &Digest) -> Result<Option<Info>, ContainerdError> {
        let info = self.request(InfoRequest { digest: digest.to_string() });
        match answer(self.content().info(info)).await {
            Ok(found) => Ok(found.info),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(ContainerdError::call(format!("look for blob {digest}"), status)),
        }
    }

    /// Adds labels to a blob that is there.
    pub(super) async fn label_blob(&self, digest: &Digest, labels: Labels) -> Result<(), ContainerdError> {
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let update = self.request(UpdateRequest {
            info: Some(Info { digest: digest.to_string(), labels, ..Info::default() }),
            update_mask: Some(prost_types::FieldMask { paths }),
        });
        answer(self.content().update(update))
            .await
            .map(|_| ())
            .map_err(|status| ContainerdError::call(format!("label blob {digest}"), status))
    }

    /// Sends a blob unless it is there. Returns how many bytes were sent.
    ///
    /// `progress` hears of each byte of the blob once, whatever happens on the way.
    pub(super) async fn send(
        &self,
        blob: &Blob<'_>,
        content: &Arc<dyn Content>,
        lease: &Lease<'_>,
        progress: &dyn Progress,
    ) -> Result<u64, ContainerdError> {
        let size = blob.descriptor.size;
        let mut told = 0;
        let mut tell = |offset: u64| {
            let offset = offset.min(size);
            if offset > told {
                progress.advance(offset - told);
                told = offset;
            }
        };
        let mut afresh = false;
        let mut waits = 0;
        loop {
            let refusal = match self.attempt(blob, content, lease, &mut tell).await {
                Ok(sent) => {
                    tell(size);
                    return Ok(sent);
                }
                Err(refusal) => refusal,
            };
            match refusal {
                Refusal::Present => {
                    tell(size);
                    return Ok(0);
                }
                Refusal::Locked(_) if waits < LOCKED_TRIES => {
                    waits += 1;
                    tokio::time::sleep(LOCKED_PAUSE).await;
                    continue;
                }
                Refusal::Call(ref status) if has_stopped(status) => {}
                Refusal::Locked(_) => {}
                // or containerd would go on from the bad bytes for ever
                _ => self.abort(blob.descriptor).await,
            }
            if matches!(refusal, Refusal::Different { resumed: true, .. }) && !afresh {
                // the bytes that were there before may be at fault
                afresh = true;
                continue;
            }
            return Err(refusal.into_error(blob));
        }
    }

    async fn attempt(
        &self,
        blob: &Blob<'_>,
        content: &Arc<dyn Content>,
        lease: &Lease<'_>,
        tell: &mut (dyn FnMut(u64) + Send),
    ) -> Result<u64, Refusal> {
        let (sender, requests) = mpsc::channel(AHEAD);
        let first = message(WriteAction::Stat, blob.descriptor, 0);
        sender.send(first).await.expect("the receiver lives in this function");
        let write = self.leased(lease, ReceiverStream::new(requests));
        // only after the answer is it known whether, and from where, anything has to be sent
        let replies = self.content().write(write).await;
        let mut replies = replies.map_err(|status| Refusal::sort(status, false))?.into_inner();
        let state = replies.message().await.map_err(|status| Refusal::sort(status, false))?;
        let offset = state.map_or(0, |state| u64::try_from(state.offset).unwrap_or(0));
        let resumed = offset > 0;
        tell(offset);

        let feed = Feed { descriptor: blob.descriptor.clone(), offset, labels: blob.labels.clone(), requests: sender };
        let content = Arc::clone(content);
        let feeding = tokio::task::spawn_blocking(move || feed.run(content.as_ref()));
        let outcome = loop {
            match replies.message().await {
                Ok(Some(reply)) if reply.action == WriteAction::Commit as i32 => break Ok(()),
                Ok(Some(reply)) => tell(u64::try_from(reply.offset).unwrap_or(0)),
                Ok(None) => {
                    break Err(Refusal::Call(Status::unavailable("the answer ended early")));
                }
                Err(status) => break Err(Refusal::sort(status, resumed)),
            }
        };
        // the feeder ends by itself: its channel closes with the stream
        drop(replies);
        match (feeding.await.unwrap_or(Fed::Closed), outcome) {
            (Fed::Failed(error), _) => Err(Refusal::Source(error)),
            (Fed::Length(actual), _) => Err(Refusal::Length(actual)),
            (Fed::Closed, outcome) => outcome.map(|()| 0),
            (Fed::All(sent), outcome) => outcome.map(|()| sent),
        }
    }

    /// Throws away what was written of a blob. There may be nothing: that is no failure.
    async fn abort(&self, descriptor: &Descriptor) {
        let abort = self.request(AbortRequest { r#ref: reference(&descriptor.digest) });
        let _ = answer(self.content().abort(abort)).await;
    }

    fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone()).max_decoding_message_size(super::MESSAGE)
    }
}

/// Under which name a blob is written until it is committed.
fn reference(digest: &Digest) -> String {
    format!("sealift-{digest}")
}

fn message(action: WriteAction, descriptor: &Descriptor, offset: u64) -> WriteContentRequest {
    WriteContentRequest {
        action: action as i32,
        r#ref: reference(&descriptor.digest),
        total: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        expected: descriptor.digest.to_string(),
        offset: i64::try_from(offset).unwrap_or(i64::MAX),
        ..WriteContentRequest::default()
    }
}

/// Reads a blob and hands it over piece by piece. Blocks.
struct Feed {
    descriptor: Descriptor,
    offset: u64,
    labels: Labels,
    requests: mpsc::Sender<WriteContentRequest>,
}

/// How a feed ended.
enum Fed {
    /// Everything was handed over, so many bytes, and the commit.
    All(u64),
    /// Nobody listens any more.
    Closed,
    /// The source failed.
    Failed(io::Error),
    /// The source has another length: so many bytes, or more.
    Length(u64),
}

impl Feed {
    fn run(self, content: &dyn Content) -> Fed {
        let size = self.descriptor.size;
        let mut offset = self.offset;
        // containerd has all of it already, from another namespace or an earlier load
        if offset != size || size == 0 {
            let mut source = match content.open(&self.descriptor.digest) {
                Ok(source) => source,
                Err(error) => return Fed::Failed(error),
            };
            match io::copy(&mut source.by_ref().take(offset), &mut io::sink()) {
                Ok(skipped) if skipped == offset => {}
                Ok(skipped) => return Fed::Length(skipped),
                Err(error) => return Fed::Failed(error),
            }
            loop {
                let mut data = Vec::with_capacity(CHUNK);
                if let Err(error) = source.by_ref().take(CHUNK as u64).read_to_end(&mut data) {
                    return Fed::Failed(error);
                }
                if data.is_empty() {
                    break;
                }
                let length = data.len() as u64;
                if offset + length > size {
                    return Fed::Length(offset + length);
                }
                let write = WriteContentRequest { data, ..message(WriteAction::Write, &self.descriptor, offset) };
                if self.requests.blocking_send(write).is_err() {
                    return Fed::Closed;
                }
                offset += length;
            }
            if offset != size {
                return Fed::Length(offset);
            }
        }
        let commit =
            WriteContentRequest { labels: self.labels, ..message(WriteAction::Commit, &self.descriptor, size) };
        match self.requests.blocking_send(commit) {
            Ok(()) => Fed::All(size - self.offset),
            Err(_) => Fed::Closed,
        }
    }
}
