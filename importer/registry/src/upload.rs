//! Sends a blob, in one request, from a reader that is drained by a thread of its own.
//!
//! A blob that failed halfway is sent again from its start: the client cannot continue an upload.

use std::io::{self, ErrorKind, Read};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use oci_client::errors::{OciDistributionError, OciEnvelope, OciErrorCode};
use sealift_format::Digest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::connection::retrying;
use crate::{Connection, RegistryError};

/// Bytes that are read and handed on at once.
const PIECE: usize = 256 << 10;
/// Pieces that may wait to be sent.
const AHEAD: usize = 4;
/// How long a registry may neither take a byte nor answer, in seconds; it hashes what it got before it answers.
const STALL: u64 = 300;

/// Opens the bytes of a blob for one forward read; called once for every try.
pub type Opener<'a> = &'a (dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync);

impl Connection {
    /// Sends a blob to a repository. `sent` hears of bytes that went out, each once, and in the end
    /// of all `size`.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Content`] if the reader fails or has another length;
    /// [`RegistryError::ContentMismatch`] if the registry finds another digest; else what the registry says.
    pub async fn push_blob(
        &self,
        repository: &str,
        digest: &Digest,
        size: u64,
        open: Opener<'_>,
        sent: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RegistryError> {
        let told = Mutex::new(0_u64);
        let tell = |total: u64| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if total > *told {
                sent(total - *told);
                *told = total;
            }
        };
        retrying(|| self.push_once(repository, digest, size, open, &tell)).await?;
        tell(size);
        Ok(())
    }

    async fn push_once(
        &self,
        repository: &str,
        digest: &Digest,
        size: u64,
        open: Opener<'_>,
        tell: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RegistryError> {
        let content = |source| RegistryError::Content { digest: *digest, source };
        let reader = open().map_err(content)?;
        let failure = Failure::default();
        let (taken, mut counts) = mpsc::unbounded_channel();
        let body = read_ahead(reader, size, failure.clone(), taken);
        let (reference, text) = (self.reference(repository, ""), digest.to_string());
        let client = self.client(repository).await?;
        let mut push = pin!(client.push_blob_stream(&reference, body, &text, Some(size)));
        let step = self.step(repository, "send a blob to");
        let mut total = 0;
        let result = loop {
            tokio::select! {
                Some(count) = counts.recv() => {
                    total += count;
                    tell(total);
                }
                result = &mut push => break result,
                () = tokio::time::sleep(Duration::from_secs(STALL)) => return Err(step.silent(STALL)),
            }
        };
        if let Some(source) = failure.take() {
            return Err(content(source));
        }
        match result {
            Ok(_) => Ok(()),
            Err(OciDistributionError::ServerError { code: 400, ref message, .. }) if is_digest_refusal(message) => {
                Err(step.mismatch(digest, "the registry counts other bytes"))
            }
            Err(e) => Err(step.error(e)),
        }
    }
}

/// The reader's error, which the client would report as a broken connection.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    fn set(&self, error: io::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn read_ahead<B: From<Vec<u8>> + Send + 'static>(
    mut reader: Box<dyn Read + Send>,
    size: u64,
    failure: Failure,
    taken: mpsc::UnboundedSender<u64>,
) -> impl Stream<Item = Result<B, OciDistributionError>> + Send + 'static {
    let (pieces, queue) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut left = size;
        loop {
            let piece = match read_piece(&mut *reader, left) {
                Ok(Some(piece)) => piece,
                Ok(None) => return,
                Err(error) => {
                    let kind = error.kind();
                    failure.set(error);
                    // an error in the queue breaks the request off; if nobody listens it is broken already
                    let _ = pieces.blocking_send(Err(kind));
                    return;
                }
            };
            left -= piece.len() as u64;
            if pieces.blocking_send(Ok(piece)).is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(queue).map(move |piece| {
        let piece: Vec<u8> = piece.map_err(|kind: ErrorKind| OciDistributionError::IoError(kind.into()))?;
        // nobody listens once the request has ended
        let _ = taken.send(piece.len() as u64);
        Ok(piece.into())
    })
}

/// The next piece; `None` after exactly `left` bytes, at whose end the reader must agree that it is the end.
fn read_piece(reader: &mut dyn Read, left: u64) -> io::Result<Option<Vec<u8>>> {
    if left == 0 {
        return match reader.read(&mut [0])? {
            0 => Ok(None),
            _ => Err(io::Error::new(ErrorKind::InvalidData, "there are more bytes than the descriptor says")),
        };
    }
    let mut piece = Vec::with_capacity(PIECE);
    reader.take(left.min(PIECE as u64)).read_to_end(&mut piece)?;
    if piece.is_empty() {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("{left} bytes are missing at the end")));
    }
    Ok(Some(piece))
}

fn is_digest_refusal(body: &str) -> bool {
    serde_json::from_str::<OciEnvelope>(body).is_ok_and(|envelope| {
        envelope.errors.iter().any(|e| matches!(e.code, OciErrorCode::DigestInvalid | OciErrorCode::SizeInvalid))
    })
}
