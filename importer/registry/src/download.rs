//! Fetches a blob into a file that has its name only when the digest is right.
//!
//! What a broken download leaves behind is continued, in this run or the next. Two processes may
//! fetch into one folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use oci_client::client::BlobResponse;
use sealift_format::{Digest, Hasher};
use tokio::time::timeout;

use crate::connection::{TRIES, pause};
use crate::{Connection, RegistryError};

/// How long a registry may be silent in the middle of a blob, in seconds.
const SILENCE: u64 = 60;

/// A blob in a file whose bytes have been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    /// The file.
    pub path: PathBuf,
    /// Bytes that came from the registry for it; 0 if it was there already.
    pub fetched: u64,
}

impl Connection {
    /// Fetches a blob of a repository into `folder`, as a file named by the digest's hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotFound`], [`RegistryError::ContentMismatch`] if what is sent is not the
    /// blob, [`RegistryError::File`], or what the registry says.
    pub async fn download(
        &self,
        repository: &str,
        digest: &Digest,
        size: u64,
        folder: &Path,
    ) -> Result<Downloaded, RegistryError> {
        let path = folder.join(digest.hex());
        let part = folder.join(format!("{}.part", digest.hex()));
        let file = |source| RegistryError::File { path: part.clone(), source };
        let prepared = {
            let (path, part, digest) = (path.clone(), part.clone(), *digest);
            tokio::task::spawn_blocking(move || Partial::open(&path, &part, &digest, size))
        };
        let Some(mut partial) = prepared.await.map_err(|e| file(io::Error::other(e)))?.map_err(file)? else {
            return Ok(Downloaded { path, fetched: 0 });
        };
        let (mut failures, mut fetched, mut restarted) = (0, 0, false);
        loop {
            let before = partial.hasher.length();
            let result = self.fetch(repository, digest, size, &mut partial, &part, &mut fetched).await;
            let progress = partial.hasher.length() > before;
            match result {
                Ok(()) => break,
                // what was there before this request may be at fault: once more from the start
                Err(RegistryError::ContentMismatch { .. }) if !restarted => {
                    restarted = true;
                    partial.restart().map_err(file)?;
                }
                Err(e) if e.is_transient() => {
                    failures = if progress { 1 } else { failures + 1 };
                    if failures >= TRIES {
                        return Err(e);
                    }
                    pause(failures).await;
                }
                Err(e) => {
                    if matches!(e, RegistryError::ContentMismatch { .. }) {
                        partial.restart().map_err(file)?;
                    }
                    return Err(e);
                }
            }
        }
        fs::rename(&part, &path).map_err(|source| RegistryError::File { path: path.clone(), source })?;
        Ok(Downloaded { path, fetched })
    }

    async fn fetch(
        &self,
        repository: &str,
        digest: &Digest,
        size: u64,
        partial: &mut Partial,
        part: &Path,
        fetched: &mut u64,
    ) -> Result<(), RegistryError> {
        let step = self.step(repository, "read a blob from");
        let silence = Duration::from_secs(SILENCE);
        let (reference, text) = (self.reference(repository, ""), digest.to_string());
        let offset = partial.hasher.length();
        // a range of an empty rest is an error in HTTP
        if offset < size {
            let client = self.client(repository).await?;
            let request = client.pull_blob_stream_partial(&reference, text.as_str(), offset, None);
            let response = timeout(silence, request).await.map_err(|_| step.silent(SILENCE))?;
            let mut stream = match response.map_err(|e| step.error(e)) {
                Ok(BlobResponse::Partial(stream)) => stream,
                Ok(BlobResponse::Full(stream)) => {
                    partial.restart().map_err(|source| RegistryError::File { path: part.to_path_buf(), source })?;
                    stream
                }
                Err(RegistryError::Refused { status: Some(404), .. }) => return Err(step.not_found(&text)),
                Err(e) => return Err(e),
            };
            while let Some(piece) = timeout(silence, stream.next()).await.map_err(|_| step.silent(SILENCE))? {
                let piece = piece.map_err(|e| step.error(e.into()))?;
                if partial.hasher.length() + piece.len() as u64 > size {
                    return Err(step.mismatch(digest, format!("more than the {size} bytes that it has were sent")));
                }
                partial.write(&piece).map_err(|source| RegistryError::File { path: part.to_path_buf(), source })?;
                *fetched += piece.len() as u64;
            }
        }
        if partial.hasher.length() < size {
            let early = io::Error::new(ErrorKind::UnexpectedEof, "the blob ended early");
            return Err(step.error(early.into()));
        }
        let found = partial.hasher.clone().finish();
        if found == *digest { Ok(()) } else { Err(step.mismatch(digest, found.to_string())) }
    }
}

/// The beginning of a blob: in a locked file, and hashed.
struct Partial {
    file: File,
    hasher: Hasher,
}

impl Partial {
    /// `None` if the whole blob is there and good.
    fn open(path: &Path, part: &Path, digest: &Digest, size: u64) -> io::Result<Option<Self>> {
        if is_good(path, digest, size)? {
            return Ok(None);
        }
        if let Some(folder) = part.parent() {
            fs::create_dir_all(folder)?;
        }
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(part)?;
            file.lock()?;
            // whoever held the lock may have finished the blob, and with it this file
            if is_good(path, digest, size)? {
                return Ok(None);
            }
            let mut partial = Self { file, hasher: Hasher::new() };
            if !same_file(&partial.file, part)? {
                continue;
            }
            if partial.file.metadata()?.len() > size {
                partial.restart()?;
            } else {
                hash_into(&mut partial.hasher, &mut partial.file)?;
            }
            return Ok(Some(partial));
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.hasher = Hasher::new();
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0)).map(drop)
    }
}

fn is_good(path: &Path, digest: &Digest, size: u64) -> io::Result<bool> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    if file.metadata()?.len() != size {
        return Ok(false);
    }
    let mut hasher = Hasher::new();
    hash_into(&mut hasher, &mut file)?;
    Ok(hasher.finish() == *digest)
}

fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn hash_into(hasher: &mut Hasher, file: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => hasher.update(&buffer[..n]),
        }
    }
}
